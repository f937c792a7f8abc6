"""How the time of an epoch grows with rows, width, batch size and threads: four plots in one figure.

    python benchmarks/scaling.py --output scaling                      # scaling.svg, .png and .json; a few minutes
    python benchmarks/scaling.py --output scaling --libraries "fastnn automatic" NumPy --rounds 1

The model is 784-100-10 with tanh units in float32, trained by plain steps on 8,192 of MNIST's images in batches of 128;
each plot varies one of these.  At each point the libraries take turns, after a pause in which the threads of the last
one come to rest, and the best of all rounds counts.  Threads are varied for fastnn and NumPy alone, up to more than
most small machines have processors.
"""

import argparse
import json
import time
from pathlib import Path

import threadpoolctl
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

import fastnn
from fastnn.benchmark.cells import Cell
from fastnn.benchmark.peers import AUTOMATIC, DENSE, PEERS, is_installed, make_trainer

BASE = {"rows": 8192, "width": 100, "batch size": 128, "threads": None}
VALUES = {
    "rows": (1024, 2048, 4096, 8192, 16384, 32768),
    "width": (16, 32, 64, 128, 256, 512, 1024),
    "batch size": (8, 32, 128, 512, 2048, 8192),
    "threads": (1, 2, 3, 4),
}
LIBRARIES = (AUTOMATIC, DENSE, "NumPy", "JAX", "PyTorch")
WITH_THREADS = (AUTOMATIC, DENSE, "NumPy")
COLORS = dict(zip(LIBRARIES, ("#d62728", "#ff9896", "#1f77b4", "#2ca02c", "#9467bd"), strict=True))
PAUSE = 0.12
TURN = 0.1


def prepare(library, setting, X, y):
    """Return a function that trains an epoch and returns its seconds."""
    cell = Cell("-", "scaling", (X.shape[1], setting["width"], 10), setting["rows"], setting["batch size"])
    X, y, n_threads = X[: cell.rows], y[: cell.rows], setting["threads"]
    if library in (AUTOMATIC, DENSE):
        trainer = make_trainer(
            cell, X.dtype.name, n_threads=n_threads, sparse="auto" if library == AUTOMATIC else False
        )
        return lambda: trainer.fit(X, y, epochs=1).seconds[0]
    train = PEERS[library](cell, X, y)

    def epoch():
        with threadpoolctl.threadpool_limits(n_threads):
            start = time.perf_counter()
            train()
            return time.perf_counter() - start

    return epoch


def measure(libraries, setting, rounds, X, y):
    """Return the best seconds of an epoch of each library."""
    epochs = {library: prepare(library, setting, X, y) for library in libraries}
    for epoch in epochs.values():
        epoch()  # compiles
    best = dict.fromkeys(libraries, float("inf"))
    for _ in range(rounds):
        for library, epoch in epochs.items():
            time.sleep(PAUSE)
            end = time.perf_counter() + TURN
            best[library] = min(best[library], epoch())
            while time.perf_counter() < end:
                best[library] = min(best[library], epoch())
    return best


def draw(results, path):
    """Draw the four plots and write them as SVG and PNG."""
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    for plot, (name, points) in zip(axes.flat, results.items(), strict=True):
        values = [point["value"] for point in points]
        for library in points[0]["seconds"]:
            milliseconds = [1000 * point["seconds"][library] for point in points]
            plot.plot(values, milliseconds, "o-", label=library, color=COLORS[library], markersize=4)
        plot.set(xscale="log", yscale="log", xlabel=name, ylabel="milliseconds an epoch")
        plot.set_xticks(values, [f"{value:,}" for value in values])
        low, high = plot.get_ylim()
        plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
        plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        plot.xaxis.set_minor_locator(NullLocator())
        plot.yaxis.set_minor_locator(NullLocator())
        plot.grid(alpha=0.3)
        plot.spines[["top", "right"]].set_visible(False)
        fixed = {
            "rows": f"{BASE['rows']:,} rows",
            "width": f"{BASE['width']} units",
            "batch size": f"batches of {BASE['batch size']}",
        }
        plot.set_title(", ".join(text for key, text in fixed.items() if key != name), fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    for ending in ("svg", "png"):
        figure.savefig(f"{path}.{ending}", dpi=150)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="scaling", help="path of the files, without their endings")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--draw", action="store_true", help="only draw what OUTPUT.json holds")
    arguments = parser.parse_args()
    stored = Path(f"{arguments.output}.json")
    if not arguments.draw:
        train, _, _ = fastnn.datasets.load_mnist()
        libraries = [library for library in arguments.libraries if is_installed(library)]
        results = {}
        for name, values in VALUES.items():
            compared = [library for library in libraries if name != "threads" or library in WITH_THREADS]
            results[name] = []
            for value in values:
                seconds = measure(compared, {**BASE, name: value}, arguments.rounds, train.X, train.y)
                results[name].append({"value": value, "seconds": seconds})
                print(f"{value} {name}: {seconds}", flush=True)
        stored.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(json.loads(stored.read_text(encoding="utf-8")), arguments.output)


if __name__ == "__main__":
    main()
