"""Random changes of images while they are trained on: `fastnn.Trainer` takes them as `augment`.

In each epoch each image is moved anew, as the trainer's seed says; what comes in from outside is 0.  Images are moved
while training reads them, so that no copy of the data is made.  Predictions and measures see images as they are.

P. Simard, D. Steinkraus, J. Platt, "Best practices for convolutional neural networks applied to visual document
analysis", ICDAR 2003.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastnn._validation import check_pair
from fastnn.kernels.rows import Motion


@dataclass(frozen=True)
class Shift:
    """Shifts by a random number of pixels, down or up and across, each as likely as the others.

    Parameters
    ----------
    pixels : int or (int, int)
        The most, in every direction, or down and across.

    Raises
    ------
    TypeError, ValueError
        If the numbers are not integers of at least 0.

    Examples
    --------
    >>> from fastnn import Network, Trainer
    >>> from fastnn.layers import Conv2D, Dense
    >>> trainer = Trainer(Network([Conv2D(4, 3), Dense(10)], input_shape=(28, 28, 1)), augment=Shift(2))
    """

    pixels: int | tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", check_pair(self.pixels, "pixels", 0))


@dataclass(frozen=True)
class Flip:
    """Exchanges left and right in every second image, at random."""


def check_augment(value: Any, input_shape: tuple[int, ...]) -> tuple[Shift | Flip, ...]:
    """Return changes of images of this shape: at most one of each kind, from one, several or None."""
    given = (value,) if isinstance(value, (Shift, Flip)) else () if value is None else value
    changes = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(change, (Shift, Flip)) for change in changes):
        raise TypeError(f"augment must be None, fastnn.augment.Shift(2), Flip() or a list of these, not {value!r}")
    if len({type(change) for change in changes}) < len(changes):
        raise ValueError(f"augment must have one of each kind at most, not {value!r}")
    if changes and len(input_shape) != 3:
        raise ValueError(
            f"augment is for images: the network must have an input_shape such as (28, 28, 1), not {input_shape}"
        )
    return changes


def motion_of(changes: tuple[Shift | Flip, ...], input_shape: tuple[int, ...]) -> Motion | None:
    """Return the changes in the kernels' form; None if there are none."""
    if not changes:
        return None
    height, width, channels = input_shape
    down, across = next((check_pair(each.pixels, "pixels", 0) for each in changes if isinstance(each, Shift)), (0, 0))
    return Motion(height, width, channels, down, across, any(isinstance(change, Flip) for change in changes))
