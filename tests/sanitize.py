"""Sanitizers: the kernels are built with a compiler's checks, and tests run on them; Linux only.

    python tests/sanitize.py address
    python tests/sanitize.py thread

"address" looks for accesses beside the memory that was asked for, and for undefined behaviour; "thread" for races of
threads.  Both with Clang, whose OpenMP tells the sanitizer by Archer where threads wait for each other.  All is built
in a folder of its own, so that the kernels in the checkout stay as they are.  What is found is printed, and ends with
status 1.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COPIED = ["fastnn", "tests", "benchmarks", "setup.py", "pyproject.toml", "README.md", "LICENSE"]

# What reaches the kernels.
TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "kernels",
        "convolution",
        "symbolic_images",
        "trunk",
        "columns",
        "embeddings",
        "bits",
        "training",
        "batch_norm",
        "optimizers",
        "objectives",
        "mapped",
        "alignment",
        "network",
    )
]
TESTS += [name for name in ["tests/test_anything.py"] if (ROOT / name).exists()]  # random networks and data

OPTIONS = {
    # Python keeps what it has until it ends, and tests ask for more than there is.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    # Python, NumPy and BLAS are built without: what they do to their own memory cannot be judged.
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:die_after_fork=0:halt_on_error=0:exitcode=0:history_size=4",
}


CLANGS = ["clang", *(f"clang-{version}" for version in range(30, 14, -1))]


def compiler() -> str:
    """Name of the compiler: CC, or the first Clang that is there."""
    for name in [os.environ["CC"]] if "CC" in os.environ else CLANGS:
        if shutil.which(name):
            return name
    sys.exit("no Clang is there; see CONTRIBUTING.md")


def library(cc: str, name: str) -> str:
    """Path of a library of the compiler's."""
    path = subprocess.run([cc, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"{cc} has no {name}; see CONTRIBUTING.md")
    return path


def build(kind: str, folder: Path, cc: str) -> None:
    """Copy the sources and compile them there; what is there already is kept."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            # A compiled kernel of the checkout is none of these.
            shutil.copytree(
                source, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "__pycache__")
            )
        else:
            shutil.copy2(source, folder)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"FASTNN_SANITIZE": kind, "CC": cc},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-5000:]}\nthe build failed")


def environment(kind: str, folder: Path, cc: str, instruction_set: str) -> dict[str, str]:
    """Environment variables with which Python runs under a sanitizer."""
    found = os.environ | {
        "FASTNN_INSTRUCTION_SET": instruction_set,
        "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "tests")]),
        "OMP_WAIT_POLICY": "passive",
        "PYTHONMALLOC": "malloc",
    }
    for name, value in OPTIONS.items():
        found[name] = f"{value}:log_path={folder / 'report'}"
    # The first libraries that are loaded, and that of C++ so that its exceptions are seen.
    runtime = "asan" if kind == "address" else "tsan"
    found["LD_PRELOAD"] = " ".join(library(cc, name) for name in (f"libclang_rt.{runtime}-x86_64.so", "libstdc++.so.6"))
    if kind == "thread":
        found["OMP_TOOL_LIBRARIES"] = library(cc, "libarcher.so")
    return found


def run(kind: str, folder: Path, cc: str, instruction_set: str, arguments: list[str]) -> bool:
    """Run tests; return whether they passed and nothing was found."""
    print(f"== {kind}, {instruction_set}", flush=True)
    for path in folder.glob("report*"):
        path.unlink()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "sanitize", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(kind, folder, cc, instruction_set))
    reports = [path.read_text(errors="replace") for path in sorted(folder.glob("report*"))]
    print("\n".join(report[:20_000] for report in reports), flush=True)
    return done.returncode == 0 and not reports


def aligned(shape: int | tuple[int, ...], dtype: Any, zeros: bool = True) -> Any:
    """Return what `fastnn.engine.rows.aligned` does, with nothing behind its end that an error could hide in."""
    import numpy as np

    size = int(np.prod(shape)) * dtype.itemsize
    if size == 0:
        return np.zeros(shape, dtype)
    libc, pointer = ctypes.CDLL(None), ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(pointer), 64, ctypes.c_size_t(size)) == 0
    memory = (ctypes.c_char * size).from_address(pointer.value)
    weakref.finalize(memory, libc.free, ctypes.c_void_p(pointer.value)).atexit = False
    found = np.frombuffer(memory, dtype).reshape(shape)
    found[...] = 0 if zeros else np.nan
    return found


def pytest_configure() -> None:
    """As a plugin of the tests: have the work space end where it ends."""
    from fastnn.engine import local

    local.aligned = aligned


def main(arguments: list[str] | None = None) -> int:
    """Build and run."""
    from fastnn.kernels import _cpu  # of what is installed; as a plugin of the tests, this file is not in their way

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["address", "thread"])
    parser.add_argument("--folder", type=Path, help="where to build; kept, and a later build there is quick")
    parser.add_argument("--sets", nargs="+", help="instruction sets to test; default: baseline, and the best here")
    parser.epilog = "What follows -- are arguments of pytest, in the place of all tests that reach the kernels."
    given = sys.argv[1:] if arguments is None else arguments
    cut = given.index("--") if "--" in given else len(given)
    options, tests = parser.parse_args(given[:cut]), given[cut + 1 :] or TESTS
    sets = options.sets or dict.fromkeys(["baseline", _cpu.supported()[0]])
    cc = compiler()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(exist_ok=True)
        build(options.kind, folder, cc)
        clean = [run(options.kind, folder, cc, name, tests) for name in sets]
    print("clean" if all(clean) else "not clean")
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
