"""Turn the benchmark's JSON into the tables of docs/benchmarks.md and README.md, and into a bar chart.

python benchmarks/table.py results.json                      # Markdown, to standard output
python benchmarks/table.py results.json --readme README.md   # write that of README.md into it
python benchmarks/table.py results.json --chart chart.svg    # draw the chart (or .png)
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from pathlib import Path
from typing import Any

from fastnn.benchmark import NO_PEERS, ratios
from fastnn.benchmark.cells import SETS
from fastnn.benchmark.peers import AUTOMATIC, DENSE
from fastnn.benchmark.timing import HANDOVER, ROOFLINE, Summary, summarize

# Readable on white and on black.
INK = "#808080"
COLOURS = ("#4c8dd6", "#e08a3c", "#3fa66b", "#b073c9", "#c95f5f", "#9a9a3c", "#3fa3b5")

# README's table is between these lines.
FIRST_LINE, LAST_LINE = "<!-- from benchmarks/table.py -->", "<!-- to here -->"

#: By label and dtype, then by peer.
Results = dict[tuple[str, str], dict[str, Summary]]


def of_cells(content):
    """Return the turns of the cells; a run of all benchmarks has others too."""
    return [turn for turn in content["benchmarks"] if "cell" in turn["extra_info"]]


def read(content: dict[str, Any]) -> tuple[Results, dict[str, str]]:
    """Return best and median of each peer by (cell, dtype), with the roofline, and the cells' names."""
    seconds: dict[tuple[str, str], dict[str, list[float]]] = {}
    flops, names = {}, {}
    for turn in of_cells(content):
        about = turn["extra_info"]
        times = turn["stats"].get("data") or [turn["stats"]["min"], turn["stats"]["median"]]
        cell = seconds.setdefault((about["cell"], about["dtype"]), {})
        cell.setdefault(about["peer"], []).extend(times)
        flops[about["cell"]], names[about["cell"]] = about["flops"], about["name"]
    results = {(label, dtype): summarize(peers, flops[label]) for (label, dtype), peers in seconds.items()}
    return dict(sorted(results.items(), key=lambda item: item[0][0])), names


def other_peers(results: Results) -> list[str]:
    """Return all peers but fastnn, in the order of a cell that has them all."""
    longest_first = sorted(results.values(), key=len, reverse=True)
    names = dict.fromkeys(name for summaries in longest_first for name in summaries)
    return [name for name in names if name not in (*NO_PEERS, DENSE, AUTOMATIC)]


def shown(seconds: float) -> str:
    """Return seconds with three significant digits."""
    return f"{seconds:.{max(0, 2 - math.floor(math.log10(seconds)))}f}"


def markdown(results: Results, names: dict[str, str], statistic: str = "best") -> str:
    """Return the table; the ratios are of the best."""
    columns = [ROOFLINE, DENSE, AUTOMATIC, *other_peers(results)]
    head = ["cell", "dtype", *columns, "roofline / dense", "best peer / automatic", "core to core, ns"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for (label, dtype), summaries in results.items():
        row = [f"{label}: {names[label]}", dtype]
        row += [shown(getattr(summaries[name], statistic)) if name in summaries else "-" for name in columns]
        row += ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios(summaries)]
        row.append(f"{1e9 * getattr(summaries[HANDOVER], statistic):.0f}" if HANDOVER in summaries else "-")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def readme(content: dict[str, Any]) -> str:
    """Return README's table with the lines before it: best times in float32, the worst cell first."""
    results, names = read(content)
    results = {key: summaries for key, summaries in results.items() if key[1] == "float32"}
    peers = other_peers(results)
    columns = [AUTOMATIC, *peers]
    against = {key: ratios(summaries)[1] or math.inf for key, summaries in results.items()}
    about = (
        "Seconds an epoch in float32: fastnn with its default settings, every other library with its best, and how "
        "many times as long the fastest of these takes; the worst cell first. 1 to 7 are of MNIST in order, with tanh "
        "units and plain steps; A to H have ReLU, Adam and shuffled rows, of MNIST (784 inputs) or a table of random "
        "numbers (64 inputs); I to L have two convolutions, each pooled, before dense layers, and plain steps on MNIST "
        f"in order. {machine(content)}, {content['datetime'][:10]}{nearness(results)}."
    )
    lines = [
        *textwrap.wrap(about, 150, break_on_hyphens=False),
        "",
        f"| cell | fastnn | {' | '.join(peers)} | best other / fastnn |",
        "| --- |" + " ---: |" * (len(columns) + 1),
    ]
    for key in sorted(results, key=against.__getitem__):
        figures = [shown(results[key][name].best) if name in results[key] else "-" for name in columns]
        lines.append(f"| {key[0]}: {names[key[0]]} | {' | '.join(figures)} | {against[key]:.2f} |")
    return "\n".join(lines)


def machine(content: dict[str, Any]) -> str:
    """Return the processor and the number of threads."""
    about = content["machine_info"]
    return f"{about['processor']}, {about['fastnn']['threads']} threads"


def nearness(results: Results) -> str:
    """Return the time from core to core, as the cells had it."""
    found = [round(1e9 * s[HANDOVER].best) for s in results.values() if HANDOVER in s]
    if not found:
        return ""
    return f", {' to '.join(str(ns) for ns in sorted({min(found), max(found)}))} ns from core to core"


def caption(content: dict[str, Any], statistic: str = "best") -> str:
    """Return when, where and with what it was measured."""
    about = content["machine_info"]
    fastnn, versions = about["fastnn"], dict(about["versions"])
    for turn in of_cells(content):
        if turn["extra_info"].get("version"):
            versions[turn["extra_info"]["peer"]] = turn["extra_info"]["version"]
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    instruction_set = fastnn["instruction set"].split()[0]
    return (
        f"Seconds an epoch, {statistic} of several turns. {content['datetime'][:10]}, {machine(content)},\n"
        f"fastnn {fastnn['fastnn']} ({instruction_set}), {used}, Python {about['python_version']}."
    )


def draw(results: Results, names: dict[str, str], path: str) -> None:
    """Draw how many times as long as fastnn automatic each peer takes, a group of bars a cell."""
    from matplotlib.figure import Figure

    dtypes = list(dict.fromkeys(dtype for _, dtype in results))
    cells = list(dict.fromkeys(label for label, _ in results))
    peers = [DENSE, *other_peers(results)]
    group = len(peers) + 1.2
    figure = Figure(figsize=(5.2 * len(dtypes) + 1.6, 0.9 + 0.19 * group * len(cells)), layout="constrained")
    axes = figure.subplots(1, len(dtypes), sharey=True, sharex=True, squeeze=False)[0]
    for ax, dtype in zip(axes, dtypes, strict=True):
        for k, (peer, colour) in enumerate(zip(peers, ("#808080", *COLOURS), strict=False)):
            for i, label in enumerate(cells):
                summaries = results.get((label, dtype), {})
                if peer not in summaries:
                    continue
                ratio = summaries[peer].best / summaries[AUTOMATIC].best
                ax.barh(i * group + k, ratio - 1, 0.82, left=1, color=colour, label=peer)
                ax.text(max(ratio, 1) * 1.04, i * group + k, f"{ratio:.1f}", va="center", fontsize=7, color=INK)
        ax.axvline(1, color=INK, linewidth=1)
        ax.set_xscale("log")
        ax.set_title(dtype, color=INK, fontsize=10)
        ticks = [1, 2, 5, 10, 20, 50, 100]
        ax.set_xticks(ticks, [str(tick) for tick in ticks], color=INK)
        ax.minorticks_off()
        ax.set_xlabel("times as long as fastnn automatic (logarithmic)", color=INK, fontsize=9)
        ax.tick_params(colors=INK, labelsize=8, length=0)
        ax.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
        for spine in ax.spines.values():
            spine.set_visible(False)
    largest = max(s[peer].best / s[AUTOMATIC].best for s in results.values() for peer in peers if peer in s)
    axes[0].set_xlim(0.8, 1.3 * max(largest, 2))
    axes[0].set_yticks([i * group + (len(peers) - 1) / 2 for i in range(len(cells))])
    axes[0].set_yticklabels([f"{label}: {names[label]}".replace(", ", ",\n") for label in cells])
    axes[0].set_ylim(len(cells) * group - 1, -1)
    handles: dict[str, Any] = {}
    for ax in axes:
        found, labels = ax.get_legend_handles_labels()
        handles.update(zip(labels, found, strict=True))
    shown_peers = [peer for peer in peers if peer in handles]
    figure.legend(
        [handles[peer] for peer in shown_peers],
        shown_peers,
        loc="outside upper center",
        ncols=len(shown_peers),
        frameon=False,
        labelcolor=INK,
        fontsize=8,
    )
    figure.savefig(path, transparent=True, dpi=130)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", help="the JSON of pytest benchmarks")
    parser.add_argument("--readme", metavar="FILE", help="write the table of float32 into this README")
    parser.add_argument("--chart", metavar="FILE", help="draw a bar chart, .svg or .png")
    parser.add_argument("--median", action="store_true", help="show medians in place of the best times")
    arguments = parser.parse_args()
    with open(arguments.results, encoding="utf-8") as file:
        content = json.load(file)
    results, names = read(content)
    statistic = "median" if arguments.median else "best"
    for labels in SETS.values():
        of_set = {key: summaries for key, summaries in results.items() if key[0] in labels}
        if of_set:
            print(markdown(of_set, names, statistic), end="\n\n")
    print(caption(content, statistic))
    if arguments.readme:
        before, rest = Path(arguments.readme).read_text(encoding="utf-8").split(FIRST_LINE)
        after = rest.split(LAST_LINE)[1]
        text = f"{before}{FIRST_LINE}\n{readme(content)}\n{LAST_LINE}{after}"
        Path(arguments.readme).write_text(text, encoding="utf-8")
    if arguments.chart:
        draw(results, names, arguments.chart)


if __name__ == "__main__":
    main()
