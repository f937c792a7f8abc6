"""The defaults for tables: from facts about the data to all that a fit needs to know, each with its reason.

The constants were chosen on the tables that `benchmarks/tables.py` names as chosen on, by log loss or RMSE over three
splits, in the geometric mean; "worth" is how much higher it is without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How a network on a table is made and trained.

    Attributes
    ----------
    n_knots : int
        Knots of a column of numbers, at most; see `preparation.knots_of`.
    hidden_layer_sizes : tuple of int
    activation : str
    learning_rate : float
        Of AdamW, at first.
    beta_2, weight_decay, dropout, label_smoothing : float
        As for `fastnn.AdamW` and `fastnn.Trainer`.
    batch_size, max_epochs : int
    patience : int
        Epochs without a better validation before the learning rate falls.
    fall : float
        What a fall multiplies the learning rate by.
    most_falls : int
        The fit ends where one more would come.
    averaging : float
        Share of the mean of parameters that stays in an epoch; 0 takes the parameters themselves.
    validation_fraction : float
        Share of the rows to validate on.
    refit : bool
        Whether to train again on all rows, by the learning rates up to the best epoch.
    reasons : dict of str by name
        Why each of the others is what it is.
    """

    n_knots: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    learning_rate: float
    beta_2: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    batch_size: int
    max_epochs: int
    patience: int
    fall: float
    most_falls: int
    averaging: float
    validation_fraction: float
    refit: bool
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        rows = [("what", "choice", "why")]
        for name in (one.name for one in fields(self) if one.name != "reasons"):
            rows.append((name.replace("_", " "), str(getattr(self, name)), self.reasons.get(name, "")))
        widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
        return "\n".join(f"{what:{widths[0]}}  {choice:{widths[1]}}  {why}".rstrip() for what, choice, why in rows)


# Hat functions of all columns of numbers together, about, and rows to each of a column's; a column has so many knots at
# least and at most.  NOxEmissions, with three columns and 6,500 rows, has an RMSE 7 % higher with 16 knots.
HATS = 400
ROWS_A_KNOT = 40
FEWEST_KNOTS, MOST_KNOTS = 8, 128

# Units of the hidden layers.  Twice as many take three times as long, and are worth 0.2 %.
HIDDEN = (64, 64)

# For classes and for numbers.  Worth 0.4 % against 0.3 for both.
WEIGHT_DECAY = 1.0, 0.1

# Worth 0.4 % against none.
AVERAGING = 0.7

# From so many rows on, batches are larger, nothing is dropped, and there is no second fit on all rows, which is worth
# 0.8 % on smaller tables.
MANY_ROWS = 20_000

# Rows to go through in a fit, about, and epochs at least and at most.
ROWS_A_FIT = 1_200_000
FEWEST_EPOCHS, MOST_EPOCHS = 10, 100


def recipe_for(n_rows: int, n_numbers: int, n_classes: int | None = None, **told: Any) -> Recipe:
    """Return the recipe for a table.

    Parameters
    ----------
    n_rows : int
        Rows, those to validate on included.
    n_numbers : int
        Columns of numbers.
    n_classes : int or None, default None
        None for regression.
    **told
        Fields of the recipe that are not to be chosen here.
    """
    many, classifies = n_rows >= MANY_ROWS, n_classes is not None
    how_many = f"{'' if many else 'fewer than '}{MANY_ROWS:,} rows{' or more' if many else ''}"
    n_knots = max(FEWEST_KNOTS, min(HATS // max(1, n_numbers), n_rows // ROWS_A_KNOT, MOST_KNOTS))
    max_epochs = max(FEWEST_EPOCHS, min(MOST_EPOCHS, ROWS_A_FIT // n_rows))
    chosen: dict[str, tuple[Any, str]] = {
        "n_knots": (n_knots, f"{n_rows:,} rows, {n_numbers:,} columns of numbers"),
        "hidden_layer_sizes": (HIDDEN, "wider ones take longer and predict little better"),
        "activation": ("silu", "smooth"),
        "learning_rate": (4e-3 if many else 2e-3, "for batches of this size"),
        "beta_2": (0.99, "batches are small"),
        "weight_decay": (WEIGHT_DECAY[not classifies], f"for {'classes' if classifies else 'numbers'}"),
        "dropout": (0.0 if many else 0.1, how_many),
        "label_smoothing": (0.0, "probabilities are to be right"),
        "batch_size": (256 if many else 64, how_many),
        "max_epochs": (max_epochs, f"about {ROWS_A_FIT:,} rows in all, {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs"),
        "patience": (4, "the validation rows say when"),
        "fall": (0.3, "a few falls make the steps small"),
        "most_falls": (4, "steps are too small to matter then"),
        "averaging": (AVERAGING, "a mean over epochs predicts better than the last one"),
        "validation_fraction": (0.15, "enough to tell epochs apart"),
        "refit": (not many, how_many),
    }
    chosen |= {name: (value, "as told") for name, value in told.items()}
    values = {name: value for name, (value, _) in chosen.items()}
    return Recipe(**values, reasons={name: why for name, (_, why) in chosen.items()})
