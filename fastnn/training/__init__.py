"""Training: settings and data become a fit, whose epochs call the engine.

In the order in which to read: `trainer` is the front; `settings`, `state` and `data` are what a fit is made of;
`active` is the fit under way; `epochs` and `lbfgs` are the two ways to train; `checkpoint` writes and reads files.
"""

from fastnn.training.active import DivergenceError
from fastnn.training.trainer import Trainer

__all__ = ["DivergenceError", "Trainer"]
