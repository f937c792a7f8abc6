"""The line search of J. J. Moré and D. J. Thuente.

"Line search algorithms with guaranteed sufficient decrease", ACM Transactions on Mathematical Software 20 (1994).  Its
constants are those of SciPy's L-BFGS-B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

# The conditions of Wolfe: the value decreases by at least this share of the first slope, and the slope's size falls to
# this share of its size at first.
DECREASE, CURVATURE = 1e-3, 0.9

# The search ends when its interval is shorter than this share of its upper end.
SHORTEST = 0.1

LARGEST_STEP = 1e10


class Point(NamedTuple):
    """A step, and the function and its derivative there."""

    step: float
    value: float
    slope: float

    def tilted(self, by: float) -> Point:
        """Return the point of the function minus a line through 0 with this slope."""
        return Point(self.step, self.value - by * self.step, self.slope - by)


def search(evaluate: Callable[[float], Point], start: Point, step: float, most: int) -> Point | None:
    """Return the point that was evaluated last, which meets the conditions or is the best, or None.

    Parameters
    ----------
    evaluate : callable
        Returns the point at a step.
    start : Point
        At step 0; its slope is negative.
    step : float
        To try first.
    most : int
        Evaluations.
    """
    if step == 0:  # too short to be a number
        return None
    line = DECREASE * start.slope
    low = high = start  # the best point so far; if a minimum is between the two, the other end of the interval
    bracketed, far = False, True
    lower, upper = 0.0, 5 * step
    width, last_width = LARGEST_STEP, 2 * LARGEST_STEP
    for _ in range(most):
        point = evaluate(step)
        limit = start.value + step * line
        decreased = point.value <= limit
        if decreased and abs(point.slope) <= CURVATURE * -start.slope:
            return point
        if bracketed and (not lower < step < upper or upper - lower <= SHORTEST * upper):
            return point
        if step == LARGEST_STEP and decreased and point.slope <= line:
            return point
        # Until a step decreases the function enough and goes beyond a minimum, the search is for one that decreases it.
        far = far and not (decreased and point.slope >= 0)
        by = line if far and limit < point.value <= low.value else 0.0
        step, low, high, bracketed = _narrow(low.tilted(by), high.tilted(by), point.tilted(by), bracketed, lower, upper)
        low, high = low.tilted(-by), high.tilted(-by)
        if bracketed:
            if abs(high.step - low.step) >= 0.66 * last_width or math.isnan(step):
                step = low.step + 0.5 * (high.step - low.step)
            width, last_width = abs(high.step - low.step), width
            lower, upper = sorted((low.step, high.step))
        else:
            lower, upper = step + 1.1 * (step - low.step), step + 4 * (step - low.step)
        step = min(max(step, 0.0), LARGEST_STEP)
        if bracketed and (not lower < step < upper or upper - lower <= SHORTEST * upper):
            step = low.step
    return None


def _narrow(
    low: Point, high: Point, point: Point, bracketed: bool, lower: float, upper: float
) -> tuple[float, Point, Point, bool]:
    # Section 4 of the paper: the next step, the new ends of the interval, and whether a minimum is between them.
    cubic = _of_cubic(low, point)
    if point.value > low.value:
        parabola = _of_parabola(low, point)
        step = cubic if abs(cubic - low.step) <= abs(parabola - low.step) else (cubic + parabola) / 2
        return step, low, point, True
    if point.slope * low.slope < 0:
        return max(cubic, _of_slopes(low, point), key=lambda step: abs(step - point.step)), point, low, True
    outwards = upper if point.step > low.step else lower
    if abs(point.slope) >= abs(low.slope):
        return (_of_cubic(point, high) if bracketed else outwards), point, high, bracketed
    if not (cubic - point.step) * (point.step - low.step) > 0:
        cubic = outwards
    nearer, further = sorted((cubic, _of_slopes(low, point)), key=lambda step: abs(step - point.step))
    if not bracketed:
        return min(max(further, lower), upper), point, high, False
    furthest = point.step + 0.66 * (high.step - point.step)
    return (min if point.step > low.step else max)(nearer, furthest), point, high, True


def _of_cubic(a: Point, b: Point) -> float:
    # Minimum of the cubic through both values with both slopes; Nocedal and Wright (3.59).  NaN: there is none.
    length = b.step - a.step
    middle = 3 * (a.value - b.value) / length + a.slope + b.slope
    square = middle * middle - a.slope * b.slope
    if not square > 0:
        return math.nan
    root = math.copysign(math.sqrt(square), length)
    below = b.slope - a.slope + 2 * root
    return b.step - length * (b.slope + root - middle) / below if below else math.nan


def _of_parabola(a: Point, b: Point) -> float:
    # Minimum of the parabola through both values with the slope at a.
    length = b.step - a.step
    return a.step + length * a.slope / 2 / ((a.value - b.value) / length + a.slope)


def _of_slopes(a: Point, b: Point) -> float:
    # Minimum of the parabola with both slopes.
    return b.step - (b.step - a.step) * b.slope / (b.slope - a.slope)
