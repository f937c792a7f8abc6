"""The report of `bench_tables.py` in Markdown, from its list of results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

#: Whose seconds are the unit, and the better of whose scores is what the others are held against.
UNIT = "LightGBM"
RIVALS = ("LightGBM", "RealMLP-TD-S")
#: Not what anybody would use, so not ranked.
NOT_RANKED = ("constant", "RealMLP-TD-S, defaults")
#: What is told of times, and in which part of a second.
TIMES = {
    "fit seconds": ("Seconds to fit, best of the splits", 1),
    "seconds of 10,000 rows": ("Milliseconds to predict 10,000 rows of a frame", 1e3),
    "seconds of a row": ("Microseconds to predict one row, of a frame, or for fastnn's predictor of a dict", 1e6),
}

#: By table, then peer, then split.
Scores = dict[str, dict[str, dict[int, float]]]


def gather(results: list[dict[str, Any]]) -> Scores:
    """Return the scores of the fits that ended."""
    scores: Scores = {}
    for result in results:
        of_table = scores.setdefault(result["table"], {})
        if result["score"] is not None:
            of_table.setdefault(result["peer"], {})[result["split"]] = result["score"]
    return scores


def means(of_table: dict[str, dict[int, float]], peers: list[str]) -> dict[str, float]:
    """Return the mean score of each of the peers on the splits that they all had."""
    common = set.intersection(*(set(of_table[peer]) for peer in peers))
    return {peer: statistics.mean(of_table[peer][split] for split in common) for peer in peers} if common else {}


def mean_ranks(scores: Scores, peers: list[str]) -> dict[str, float]:
    """Return the mean over the tables of the rank by score, 1 the best, among the peers that have all tables."""
    whole = [peer for peer in peers if peer not in NOT_RANKED and all(peer in of_table for of_table in scores.values())]
    ranks: dict[str, list[int]] = {peer: [] for peer in whole}
    for of_table in scores.values():
        found = means(of_table, whole) if whole else {}
        for peer in found:
            ranks[peer].append(1 + sum(other < found[peer] for other in found.values()))
    return {peer: statistics.mean(of_peer) for peer, of_peer in ranks.items() if of_peer}


def behind(scores: Scores, peer: str) -> dict[str, float]:
    """Return by table how many per cent a peer's score is above that of the better rival, on their common splits."""
    percent = {}
    for table, of_table in scores.items():
        rivals = [rival for rival in RIVALS if rival in of_table and rival != peer]
        if peer in of_table and rivals and (found := means(of_table, [peer, *rivals])):
            percent[table] = 100 * (found[peer] / min(found[rival] for rival in rivals) - 1)
    return percent


def best_times(results: list[dict[str, Any]], which: str, factor: float) -> dict[str, dict[str, float]]:
    """Return the least of a kind of times by table and peer, in seconds over the factor."""
    times: dict[str, dict[str, float]] = {}
    for result in results:
        if which in result and result["score"] is not None:
            of_table = times.setdefault(result["table"], {})
            of_table[result["peer"]] = min(factor * result[which], of_table.get(result["peer"], math.inf))
    return times


def relative(times: dict[str, dict[str, float]], peer: str) -> str:
    """Return the geometric mean of a peer's times in the unit's, over the tables that both have."""
    ratios = [of_table[peer] / of_table[UNIT] for of_table in times.values() if peer in of_table and UNIT in of_table]
    return f"{statistics.geometric_mean(ratios):.2f}" if ratios else "-"


def markdown(title: str, tables: list[str], peers: list[str], cell: Callable[[str, str], str]) -> list[str]:
    """Return the lines of a table of tables by peers."""
    lines = [title, "", f"| | {' | '.join(peers)} |", "| --- |" + " ---: |" * len(peers)]
    return lines + [f"| {table} | {' | '.join(cell(table, peer) for peer in peers)} |" for table in tables]


def report(results: list[dict[str, Any]]) -> str:
    """Return scores with their spreads, ranks, distances from the better rival, and times."""
    scores = gather(results)
    names, peers = list(scores), list(dict.fromkeys(result["peer"] for result in results))

    def score_cell(table: str, peer: str) -> str:
        found = list(scores[table].get(peer, {}).values())
        if not found:
            return "-"
        spread = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
        return f"{statistics.mean(found):.4g}{spread} ({len(found)})"

    title = "Mean score and its standard deviation over (so many) splits: log loss or root mean squared error"
    lines = markdown(title, names, peers, score_cell)
    ranks = mean_ranks(scores, peers)
    lines.append(f"| mean rank | {' | '.join(f'{ranks[peer]:.2f}' if peer in ranks else '-' for peer in peers)} |")

    distances = {peer: behind(scores, peer) for peer in peers if peer not in NOT_RANKED}

    def distance_cell(table: str, peer: str) -> str:
        return f"{distances[peer][table]:+.1f}" if table in distances[peer] else "-"

    title = f"Per cent behind the better of {' and '.join(RIVALS)} (the other one for each of them), on common splits"
    lines += ["", *markdown(title, names, list(distances), distance_cell)]
    for which, (what, factor) in TIMES.items():
        times = best_times(results, which, factor)
        lines += ["", *markdown(what, names, peers, partial(time_cell, times))]
        lines.append(f"| times {UNIT}'s | {' | '.join(relative(times, peer) for peer in peers)} |")
    return "\n".join([*lines, "", handovers(results)])


def time_cell(times: dict[str, dict[str, float]], table: str, peer: str) -> str:
    """Return a time with three significant digits."""
    if peer not in times.get(table, {}):
        return "-"
    found = times[table][peer]
    return f"{found:.0f}" if found >= 100 else f"{found:.3g}"


def handovers(results: list[dict[str, Any]]) -> str:
    """Return how long a cache line took from one core to the other before the fits: the state that a machine was in."""
    found = [1e9 * result["core to core"] for result in results if result.get("core to core")]
    if not found:
        return "Core to core: not measured"
    return f"Core to core: {min(found):.0f} to {max(found):.0f} ns, median {statistics.median(found):.0f}"
