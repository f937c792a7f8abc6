"""setup.py: the flags for each kind of compiler, by compilers that compile nothing."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

SETUP = Path(__file__).resolve().parents[1] / "setup.py"
KERNELS = ("epoch", "avx2.epoch", "avx512.epoch")


@pytest.fixture
def setup():
    for needed in ("Cython", "setuptools"):
        pytest.importorskip(needed)
    spec = importlib.util.spec_from_file_location("fastnn_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def flags(setup, monkeypatch):
    """Return a function: the flags of compiler and linker, by the name of each extension, for a kind of compiler."""
    from setuptools import Distribution, Extension

    monkeypatch.delenv("FASTNN_OPENMP", raising=False)
    monkeypatch.setattr(setup.build_ext, "build_extensions", lambda build: None)

    def found(compiler_type, compiles, clang=None, copied=(), errors=(), names=KERNELS):
        monkeypatch.setattr(shutil, "which", lambda name: clang)
        monkeypatch.setattr(shutil, "copy2", lambda *paths: copied.append(paths))
        build = setup.BuildKernels(Distribution())
        places = []
        build.compiler = SimpleNamespace(
            compiler_type=compiler_type, cc="cl.exe", initialize=lambda: None, add_library_dir=places.append
        )
        build.compiles = lambda source, compile_flags, link_flags=(): source not in errors and compiles(compile_flags)
        build.translate = lambda: None
        build.build_lib = "built"
        build.extensions = [Extension(f"fastnn.kernels.{name}", []) for name in names]
        build.build_extensions()
        flags = {e.name[15:]: (e.extra_compile_args, e.extra_link_args) for e in build.extensions}
        return flags, build.compiler.cc, places

    return found


#: Macros of compilers, and the probes that are errors for them.
COMPILERS = {
    "GCC 12": (["__GNUC__=12"], ["FUSED_PROBE"]),
    "GCC 14": (["__GNUC__=14"], []),
    "GCC 12 for Windows": (["__GNUC__=12", "_WIN32"], ["FUSED_PROBE", "VECTOR_PROBE"]),
    "Clang": (["__GNUC__=4", "__clang__"], ["GCC_PROBE"]),
    "Clang for Windows": (["__GNUC__=4", "__clang__", "_WIN32"], ["GCC_PROBE"]),
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_probes_tell_compilers_apart(setup, compiler):
    macros, errors = COMPILERS[compiler]
    if not shutil.which("gcc"):
        pytest.skip("asks the preprocessor of GCC")
    command = ["gcc", "-E", "-U__GNUC__", "-U__clang__", "-U_WIN32", *(f"-D{macro}" for macro in macros), "-xc", "-"]
    for probe in ("FUSED_PROBE", "GCC_PROBE", "VECTOR_PROBE"):
        done = subprocess.run(command, input=getattr(setup, probe), capture_output=True, text=True)
        assert (done.returncode != 0) == (probe in errors), (probe, done.stderr)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_loops_leave_over_is_fused_by_the_source_where_that_can_be_had(flags, setup, compiler):
    _, errors = COMPILERS[compiler]
    errors = [getattr(setup, probe) for probe in errors]
    found, _, _ = flags("unix", lambda flags: True, errors=errors, names=("updates", "avx2.dense"))
    wanted = "-ffp-contract=fast" if compiler.startswith("GCC 12") else "-ffp-contract=on"
    assert all(wanted in compile_flags for compile_flags, _ in found.values())


@pytest.mark.parametrize("compiler", COMPILERS)
def test_flags_of_a_compiler(flags, setup, compiler):
    _, errors = COMPILERS[compiler]
    found, _, _ = flags("unix", lambda flags: True, errors=[getattr(setup, probe) for probe in errors])
    sets = {"epoch": [], "avx2.epoch": ["-march=x86-64-v3"]}
    assert list(found) == (["epoch"] if "VECTOR_PROBE" in errors else ["epoch", "avx2.epoch", "avx512.epoch"])
    for name, more in [(name, more) for name, more in sets.items() if name in found]:
        compile_flags, link_flags = found[name]
        assert compile_flags[0] == "-O3"
        fused = "-ffp-contract=fast" if compiler.startswith("GCC") else "-ffp-contract=on"
        assert [flag for flag in compile_flags if "contract" in flag] == [fused]
        assert ("-fno-schedule-insns" in compile_flags) == compiler.startswith("GCC")
        assert compile_flags[-1 - len(more) :] == ["-fopenmp", *more]
        assert link_flags == ["-fopenmp"]


def test_what_a_compiler_cannot_do_is_left_out(flags, capsys):
    # Apple's Clang has OpenMP by another flag, and for its own processors no AVX.
    found, _, _ = flags("unix", lambda flags: "-Xpreprocessor" in flags)
    assert list(found) == ["epoch"]
    assert found["epoch"][1] == ["-lomp"]
    found, _, _ = flags("unix", lambda flags: "-I/usr/local/opt/libomp/include" in flags)  # Homebrew's on Intel's
    assert found["epoch"][1] == ["-L/usr/local/opt/libomp/lib", "-lomp"]
    found, _, _ = flags("unix", lambda flags: False)
    assert not {"-fopenmp", "-lomp"} & {flag for part in found["epoch"] for flag in part}
    assert "WITHOUT OpenMP" in capsys.readouterr().out


def test_clang_takes_the_place_of_msvc(flags):
    copied = []
    found, compiler, places = flags("msvc", lambda flags: True, "/llvm/bin/clang-cl.exe", copied)
    assert compiler == "/llvm/bin/clang-cl.exe"
    assert places == [str(Path("/llvm/lib"))]
    assert list(found) == ["epoch", "avx2.epoch", "avx512.epoch"]
    compile_flags, link_flags = found["avx512.epoch"]
    assert {"/clang:-O3", "/openmp", "/clang:-march=x86-64-v4"} <= set(compile_flags)
    assert all(flag.startswith("/") for flag in compile_flags)
    assert link_flags == ["libomp.lib"]
    ((library, folder),) = copied
    assert library == Path("/llvm/bin/libomp.dll")
    assert folder == Path("built/fastnn/kernels")


def test_msvc_alone_builds_what_it_can(flags, capsys):
    # It takes every flag, with a warning.
    found, compiler, _ = flags("msvc", lambda flags: True)
    assert compiler == "cl.exe"
    assert found == {"epoch": (["/openmp"], [])}
    assert "building with MSVC" in capsys.readouterr().out
