"""Build of the compiled kernels: the one place for compiler flags and Cython directives.

Environment variables
---------------------
FASTNN_DEBUG=1
    Check bounds and uninitialised memoryviews, at a cost in speed.
FASTNN_OPENMP=0
    Build without OpenMP even if the compiler has it; everything works, on one thread.
FASTNN_BASELINE_ONLY=1
    Build only for any processor of the architecture: a quicker build, and slower kernels on x86-64.
FASTNN_SANITIZE=address or thread
    Build with the compiler's checks of addresses and undefined behaviour, or of threads; see tests/sanitize.py.
"""

import importlib.util
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The same kernels are compiled again for each of these; fastnn/kernels/__init__.py chooses at import.  By default the
# compiler would use half of an AVX-512 register.
INSTRUCTION_SETS = {
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}

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

COPIES = "build/copies"
SOURCE = "fastnn/kernels"

# No fast-math: NaN and infinity must survive, because they show divergence.  -fno-math-errno and -fno-trapping-math
# let the compiler vectorise exp and tanh without changing any finite result.  -falign-functions: the place of a loop in
# its cache line is worth up to 7 % of its speed, and would change with each edit before it.
UNIX_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-falign-functions=64", "-g0"]
# Products and sums are fused, which doubles the speed of tiles.  What "fast" fuses depends on the instructions around,
# with Clang on ARM and GCC 14 and newer on x86, so what a loop has left over after its vectors would round in another
# way; "on" goes by the source.  But GCC fuses vectors, of which tiles are made, by "fast" alone, and before GCC 14 "on"
# is "off".  So GCC has "on" from 14 on, and only for kernels whose loops leave something over.
BY_SOURCE, FREELY = ["-ffp-contract=on"], ["-ffp-contract=fast"]
LEFT_OVER = {"dense", "touched", "updates"}
# The default on x86.  On ARM, GCC would read numbers so early that sums of a tile leave registers.
GCC_FLAGS = ["-fno-schedule-insns"]

# "undefined" does not check arithmetic on floats, where infinities are intended.  "function" is left out because Cython
# calls methods of its memoryviews through pointers to their base's.
SANITIZERS = {
    "address": [
        "-fsanitize=address,undefined",
        "-fno-sanitize=function",
        "-fno-sanitize-recover=all",
        "-shared-libasan",
    ],
    "thread": ["-fsanitize=thread"],
}
SANITIZER = SANITIZERS[os.environ["FASTNN_SANITIZE"]] if os.environ.get("FASTNN_SANITIZE") else []
if SANITIZER:
    UNIX_FLAGS = ["-O1", "-fno-math-errno", "-fno-trapping-math", "-g1", "-fno-omit-frame-pointer", *SANITIZER]

EMPTY_PROBE = "int main(void) { return 0; }\n"
# GCC for Windows does not align vectors of AVX on the stack: GCC's bug 54412.
VECTOR_PROBE = f"#if defined(_WIN32) && !defined(__clang__)\n#error\n#endif\n{EMPTY_PROBE}"
GCC_PROBE = f"#if defined(__clang__)\n#error\n#endif\n{EMPTY_PROBE}"
FUSED_PROBE = f"#if !defined(__clang__) && __GNUC__ < 14\n#error\n#endif\n{EMPTY_PROBE}"
OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
HOMEBREWS = ("/opt/homebrew/opt/libomp", "/usr/local/opt/libomp")  # where Apple's compiler does not look
OPENMP_CANDIDATES = {
    "msvc": [(["/openmp"], [])],
    "clang-cl": [(["/openmp"], ["libomp.lib"])],
    "unix": [
        (["-fopenmp"], ["-fopenmp"]),
        (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),
        *((["-Xpreprocessor", "-fopenmp", f"-I{place}/include"], [f"-L{place}/lib", "-lomp"]) for place in HOMEBREWS),
    ],
}

NO_OPENMP = """
**********************************************************************
fastnn: building WITHOUT OpenMP ({reason}).
Everything works, but on one thread only.  For threads install a
compiler with OpenMP (gcc; on macOS: brew install libomp) and rebuild.
**********************************************************************
"""
NO_VECTORS = """
**********************************************************************
fastnn: building with MSVC, which has no vectors.
Everything works, but several times as slowly.  For speed install LLVM,
so that clang-cl is in PATH, and rebuild.
**********************************************************************
"""


def blas_integer() -> str:
    """Return the C type of integers in SciPy's BLAS: int, or int64_t if SciPy was built with 64-bit integers."""
    spec = importlib.util.find_spec("scipy")
    declarations = Path(spec.submodule_search_locations[0], "linalg", "cython_blas.pxd").read_text()
    kind = re.search(r"void dgemm\(char \*\w+, char \*\w+, (\w+) \*m", declarations).group(1)
    if kind == "blas_int":
        kind = re.search(r"ctypedef (\w+) blas_int", declarations).group(1)
    return {"int": "int", "int64_t": "int64_t"}[kind]


class BuildKernels(build_ext):
    """Translates the kernels to C, adds the flags that the compiler understands, and compiles in parallel."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        family = self.find_family()
        speed_flags, fused = self.find_speed_flags(family)
        openmp_flags, link_flags = self.find_openmp(family)
        supported = {None: []}
        for name, march in INSTRUCTION_SETS.items():
            if family != "msvc" and self.compiles(VECTOR_PROBE, in_family(march, family)):
                supported[name] = in_family(march, family)
        self.extensions = [extension for extension in self.extensions if instruction_set(extension) in supported]
        for extension in self.extensions:
            flags = in_family(speed_flags + fused(extension.name.split(".")[-1]), family)
            extension.extra_compile_args = flags + openmp_flags + supported[instruction_set(extension)]
            extension.extra_link_args = link_flags + SANITIZER
        self.translate()
        super().build_extensions()
        if family == "clang-cl" and openmp_flags:
            # Windows looks for it beside the first module that needs it, not in PATH.
            library = Path(self.compiler.cc).with_name("libomp.dll")
            shutil.copy2(library, Path(self.get_ext_fullpath("fastnn.kernels._cpu")).parent)

    def find_family(self):
        """Return how the compiler takes flags; in the place of MSVC, take Clang if it is there."""
        if self.compiler.compiler_type != "msvc":
            return "unix"
        clang = shutil.which("clang-cl")
        if clang is None:
            print(NO_VECTORS, flush=True)
            return "msvc"
        self.compiler.initialize()
        self.compiler.cc = clang
        self.compiler.add_library_dir(str(Path(clang).parents[1] / "lib"))  # OpenMP's
        return "clang-cl"

    def find_speed_flags(self, family):
        """Return the flags for speed, and a function: those of fused products for a kernel, by its name."""
        is_gcc = family == "unix" and self.compiles(GCC_PROBE, GCC_FLAGS)  # Clang only warns of GCC's
        by_source = self.compiles(FUSED_PROBE, [])
        flags = UNIX_FLAGS + (GCC_FLAGS if is_gcc else [])
        return flags, lambda name: BY_SOURCE if by_source and (name in LEFT_OVER or not is_gcc) else FREELY

    def translate(self):
        """Have Cython make C of the kernels; not earlier, since an sdist and its metadata need none."""
        translated = cythonize(
            self.extensions,
            include_path=[COPIES],
            nthreads=os.cpu_count(),
            shared_utility_qualified_name=SHARED,
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
        )
        for extension, found in zip(self.extensions, translated, strict=True):
            assert extension.name == found.name
            extension.sources = found.sources

    def compiles(self, source, compile_flags, link_flags=()):
        """Return whether a small program compiles and links with these flags."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile([str(path)], folder, extra_postargs=list(compile_flags))
                self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=list(link_flags))
            except Exception:  # each compiler class has its own error type
                return False
        return True

    def find_openmp(self, family):
        """Return the flags for OpenMP, found by compiling and linking a small program; none if that fails."""
        if os.environ.get("FASTNN_OPENMP", "1") == "0":
            print(NO_OPENMP.format(reason="FASTNN_OPENMP=0"), flush=True)
            return [], []
        for compile_flags, link_flags in OPENMP_CANDIDATES[family]:
            if self.compiles(OPENMP_PROBE, compile_flags, link_flags):
                return compile_flags, link_flags
        print(NO_OPENMP.format(reason="the compiler has none"), flush=True)
        return [], []


def in_family(flags, family):
    """Return flags of GCC and Clang as a compiler of a family takes them; MSVC has nothing like them."""
    return {"unix": flags, "clang-cl": [f"/clang:{flag}" for flag in flags], "msvc": []}[family]


def instruction_set(extension):
    """Return which of INSTRUCTION_SETS an extension is for; None for any processor."""
    name = extension.name.split(".")[-2]
    return name if name in INSTRUCTION_SETS else None


def kernels(package, folder):
    """Return the extensions of all kernels in a folder."""
    macros = [("FASTNN_BLAS_INT", blas_integer()), ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
    return [
        Extension(
            f"{package}.{name}",
            [f"{folder}/{name}.pyx"],
            define_macros=macros,
            include_dirs=[SOURCE, np.get_include()],
            depends=sorted(str(path) for path in Path(SOURCE).glob("*.h")),
        )
        for name in sorted(path.stem for path in Path(SOURCE).glob("[!_]*.pyx"))
    ]


def all_extensions():
    """Return the extensions of the kernels for each instruction set, each a package with a copy of the sources."""
    extensions = [
        Extension(SHARED, [SHARED.replace(".", "/") + ".c"]),
        Extension("fastnn.kernels._cpu", [f"{SOURCE}/_cpu.pyx"]),
        *kernels("fastnn.kernels", SOURCE),
    ]
    if platform.machine() in ("x86_64", "AMD64") and os.environ.get("FASTNN_BASELINE_ONLY", "0") != "1":
        for name in INSTRUCTION_SETS:
            folder = Path(COPIES, SOURCE, name)
            folder.mkdir(parents=True, exist_ok=True)
            for path in [*Path(SOURCE).glob("*.pyx"), *Path(SOURCE).glob("*.pxd")]:
                shutil.copy2(path, folder)
            for parent in (folder, folder.parent, folder.parent.parent):
                Path(parent, "__init__.py").touch()
            extensions += kernels(f"fastnn.kernels.{name}", folder)
    return extensions


# Cython starts processes, which import this file where they are not forked: on Windows, on macOS.
if __name__ == "__main__":
    setup(ext_modules=all_extensions(), cmdclass={"build_ext": BuildKernels})
