"""Draw the figures of how-it-works.md, as figures/*.svg.

    python docs/figures.py              # in a checkout, with fastnn and matplotlib installed

What can be computed is: pairs come from `fastnn.layout`, the parts of a step's time from `benchmarks/cost_model.py`,
with the constants that plan.md states.  The plans behind these are those of a processor with AVX-512.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from fastnn.layout import pairs_of

DOCS = Path(__file__).parent
INK, LINE, PALE = "#333333", "#888888", "#e9e9e9"
THREADS = ("#9ecae9", "#ffbf79", "#a5d88f", "#d6a5c9")  # pale enough for dark text

matplotlib.rcParams.update({"font.size": 9, "text.color": INK, "svg.hashsalt": "fastnn", "axes.edgecolor": LINE})


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a white figure of this size in inches, and its axes, with a unit of an inch from the lower left corner."""
    figure = Figure(figsize=(width, height), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return figure, ax


def box(ax: Axes, x: float, y: float, width: float, height: float, text: str = "", color: str = PALE) -> None:
    """Draw a box with rounded corners, and text in its middle."""
    style = f"round,pad=0,rounding_size={min(0.05, width / 3, height / 3)}"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=color, edgecolor=LINE, linewidth=0.7))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center")


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": LINE, "shrinkA": 0, "shrinkB": 0})


def legend(ax: Axes, x: float) -> None:
    """Say which colour is which thread."""
    for thread in range(2):
        box(ax, x + 1.2 * thread, 0.06, 0.16, 0.12, color=THREADS[thread])
        ax.text(x + 0.23 + 1.2 * thread, 0.12, f"thread {thread}", va="center", fontsize=8)


def floors() -> Figure:
    """The five floors, and the way of a fit down them."""
    figure, ax = canvas(7.2, 3.5)
    texts = (
        ("front doors", "command line, scikit-learn, tables, notation, export", "translate and delegate"),
        ("the models", "Network, Trainer, layers, optimizers, callbacks, files", "what is trained"),
        ("the plan", "plan, layout, slots, tuning", "every choice of how, once"),
        ("the engine", "work space, runs, threads, ranks", "carries a plan out"),
        ("engine room", "drivers, the switch of layers, kernels", "compiled"),
    )
    for k, (name, modules, role) in enumerate(texts):
        y = 2.85 - 0.68 * k
        box(ax, 0.7, y, 6.4, 0.5, color=PALE if k < 4 else THREADS[0])
        ax.text(0.85, y + 0.25, name, va="center", weight="bold")
        ax.text(1.95, y + 0.25, modules, va="center")
        ax.text(6.98, y + 0.25, role, va="center", ha="right", style="italic", color="#555555")
    arrow(ax, (0.45, 3.3), (0.45, 0.2))
    ax.text(0.28, 1.75, "imports, and a fit's way", rotation=90, ha="center", va="center")
    return figure


def by_rows() -> Figure:
    """A batch of 1,024 rows in four shards, on two threads."""
    figure, ax = canvas(7.2, 3.1)
    ax.text(0.75, 2.9, "a batch", ha="center", weight="bold")
    ax.text(3.05, 2.9, "row blocks, one after the other", ha="center", weight="bold")
    ax.text(4.95, 2.9, "gradients", ha="center", weight="bold")
    ax.text(6.5, 2.9, "the step", ha="center", weight="bold")
    for shard in range(4):
        y, color = 2.2 - 0.6 * shard, THREADS[shard // 2]
        box(ax, 0.15, y, 1.2, 0.5, f"shard {shard}", color)
        arrow(ax, (1.4, y + 0.25), (1.85, y + 0.25))
        for k in range(2):
            box(ax, 1.9 + 1.2 * k, y, 1.1, 0.5, "forward,\nbackward", color)
        arrow(ax, (4.25, y + 0.25), (4.6, y + 0.25))
        box(ax, 4.65, y, 0.6, 0.5, f"$g_{shard}$", color)
        arrow(ax, (5.3, y + 0.25), (5.75, 1.55 + 0.3 * (1.5 - shard)))
    box(ax, 5.8, 0.85, 1.3, 1.4, "sum in pairs,\nthen move\nthe parameters\n\nthreads take\nranges of them")
    legend(ax, 0.15)
    return figure


def by_units() -> Figure:
    """One hidden layer, whose units two threads share, and the one barrier of a step."""
    figure, ax = canvas(7.2, 3.1)
    for x, text in ((0.55, "all rows\nof the batch"), (2.35, "hidden units"), (3.9, "parts of\nthe logits")):
        ax.text(x, 2.83, text, ha="center", va="center", weight="bold")
    ax.text(6.1, 2.83, "parts summed; backward,\non the same units", ha="center", va="center", weight="bold")
    box(ax, 0.15, 0.35, 0.8, 2.2, "$X$")
    ax.plot((4.6, 4.6), (0.2, 2.65), color="#c1272d", linewidth=2)
    ax.text(4.6, 0.1, "barrier", ha="center", va="center", color="#c1272d")
    for s in range(4):
        y, color = 2.1 - 0.58 * s, THREADS[s // 2]
        arrow(ax, (1.0, y + 0.23), (1.75, y + 0.23))
        box(ax, 1.8, y, 1.1, 0.46, f"slice {s}", color)
        arrow(ax, (2.95, y + 0.23), (3.5, y + 0.23))
        box(ax, 3.55, y, 0.7, 0.46, f"$z_{s}$", color)
        arrow(ax, (4.65, y + 0.23), (5.0, y + 0.23))
        box(ax, 5.05, y, 2.05, 0.46, f"slice {s}: its columns of $W_1$,\nits rows of $W_2$", color)
    legend(ax, 1.8)
    return figure


def pairs() -> Figure:
    """The additions of eight gradients, for one thread, two and four: colours change, the tree does not."""
    figure, ax = canvas(7.2, 2.5)
    for panel, n_threads in enumerate((1, 2, 4)):
        left, heights = 0.3 + 2.4 * panel, [0.35] * 8
        places = [left + 0.26 * shard for shard in range(8)]
        owner = [THREADS[shard * n_threads // 8] for shard in range(8)]
        ax.text(left + 0.9, 2.3, f"{n_threads} thread{'s' * (n_threads > 1)}", ha="center", weight="bold")
        nodes = [(places[shard], 0.35, owner[shard], str(shard)) for shard in range(8)]
        for first, second, _ in pairs_of(8):
            x, y = (places[first] + places[second]) / 2, max(heights[first], heights[second]) + 0.5
            for k in (first, second):
                ax.plot((places[k], x), (heights[k], y), color=LINE, linewidth=1, zorder=1)
            places[first], heights[first] = x, y
            nodes.append((x, y, "white", "+"))
        for x, y, color, text in nodes:
            ax.add_patch(Circle((x, y), 0.115, facecolor=color, edgecolor=LINE, linewidth=0.7))
            ax.text(x, y, text, ha="center", va="center_baseline", fontsize=8)
    ax.text(3.6, 0.08, "shards, in the colour of the thread that computes them", ha="center", va="center", fontsize=8)
    return figure


def forms() -> Figure:
    """The order in memory of a weight of 6 inputs and 8 units, as stored, transposed and in panels of 4 units."""
    figure = Figure(figsize=(7.2, 2.35), facecolor="white", layout="constrained")
    stored = np.arange(48).reshape(6, 8)
    places = {
        "as stored": stored,
        "transposed": stored.reshape(8, 6).T,
        "in panels": np.hstack([np.arange(24).reshape(6, 4), np.arange(24, 48).reshape(6, 4)]),
    }
    for ax, (name, place) in zip(figure.subplots(1, 3), places.items(), strict=True):
        ax.imshow(place, cmap="Blues", vmin=-6, vmax=80)
        for (i, j), k in np.ndenumerate(place):
            ax.text(j, i, str(k), ha="center", va="center", fontsize=8)
        ax.set_title(name, fontsize=9, weight="bold")
        ax.set(xticks=[], yticks=[], xlabel="units", ylabel="inputs")
        if name == "in panels":
            ax.axvline(3.5, color="white", linewidth=3)
    return figure


def lanes() -> Figure:
    """Sixteen images, and a register that holds the same pixel of all of them."""
    figure, ax = canvas(7.2, 2.2)
    ax.text(1.6, 2.05, "a group of images, one a lane", ha="center", va="center", weight="bold")
    for image in range(15, -1, -1):
        x, y = 0.35 + 0.12 * image, 0.3 + 0.055 * image
        box(ax, x, y, 0.7, 0.7, color="white")
        ax.add_patch(Rectangle((x + 0.6, y + 0.35), 0.09, 0.12, facecolor="#4c9ad1"))
    ax.text(0.55, 0.15, "the same pixel of each", va="center", fontsize=8)
    arrow(ax, (2.95, 0.95), (3.35, 0.95))
    ax.text(5.25, 2.05, "one vector register", ha="center", va="center", weight="bold")
    for lane in range(16):
        box(ax, 3.45 + 0.225 * lane, 1.35, 0.21, 0.3, color="#4c9ad1")
        box(ax, 3.45 + 0.225 * lane, 0.35, 0.21, 0.3, color=THREADS[1])
    ax.text(5.25, 1.0, "times one weight, added to the sums of 16 outputs:", ha="center", va="center")
    ax.text(5.25, 0.15, "the same output of each", ha="center", va="center", fontsize=8)
    return figure


def times() -> Figure:
    """Shares of a step's time by the cost model, on two cores that are 30 ns apart."""
    sys.path.insert(0, str(DOCS.parent / "benchmarks"))
    from cost_model import Machine, cost

    from fastnn.benchmark.cells import CELLS
    from fastnn.benchmark.peers import make_trainer
    from fastnn.benchmark.timing import load_rows

    machine = Machine(flops=107e9, numbers=1.11e9, bandwidth=46e9, barrier=36e-9)  # as plan.md says
    figure = Figure(figsize=(7.2, 2.8), facecolor="white", layout="constrained")
    ax = figure.subplots()
    labels = []
    for row, name in enumerate("HGFDA73"):
        cell = CELLS[name]
        plan = make_trainer(cell, "float32", n_threads=2, sparse=False).plan(*load_rows(cell, "float32"))
        found, begin = cost(plan, machine, 2, 30e-9), 0.0
        parts = (found.products, found.update, found.lines, found.barriers)
        for part, color in zip(parts, THREADS, strict=True):
            ax.barh(row, 100 * part / found.total, left=begin, color=color, edgecolor="white", linewidth=0.5)
            begin += 100 * part / found.total
        labels.append(f"{name}: {cell.name}")
    ax.set(yticks=range(len(labels)), yticklabels=labels, xlabel="% of a step, as predicted", xlim=(0, 100))
    names = ("products", "optimizer's step", "lines from core to core", "barriers")
    for name, color in zip(names, THREADS, strict=True):
        ax.barh(0, 0, color=color, label=name)
    ax.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.2, 1), frameon=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return figure


def main() -> None:
    """Draw all of them."""
    (DOCS / "figures").mkdir(exist_ok=True)
    for draw in (floors, by_rows, by_units, pairs, forms, lanes, times):
        draw().savefig(DOCS / "figures" / f"{draw.__name__.replace('_', '-')}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
