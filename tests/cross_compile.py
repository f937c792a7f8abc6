"""Cross-compilation: the kernels are compiled and linked for macOS and Windows, on Linux; none of them is run.

    pip install ziglang setuptools Cython numpy scipy       # .ci/cross-compile does it, and what follows
    python tests/cross_compile.py                            # all targets
    python tests/cross_compile.py aarch64-macos

setup.py builds as it would there, with zig's Clang as the compiler; for x86_64-windows-msvc as clang-cl, in the place
of MSVC.  Python's and NumPy's headers are those of this Python with the sizes of the target's types, OpenMP comes from
the target's wheels of other packages.  A module that needs what neither Python, OpenMP nor the C library has is not
linked; but on macOS, where anything may come from Python, this is not seen.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ZIG = [sys.executable, "-m", "ziglang"]
COPIED = ["fastnn", "setup.py", "pyproject.toml", "README.md", "LICENSE"]

#: For each target, the wheel that has OpenMP, by package and platform, the library in it, and its name for the linker.
OPENMP = {
    "aarch64-macos": ("scikit-learn", "macosx_14_0_arm64", "libomp.dylib", "libomp.dylib"),
    "x86_64-macos": ("scikit-learn", "macosx_14_0_x86_64", "libomp.dylib", "libomp.dylib"),
    "x86_64-windows-gnu": ("intel-openmp", "win_amd64", "libiomp5md.lib", "libomp.a"),
    "x86_64-windows-msvc": ("intel-openmp", "win_amd64", "libiomp5md.lib", "libomp.lib"),
}

#: What of pyconfig.h for 64-bit Windows Python's headers ask for.
PYCONFIG = """
#include <io.h>
#define MS_WINDOWS
#define MS_WIN32
#define MS_WIN64
#define NT_THREADS
#define Py_ENABLE_SHARED 1
#define HAVE_DECLSPEC_DLL
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_TIME_T 8
#define SIZEOF_OFF_T 4
#define SIZEOF_WCHAR_T 2
#define HAVE_LONG_LONG 1
#define WITH_PYMALLOC 1
#ifdef _MSC_VER
typedef long long ssize_t;
#define HAVE_SSIZE_T 1
#endif
"""

#: The headers of the C library are MinGW's: they hide Clang's attributes from what calls itself MSVC, have a clock that
#: MSVC's have not, and other complex numbers.
MINGW_FOR_MSVC = {
    "_mingw.h": """
#define WIN_PTHREADS_TIME_H
#include_next <_mingw.h>
#undef __attribute__
#undef __MINGW_ATTRIB_NORETURN
#define __MINGW_ATTRIB_NORETURN
#undef __MINGW_ATTRIB_DEPRECATED
#define __MINGW_ATTRIB_DEPRECATED
""",
    "complex.h": """
typedef struct { float parts[2]; } _Fcomplex;
typedef struct { double parts[2]; } _Dcomplex;
typedef struct { long double parts[2]; } _Lcomplex;
float crealf(_Fcomplex), cimagf(_Fcomplex);
double creal(_Dcomplex), cimag(_Dcomplex);
long double creall(_Lcomplex), cimagl(_Lcomplex);
""",
}

#: What the modules may need of the C library and the system, and what MSVC links into each.
MSVC_FUNCTIONS = {
    "ucrtbase.dll": "calloc free log malloc memcmp memcpy memset pow powf strlen strrchr vsnprintf "
    "_abs64 _timespec64_get __INFF __QNANF",
    "kernel32.dll": "SwitchToThread",
}
MSVC_OBJECT = """
int _fltused;
void *__security_cookie;
void __security_check_cookie(void *cookie) {}
void __chkstk(void) {}
int mainCRTStartup(void) { return 0; }
int _DllMainCRTStartup(void) { return 1; }
"""


def from_wheel(folder: Path, package: str, platform: str, wanted: str, target: Path) -> None:
    """Write the file of a wheel with this name as target."""
    wheels, name = folder / "wheels" / platform, package.replace("-", "_")
    if not list(wheels.glob(f"{name}-*.whl")):
        command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", platform, "--dest", wheels]
        subprocess.run([sys.executable, "-m", "pip", *map(str, command), package], check=True)
    with zipfile.ZipFile(next(wheels.glob(f"{name}-*.whl"))) as wheel:
        member = next(member for member in wheel.namelist() if member.endswith(f"/{wanted}"))
        target.write_bytes(wheel.read(member))


def write_headers(target: str, include: Path) -> None:
    """Write Python's and NumPy's headers as the target has them."""
    shutil.copytree(sysconfig.get_paths()["include"], include, dirs_exist_ok=True)
    shutil.copytree(np.get_include(), include, dirs_exist_ok=True)
    sizes = {}
    if "windows" in target:
        sizes = {"SIZEOF_LONG": 4, "SIZEOF_WCHAR_T": 2, "SIZEOF_OFF_T": 4}
        (include / "pyconfig.h").write_text(PYCONFIG)
    if target != "x86_64-macos":
        sizes |= {"SIZEOF_LONGDOUBLE": 8, "SIZEOF_COMPLEX_LONGDOUBLE": 16}
    numpy_config = include / "numpy" / "_numpyconfig.h"
    text = numpy_config.read_text().replace("#define NPY_HAVE_ENDIAN_H 1", "")
    for name, size in sizes.items():
        text = re.sub(rf"#define NPY_{name} \d+", f"#define NPY_{name} {size}", text)
    numpy_config.write_text(text)


def import_library(name: str, functions: list[str], target: Path) -> None:
    """Write the import library of a DLL with these functions."""
    definition = target.with_suffix(".def")
    definition.write_text("\n".join([f"LIBRARY {name}", "EXPORTS", *functions]))
    subprocess.run([*ZIG, "dlltool", "-m", "i386:x86-64", "-d", str(definition), "-l", str(target)], check=True)


def functions_of_python() -> list[str]:
    """Names in Python's headers that this Python has."""
    headers = Path(sysconfig.get_paths()["include"]).rglob("*.h")
    names = {name for path in headers for name in re.findall(r"\b_?Py\w+", path.read_text(encoding="utf-8"))}
    return sorted(name for name in names if hasattr(ctypes.pythonapi, name))


def script(path: Path, command: list[str]) -> str:
    """Write a program that runs a command with its own arguments after it; zig has other names of processors."""
    path.parent.mkdir(exist_ok=True)
    rename = 'shift; set -- "$@" "$(echo "$argument" | sed "s/^-march=x86-64-/-mcpu=x86_64_/")"'
    path.write_text(f'#!/bin/sh\nfor argument; do {rename}; done\nexec {" ".join(command)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def environment(target: str, folder: Path) -> dict[str, str]:
    """Environment variables with which setup.py builds by zig's Clang."""
    clang = [*ZIG, "cc", "-target", target, f"-I{folder / 'include'}", f"-L{folder / 'lib'}"]
    shared = ["-shared", "-Wl,-undefined,dynamic_lookup" if "macos" in target else "-lpython"]
    return os.environ | {
        "CC": script(folder / "bin" / "cc", clang),
        "LDSHARED": script(folder / "bin" / "ld", [*clang, *shared]),
    }


def environment_of_msvc(folder: Path) -> dict[str, str]:
    """Environment variables with which setup.py builds by zig's Clang in the place of MSVC."""
    import ziglang

    headers = Path(ziglang.__file__).parent / "lib"
    places = [f"-imsvc{headers / place}" for place in ("include", "libc/include/any-windows-any")]
    clang = [*ZIG, "clang", "--driver-mode=cl", "--target=x86_64-pc-windows-msvc", "-Wno-unused-command-line-argument"]
    clang += ["/X", f"-I{folder / 'include'}", *places]
    for name, text in MINGW_FOR_MSVC.items():
        (folder / "include" / name).write_text(text)
    (folder / "lib" / "library.c").write_text(MSVC_OBJECT)
    subprocess.run([*clang, "/c", "/GS-", "library.c", "/Folibrary.obj"], cwd=folder / "lib", check=True)
    for name, functions in MSVC_FUNCTIONS.items():
        import_library(name, functions.split(), folder / "lib" / f"{name}.lib")
    libraries = ["library.obj", "python.lib", *(f"{name}.lib" for name in MSVC_FUNCTIONS)]
    given = [str(folder / "lib" / name) for name in libraries]
    script(folder / "bin" / "clang-cl", clang)
    script(folder / "bin" / "link.exe", [*ZIG, "lld-link", "/nodefaultlib", "/manifest:no", *given])
    (folder / "bin" / "libomp.dll").touch()  # setup.py copies it
    return os.environ | {
        "DISTUTILS_USE_SDK": "1",
        "_PYTHON_HOST_PLATFORM": "win-amd64",
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }


def build(target: str, folder: Path) -> bool:
    """Build for a target; return whether that succeeded."""
    place = folder / target
    (place / "lib").mkdir(parents=True, exist_ok=True)
    write_headers(target, place / "include")
    from_wheel(folder, "intel-openmp", "win_amd64", "omp.h", place / "include" / "omp.h")
    package, platform, wanted, name = OPENMP[target]
    from_wheel(folder, package, platform, wanted, place / "lib" / name)
    if "windows" in target:
        library = place / "lib" / ("python.lib" if "msvc" in target else "libpython.a")
        import_library("python{}{}.dll".format(*sys.version_info), functions_of_python(), library)
    command = [sys.executable, "setup.py", "build_ext", f"--build-temp={place}/objects", f"--build-lib={place}/built"]
    done = subprocess.run(
        command + (["--compiler=msvc"] if "msvc" in target else []),
        cwd=folder,
        env=environment_of_msvc(place) if "msvc" in target else environment(target, place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (place / "log").write_text(done.stdout)
    n_modules = len([path for path in Path(place, "built").rglob("*") if path.suffix in (".so", ".pyd")])
    without = "building WITHOUT OpenMP" in done.stdout
    print(f"{target}: {n_modules} modules" + (", without OpenMP" if without else ""), flush=True)
    if done.returncode or without:
        wrong = [line for line in done.stdout.splitlines() if re.search(r"error:|undefined|WITHOUT", line)]
        print("\n".join(wrong or [done.stdout[-5000:]]), flush=True)
    return done.returncode == 0 and not without


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the kernels for other systems.")
    parser.add_argument("targets", nargs="*", default=list(OPENMP), help=f"among {', '.join(OPENMP)}; default: all")
    parser.add_argument("--folder", type=Path, help="where to build, and keep it; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("*.so", "__pycache__")
                shutil.copytree(source, folder / name, dirs_exist_ok=True, ignore=ignored)
            else:
                shutil.copy2(source, folder)
        built = [build(target, folder) for target in arguments.targets]
    sys.exit(not all(built))


if __name__ == "__main__":
    main()
