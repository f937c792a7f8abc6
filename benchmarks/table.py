"""Turn the JSON of ``benchmarks.run`` into a Markdown table: ``python -m benchmarks.table results.json``."""

from __future__ import annotations

import json
import sys

OURS = ("fastnn", "fastnn, dense")


def main() -> None:
    """Print the table."""
    with open(sys.argv[1], encoding="utf-8") as file:
        content = json.load(file)
    results = content["results"]
    peers = list(dict.fromkeys(name for result in results for name in result["best"] if name not in OURS))
    head = ["cell", "dtype", "roofline", *OURS, *peers, "roofline / dense", "best peer / fastnn"]
    print("| " + " | ".join(head) + " |")
    print("| --- | --- |" + " ---: |" * (len(head) - 2))
    for result in results:
        best = result["best"]
        shown = [f"{best[name]:.4f}" if name in best else "-" for name in (*OURS, *peers)]
        against_roofline = result["roofline"] / best["fastnn, dense"]
        against_peers = min(best[name] for name in peers if name in best) / best["fastnn"]
        row = [result["cell"], result["dtype"], f"{result['roofline']:.4f}", *shown]
        print("| " + " | ".join([*row, f"{against_roofline:.2f}", f"{against_peers:.2f}"]) + " |")
    about = content["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"\nSeconds an epoch, best of several; {about['date']}, {about['processor']}, {about['threads']} threads,")
    print(f"fastnn {about['fastnn']} ({about['instruction set'].split()[0]}), {versions}.")


if __name__ == "__main__":
    main()
