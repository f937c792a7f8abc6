"""Training: settings and data become a fit, whose epochs call the engine.

Read in this order: `trainer` is the front; `settings`, `state` and `data` are the parts of a fit; `active` is the fit
under way; `epochs` and `lbfgs` are the two ways to train; `checkpoint` writes and reads files.
"""

from fastnn.training.active import DivergenceError
from fastnn.training.many import ManyFitsError, fit_many
from fastnn.training.trainer import Trainer

__all__ = ["DivergenceError", "ManyFitsError", "Trainer", "fit_many"]
