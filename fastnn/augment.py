"""Random changes of images while they are trained on: `fastnn.Trainer` takes them as `augment`.

In each epoch each image is moved anew, as the trainer's seed says; what comes in from outside is 0.  Images are moved
while training reads them, so that no copy of the data is made.  Predictions and measures see images as they are.

P. Simard, D. Steinkraus, J. Platt, "Best practices for convolutional neural networks applied to visual document
analysis", ICDAR 2003.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastnn._validation import check_pair
from fastnn.kernels.rows import Motion

Pair = tuple[int, int]


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
    """Exchanges left and right in half of the images, at random."""


def motion_of(changes: tuple[Shift | Flip, ...], input_shape: tuple[int, ...]) -> Motion | None:
    """Return the changes in the kernels' form; None if there are none."""
    if not changes:
        return None
    height, width, channels = input_shape
    down, across = next((cast(Pair, change.pixels) for change in changes if isinstance(change, Shift)), (0, 0))
    return Motion(height, width, channels, down, across, any(isinstance(change, Flip) for change in changes))
