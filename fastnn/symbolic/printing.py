"""Expressions as text and as pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from fastnn.symbolic.graph import Constant, Op, Operand, Parts, Shared, Variable, apply, as_variable

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


pp = pprint


def debugprint(variables: Any, depth: int = -1, print_type: bool = False, file: Any = None, **options: Any) -> Any:
    """Print expressions as trees, one operation a line; parts printed before are named by their number.

    Parameters
    ----------
    variables : Variable, iterable of them, or Function
    depth : int, default -1
        The number of levels to print; -1: all.
    print_type : bool, default False
        Whether to print types too.
    file : file or "str", optional
        Where to print; "str" returns the text.
    **options
        Theano's others are ignored.
    """
    lines = list(_tree(_roots(variables), depth, print_type))
    if file == "str":
        return "\n".join([*lines, ""])
    print(*lines, sep="\n", file=file)
    return None


def _tree(roots: list[Variable], levels: int, print_type: bool) -> Iterator[str]:
    names = names_in_use()
    numbers: dict[Variable, str] = {}
    for root in roots:
        pending = [(root, 0)]
        while pending:
            variable, depth = pending.pop()
            again = variable in numbers
            number = numbers.setdefault(variable, f"[{len(numbers) + 1}]")
            label = leaf_name(variable, names) if variable.op is None else label_of(variable)
            kind = f" <{variable.type}>" if print_type else ""
            yield f"{'  ' * depth}{label} {number}{kind}{' (above)' if again and variable.op else ''}"
            if not again and depth + 1 != levels:
                pending += [(source, depth + 1) for source in reversed(_shown(variable))]


def _roots(variables: Any) -> list[Variable]:
    # Expressions, those of a function, or one.
    return [variables] if isinstance(variables, Variable) else list(getattr(variables, "outputs", variables))


def label_of(variable: Variable) -> str:
    """Return a short label of an operation."""
    assert variable.op is not None
    # Its text, with a dot for each input.
    return variable.op.text([("·", ATOM)] * len(variable.inputs))[0]


def dot(variables: Variable | Iterable[Variable]) -> str:
    """Return a picture of expressions in the DOT language of Graphviz."""
    roots = _roots(variables)
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
        self.roots = _roots(variables)
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


def pydotprint(fct: Any, outfile: Any = None, *, format: str = "svg", **options: Any) -> None:
    """Draw a function or expressions into a file, as SVG or in the DOT language of Graphviz.

    Parameters
    ----------
    fct : Function, Variable, or iterable of Variable
    outfile : str or path, default "theano.pydotprint.svg"
    format : {"svg", "dot"}
        Of a file whose name does not tell it.
    **options
        Theano's others are ignored.
    """
    path = Path(f"theano.pydotprint.{format}" if outfile is None else outfile)
    kind = path.suffix.removeprefix(".") or format
    if kind not in ("svg", "dot"):
        raise ValueError(f"pydotprint writes .svg and .dot files, not .{kind}: {path}")
    path.write_text(Picture(fct).svg() if kind == "svg" else dot(fct), encoding="utf-8")


@dataclass(frozen=True)
class Print(Op):
    """An operation that prints its input's value in each call, and passes it on: ``Print("x")(x)``.

    Parameters
    ----------
    message : str
    attrs : sequence of str
        Attributes to print of the value; methods are called.
    """

    message: str = ""
    attrs: Sequence[str] = ("__str__",)

    views = True
    acts = True

    def __call__(self, x: Operand) -> Variable:
        """Return x, but printed."""
        variable = as_variable(x)
        return apply(Print(self.message, tuple(self.attrs)), variable.type, variable)

    def compute(self, *arrays: Any) -> Any:
        for attr in self.attrs:
            value = getattr(arrays[0], attr)
            print(self.message, attr, "=", value() if callable(value) else value)
        return arrays[0]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> list[Variable | None]:
        return [g]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return f"Print({inputs[0][0]})", ATOM
