"""Time each library from a cold process to 98 % accuracy on MNIST's 10,000 test images.

    python benchmarks/cold/run.py --output cold.json                    # three rounds; a few minutes
    python benchmarks/cold/run.py --libraries fastnn torch --rounds 1

The scripts beside this one are whole programs: each imports its library, loads the data, trains 784-512-10 on the
60,000 training images, tests after each epoch and stops at 98 %.  Each is started as a process of its own, in turn,
and timed from outside, imports and compilation included.  Only the disk is warm.  A round's seed is its number, the
same for all.
"""

import argparse
import gzip
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fastnn

HERE = Path(__file__).parent
LIBRARIES = ("fastnn", "sklearn", "torch", "jax")


def processor():
    """Return the processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def version(library):
    """Return the version of a library, or None where it cannot be imported; this warms the disk's cache as well."""
    program = f"import {library}; print({library}.__version__)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def write_mnist(folder):
    """Write the gzipped IDX files of MNIST, as they are distributed, for the peers."""
    train, valid, test = fastnn.datasets.load_mnist(dtype="uint8")
    files = {
        "train-images-idx3-ubyte": np.concatenate([train.X, valid.X]).reshape(-1, 28, 28),
        "train-labels-idx1-ubyte": np.concatenate([train.y, valid.y]),
        "t10k-images-idx3-ubyte": test.X.reshape(-1, 28, 28),
        "t10k-labels-idx1-ubyte": test.y,
    }
    for name, array in files.items():
        content = (
            struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
        )
        Path(folder, f"{name}.gz").write_bytes(gzip.compress(content, 9))


def run(library, folder, seed):
    """Run a library's program once and return seconds, epochs and percent of error."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, HERE / f"{library}_.py", folder, str(seed)], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - start
    epochs, error = re.fullmatch(r"(\d+) epochs, ([\d.]+) % error", done.stdout.splitlines()[-1]).groups()
    if float(error) > 2:
        raise SystemExit(f"{library} ended with {error} % error, above 2 %, with seed {seed}")
    return {"seconds": seconds, "epochs": int(epochs), "error": float(error)}


def table(results):
    """Return the results as a Markdown table."""
    lines = [
        "| library | best, seconds | median, seconds | epochs | test error | best / best of fastnn |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    best = {library: min(each["seconds"] for each in runs) for library, runs in results.items()}
    for library, runs in results.items():
        median = statistics.median(each["seconds"] for each in runs)
        epochs = ", ".join(str(each["epochs"]) for each in runs)
        errors = ", ".join(f"{each['error']:.2f}" for each in runs)
        ratio = f"{best[library] / best['fastnn']:.2f}" if "fastnn" in best else "-"
        lines.append(f"| {library} | {best[library]:.2f} | {median:.2f} | {epochs} | {errors} % | {ratio} |")
    return "\n".join(lines)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    arguments = parser.parse_args()
    versions = {library: version(library) for library in arguments.libraries}
    for library in [library for library in versions if versions[library] is None]:
        print(f"{library} is left out: it cannot be imported", file=sys.stderr)
        del versions[library]
    results = {library: [] for library in versions}
    with tempfile.TemporaryDirectory() as folder:
        write_mnist(folder)
        for seed in range(arguments.rounds):
            for library, runs in results.items():
                runs.append(run(library, folder, seed))
                print(f"{library}, seed {seed}: {runs[-1]}", file=sys.stderr, flush=True)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
    if arguments.output:
        content = {"about": about, "results": results}
        Path(arguments.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    print(f"\nSeeds 0 to {arguments.rounds - 1}; {about['date']}, {about['processor']}, {about['cores']} cores,")
    print(f"Python {about['python']}, {', '.join(f'{name} {number}' for name, number in versions.items())}.")


if __name__ == "__main__":
    main()
