"""Expressions as text and as pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from html import escape
from types import FrameType
from typing import Any

import numpy as np

from fastnn.symbolic.graph import Constant, Shared, Variable

#: A part of an expression with a longer text is abbreviated.
LONGEST = 400

PACKAGE = __name__.rpartition(".")[0]
ATOM = 5  # see ops


def names_in_use() -> dict[Variable, str]:
    """Return the calling program's names of variables.

    Messages use them for variables without a name of their own.
    """
    frame, _ = calling_frame()
    found: dict[Variable, str] = {}
    for names in (frame.f_locals, frame.f_globals):
        for name, value in list(names.items()):
            if isinstance(value, Variable) and not name.startswith("_"):
                found.setdefault(value, name)
    return found


def calling_frame() -> tuple[FrameType, int]:
    """Return the frame in which the program called this package, and its distance from the caller."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    return frame, level


def leaf_name(variable: Variable, names: dict[Variable, str] | None = None) -> str:
    """Return a leaf's own name, the program's name for it, or its type and number."""
    if isinstance(variable, Constant):
        value = variable.value
        return f"{value.item():.6g}" if value.ndim == 0 else f"<constant of shape {value.shape}>"
    names = names_in_use() if names is None else names
    kind = "shared " if isinstance(variable, Shared) else ""
    return variable.name or names.get(variable) or f"<{kind}{variable.type} {variable.number}>"


def pprint(variable: Variable, names: dict[Variable, str] | None = None, *, short: bool = False) -> str:
    """Return an expression as it would be typed.

    Parameters
    ----------
    variable : Variable
    names : dict, optional
        Names of variables without one of their own; by default the program's.
    short : bool, default False
        Whether to write names instead of named expressions within others.
    """
    names = names_in_use() if names is None else names
    texts: dict[Variable, tuple[str, int]] = {}
    # The expansion of a gradient is not written.
    pending = [variable]
    while pending:
        current = pending[-1]
        if current in texts:
            pending.pop()
            continue
        if short and current in names and current is not variable:
            texts[current] = names[current], ATOM
            continue
        shown = _shown(current)
        missing = [source for source in shown if source not in texts]
        if missing:
            pending += missing
            continue
        pending.pop()
        if current.op is None:
            texts[current] = leaf_name(current, names), ATOM
            continue
        parts = [texts[source] if source in shown else ("", ATOM) for source in current.inputs]
        text, level = current.op.text(parts)
        texts[current] = (text, level) if len(text) <= LONGEST or current is variable else ("...", ATOM)
    return texts[variable][0]


def _shown(variable: Variable) -> tuple[Variable, ...]:
    # The expansion of a gradient is the first of its inputs.
    return variable.inputs[1:] if type(variable.op).__name__ == "Gradient" else variable.inputs


def debugprint(variables: Variable | Iterable[Variable], file: Any = None) -> None:
    """Print expressions as trees, one operation a line; parts printed before are named by their letter."""
    names = names_in_use()
    letters: dict[Variable, str] = {}
    for root in [variables] if isinstance(variables, Variable) else variables:
        pending = [(root, 0)]
        while pending:
            variable, depth = pending.pop()
            again = variable in letters
            letter = letters.setdefault(variable, f"[{len(letters) + 1}]")
            label = leaf_name(variable, names) if variable.op is None else label_of(variable)
            print(f"{'  ' * depth}{label} {letter}{' (above)' if again and variable.op else ''}", file=file)
            if not again:
                pending += [(source, depth + 1) for source in reversed(_shown(variable))]


def label_of(variable: Variable) -> str:
    """Return a short label of an operation."""
    assert variable.op is not None
    # Its text, with a dot for each input.
    return variable.op.text([("·", ATOM)] * len(variable.inputs))[0]


def dot(variables: Variable | Iterable[Variable]) -> str:
    """Return a picture of expressions in the DOT language of Graphviz."""
    roots = [variables] if isinstance(variables, Variable) else list(variables)
    names = names_in_use()
    lines = ["digraph expression {", "  rankdir=BT;"]
    for variable in _visible(roots):
        if variable.op is None:
            shape = "note" if isinstance(variable, Constant) else "cylinder" if isinstance(variable, Shared) else "box"
            label = leaf_name(variable, names)
        else:
            shape, label = "ellipse", label_of(variable)
        lines.append(f"  v{variable.number} [shape={shape}, label={_quoted(label)}];")
        lines += [f"  v{source.number} -> v{variable.number};" for source in _shown(variable)]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _visible(roots: list[Variable]) -> list[Variable]:
    seen: set[Variable] = set()
    pending = list(roots)
    while pending:
        variable = pending.pop()
        if variable not in seen:
            seen.add(variable)
            pending.extend(_shown(variable))
    return sorted(seen, key=lambda variable: variable.number)


class Picture:
    """Expressions drawn as a graph, inputs below; notebooks show it.

    Parameters
    ----------
    variables : Variable or iterable of them
    """

    ROW, COLUMN, HEIGHT = 56, 110, 26

    def __init__(self, variables: Variable | Iterable[Variable]) -> None:
        self.roots = [variables] if isinstance(variables, Variable) else list(variables)
        self.names = names_in_use()

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """Return the picture as SVG."""
        visible = _visible(self.roots)
        depth: dict[Variable, int] = {}
        for variable in reversed(visible):
            depth.setdefault(variable, 0)
            for source in _shown(variable):
                depth[source] = max(depth.get(source, 0), depth[variable] + 1)
        rows: list[list[Variable]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
        for variable in visible:
            rows[depth[variable]].append(variable)
        places: dict[Variable, float] = {}
        users: dict[Variable, list[Variable]] = {variable: [] for variable in visible}
        for variable in visible:
            for source in _shown(variable):
                users[source].append(variable)
        for row in rows:
            # Each below the middle of its users, if there is room.
            row.sort(key=lambda v: np.mean([places[user] for user in users[v]]) if users[v] else 0.0)
            at = -np.inf
            for variable in row:
                wanted = float(np.mean([places[user] for user in users[variable]])) if users[variable] else 0.0
                at = max(wanted, at + 1)
                places[variable] = at
        left = min(places.values(), default=0.0)
        width = (max(places.values(), default=0.0) - left + 1) * self.COLUMN
        height = len(rows) * self.ROW
        where = {v: ((places[v] - left + 0.5) * self.COLUMN, (depth[v] + 0.5) * self.ROW) for v in visible}
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
            f'height="{height}" font-family="sans-serif" font-size="11" text-anchor="middle">'
        ]
        for variable in visible:
            x, y = where[variable]
            for source in _shown(variable):
                a, b = where[source]
                lines.append(f'<line x1="{a:.0f}" y1="{b:.0f}" x2="{x:.0f}" y2="{y:.0f}" stroke="#999"/>')
        for variable in visible:
            x, y = where[variable]
            label = leaf_name(variable, self.names) if variable.op is None else label_of(variable)
            fill = "#fff" if variable.op else "#cfe3f7" if isinstance(variable, Shared) else "#eee"
            corner = 0 if variable.op is None else 12
            box = f'x="{x - self.COLUMN * 0.46:.0f}" y="{y - self.HEIGHT / 2:.0f}" width="{self.COLUMN * 0.92:.0f}"'
            lines.append(f'<rect {box} height="{self.HEIGHT}" rx="{corner}" fill="{fill}" stroke="#555"/>')
            lines.append(f'<text x="{x:.0f}" y="{y + 4:.0f}">{escape(label)}</text>')
        return "\n".join([*lines, "</svg>"])
