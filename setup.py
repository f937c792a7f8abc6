"""Build of the compiled kernels: the one place for compiler flags and Cython directives.

Environment variables
---------------------
FASTNN_DEBUG=1
    Bounds checks, overflow of indices and uninitialised memoryviews are checked, at a cost in speed.
FASTNN_OPENMP=0
    Build without OpenMP even where the compiler has it; everything works, on one thread.
"""

import importlib.util
import os
import re
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = ("blas", "rows", "activations", "softmax", "affine", "sparse", "updates", "epoch")

DEBUG = os.environ.get("FASTNN_DEBUG", "0") == "1"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "embedsignature": False,
    "freethreading_compatible": True,
}

# The code behind memoryviews, compiled once instead of in every kernel.
SHARED = "fastnn.kernels._cyutility"

# No fast-math: NaN and infinity must survive, since divergence is detected by them.  These three let
# the compiler vectorise exp and tanh without changing any finite result.
UNIX_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-g0"]
MSVC_FLAGS = ["/O2"]

OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
OPENMP_CANDIDATES = {
    "msvc": [(["/openmp"], [])],
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
}

NO_OPENMP = """
**********************************************************************
fastnn: building WITHOUT OpenMP ({reason}).
Everything works, but on one thread only.  For threads install a
compiler with OpenMP (gcc; on macOS: brew install libomp) and rebuild.
**********************************************************************
"""


def blas_integer() -> str:
    """C type of the integers in SciPy's BLAS: int, or int64_t where SciPy was built with 64-bit integers."""
    spec = importlib.util.find_spec("scipy")
    declarations = Path(spec.submodule_search_locations[0], "linalg", "cython_blas.pxd").read_text()
    kind = re.search(r"void dgemm\(char \*\w+, char \*\w+, (\w+) \*m", declarations).group(1)
    if kind == "blas_int":
        kind = re.search(r"ctypedef (\w+) blas_int", declarations).group(1)
    return {"int": "int", "int64_t": "int64_t"}[kind]


class BuildKernels(build_ext):
    """Adds the flags that the compiler at hand understands, and compiles the kernels side by side."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        msvc = self.compiler.compiler_type == "msvc"
        compile_flags, link_flags = self.find_openmp("msvc" if msvc else "unix")
        for extension in self.extensions:
            extension.extra_compile_args = (MSVC_FLAGS if msvc else UNIX_FLAGS) + compile_flags
            extension.extra_link_args = link_flags
        super().build_extensions()

    def find_openmp(self, family):
        """Flags for OpenMP, found by compiling and linking a small program; none where that fails."""
        if os.environ.get("FASTNN_OPENMP", "1") == "0":
            print(NO_OPENMP.format(reason="FASTNN_OPENMP=0"), flush=True)
            return [], []
        for compile_flags, link_flags in OPENMP_CANDIDATES[family]:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text(OPENMP_PROBE)
                try:
                    objects = self.compiler.compile([str(source)], folder, extra_postargs=compile_flags)
                    self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=link_flags)
                except Exception as error:  # each compiler class has its own error type
                    reason = str(error)
                    continue
            return compile_flags, link_flags
        print(NO_OPENMP.format(reason=reason), flush=True)
        return [], []


setup(
    ext_modules=cythonize(
        [
            Extension(
                f"fastnn.kernels.{name}",
                [f"fastnn/kernels/{name}.pyx"],
                define_macros=[("FASTNN_BLAS_INT", blas_integer())],
            )
            for name in KERNELS
        ]
        + [Extension(SHARED, [SHARED.replace(".", "/") + ".c"])],
        shared_utility_qualified_name=SHARED,
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
    ),
    cmdclass={"build_ext": BuildKernels},
)
