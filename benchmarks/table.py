"""Turn the benchmark's JSON into the table of docs/benchmarks.md, and into a bar chart.

python benchmarks/table.py results.json                      # Markdown, to standard output
python benchmarks/table.py results.json --chart chart.svg    # and the chart (or .png)
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from typing import Any

from fastnn.benchmark import ratios
from fastnn.benchmark.peers import AUTOMATIC, DENSE
from fastnn.benchmark.timing import PEAK, PEAK_FLOPS, ROOFLINE, Summary

# Readable on white and on black.
INK = "#808080"
COLOURS = ("#4c8dd6", "#e08a3c", "#3fa66b", "#b073c9", "#c95f5f", "#9a9a3c", "#3fa3b5")

Results = dict[tuple[int, str], dict[str, Summary]]


def of_cells(content):
    """Return the turns of the seven cells; a run of all benchmarks has others too."""
    return [turn for turn in content["benchmarks"] if "cell" in turn["extra_info"]]


def summarize(content: dict[str, Any]) -> tuple[Results, dict[int, str]]:
    """Return best and median of each peer by (cell, dtype), with the roofline, and the cells' names."""
    seconds: dict[tuple[int, str], dict[str, list[float]]] = {}
    flops, names = {}, {}
    for turn in of_cells(content):
        about = turn["extra_info"]
        times = turn["stats"].get("data") or [turn["stats"]["min"], turn["stats"]["median"]]
        cell = seconds.setdefault((about["cell"], about["dtype"]), {})
        cell.setdefault(about["peer"], []).extend(times)
        flops[about["cell"]], names[about["cell"]] = about["flops"], about["name"]
    results: Results = {}
    for (number, dtype), peers in seconds.items():
        found = {peer: Summary(min(times), statistics.median(times)) for peer, times in peers.items()}
        peak, share = found.pop(PEAK), flops[number] / PEAK_FLOPS
        results[number, dtype] = {ROOFLINE: Summary(share * peak.best, share * peak.median), **found}
    return dict(sorted(results.items(), key=lambda item: item[0][0])), names


def other_peers(results: Results) -> list[str]:
    """Return all peers but fastnn, in the order of a cell that has them all."""
    longest_first = sorted(results.values(), key=len, reverse=True)
    names = dict.fromkeys(name for summaries in longest_first for name in summaries)
    return [name for name in names if name not in (ROOFLINE, DENSE, AUTOMATIC)]


def shown(seconds: float) -> str:
    """Return seconds with three significant digits."""
    return f"{seconds:.{max(0, 2 - math.floor(math.log10(seconds)))}f}"


def markdown(results: Results, names: dict[int, str], statistic: str = "best") -> str:
    """Return the table; the ratios are of the best."""
    columns = [ROOFLINE, DENSE, AUTOMATIC, *other_peers(results)]
    head = ["cell", "dtype", *columns, "roofline / dense", "best peer / automatic"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for (number, dtype), summaries in results.items():
        row = [f"{number}: {names[number]}", dtype]
        row += [shown(getattr(summaries[name], statistic)) if name in summaries else "-" for name in columns]
        row += ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios(summaries)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def caption(content: dict[str, Any], statistic: str = "best") -> str:
    """Return when, where and with what it was measured."""
    machine = content["machine_info"]
    fastnn, versions = machine["fastnn"], dict(machine["versions"])
    for turn in of_cells(content):
        if turn["extra_info"].get("version"):
            versions[turn["extra_info"]["peer"]] = turn["extra_info"]["version"]
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    instruction_set = fastnn["instruction set"].split()[0]
    return (
        f"Seconds an epoch, {statistic} of several turns. {content['datetime'][:10]}, {machine['processor']}, "
        f"{fastnn['threads']} threads,\nfastnn {fastnn['fastnn']} ({instruction_set}), {used}, "
        f"Python {machine['python_version']}."
    )


def draw(results: Results, names: dict[int, str], path: str) -> None:
    """Draw how many times as long as fastnn automatic each peer takes, a group of bars a cell."""
    from matplotlib.figure import Figure

    dtypes = list(dict.fromkeys(dtype for _, dtype in results))
    numbers = list(dict.fromkeys(number for number, _ in results))
    peers = [DENSE, *other_peers(results)]
    group = len(peers) + 1.2
    figure = Figure(figsize=(5.2 * len(dtypes) + 1.6, 0.9 + 0.19 * group * len(numbers)), layout="constrained")
    axes = figure.subplots(1, len(dtypes), sharey=True, sharex=True, squeeze=False)[0]
    for ax, dtype in zip(axes, dtypes, strict=True):
        for k, (peer, colour) in enumerate(zip(peers, ("#808080", *COLOURS), strict=False)):
            for i, number in enumerate(numbers):
                summaries = results.get((number, dtype), {})
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
    axes[0].set_yticks([i * group + (len(peers) - 1) / 2 for i in range(len(numbers))])
    axes[0].set_yticklabels([f"{number}: {names[number]}".replace(", ", ",\n") for number in numbers])
    axes[0].set_ylim(len(numbers) * group - 1, -1)
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
    parser.add_argument("--chart", metavar="FILE", help="draw a bar chart, .svg or .png")
    parser.add_argument("--median", action="store_true", help="show medians in place of the best times")
    arguments = parser.parse_args()
    with open(arguments.results, encoding="utf-8") as file:
        content = json.load(file)
    results, names = summarize(content)
    statistic = "median" if arguments.median else "best"
    print(markdown(results, names, statistic), caption(content, statistic), sep="\n\n")
    if arguments.chart:
        draw(results, names, arguments.chart)


if __name__ == "__main__":
    main()
