"""The defaults for tables: from facts about the data to all that a fit needs to know, each with its reason.

The constants were chosen on the tables that `benchmarks/tables.py` names as chosen on, by log loss or RMSE over three
splits, in the geometric mean; "worth" is how much higher it is without.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

T = TypeVar("T", int, float)


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
    weight_decay, dropout, label_smoothing : float
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

    def changes(self, other: Recipe) -> str:
        """Return what is different in another recipe, in words."""
        names = [
            one.name for one in fields(self) if one.compare and getattr(self, one.name) != getattr(other, one.name)
        ]
        return ", ".join(f"{name.replace('_', ' ')} {getattr(other, name)}" for name in names)

    def __str__(self) -> str:
        rows = [("what", "choice", "why")]
        for name in (one.name for one in fields(self) if one.name != "reasons"):
            rows.append((name.replace("_", " "), str(getattr(self, name)), self.reasons.get(name, "")))
        widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
        return "\n".join(f"{what:{widths[0]}}  {choice:{widths[1]}}  {why}".rstrip() for what, choice, why in rows)


# Knots of a column of numbers: one for so many rows; about so many hat functions in all, as each takes time in a step;
# and at least and at most so many in a column, but in few columns more.  With 16, Cracker has a log loss 6 % higher;
# with 128, diamonds an RMSE 3 % higher; with 64, NOxEmissions, which has three columns, one 3 % higher.
ROWS_A_KNOT = 40
MOST_HATS = 1000
FEWEST_KNOTS, MOST_KNOTS = 8, 64
HATS_OF_FEW_COLUMNS = 400

# Units of the hidden layers.  Twice as many take more than twice as long, and are worth 0.1 %; half as many cost 0.8 %
# with 700 rows.
HIDDEN = (64, 64)

# Weight decay of classifiers falls with the number of rows, as fewer steps go to each: by DECAY_ROWS / n_rows, between
# these.  Worth 0.1 % against 1 for all, 0.8 % with 700 rows.
DECAY_ROWS = 3000
LEAST_DECAY, MOST_DECAY = 0.3, 3.0

# Weight decay of regressors.  0.3 costs 1 %.
DECAY_OF_NUMBERS = 0.1

# Dropout of classifiers and regressors with fewer than MANY_ROWS rows.
DROPOUT = 0.2, 0.1

# What else is tried.  Numbers without knots, and other regularisation of classifiers and regressors, are worth 0.4 %:
# 6 % on Carseats, which follows straight lines.  Where nothing is noisy (wine, iris, classes that were made), log loss
# is 13 % lower in the geometric mean, and 3 % lower again with the third, whose networks are wider: 6 % on MNIST's
# digits made coarse, of 64 pixels.
SMOOTH: dict[str, Any] = {"n_knots": 0}
OTHER: tuple[dict[str, Any], ...] = ({"weight_decay": 0.1, "dropout": 0.1}, {"weight_decay": 1.0, "dropout": 0.2})
BOTH: tuple[dict[str, Any], ...] = (
    {"n_knots": 0, "weight_decay": 0.3, "dropout": 0.2, "hidden_layer_sizes": (128, 128)},
    SMOOTH | OTHER[1],
)

# Rows from which only other regularisation is tried.
TRIED_ROWS = 5000

# Rows from which batches are of the larger sizes; batches of 32 are worth 0.2 % with 700 rows.  From MANY_ROWS on there
# is one recipe, and no second fit on all rows, which is worth 0.8 % on smaller tables.
FEW_ROWS, MANY_ROWS = 2000, 10_000

# The mean of parameters and the patience that goes with it.  Worth 0.4 % against none with a patience of 4.
AVERAGING = 0.8
PATIENCE = 6

# Rows to validate on, about, and their share at least and at most if there is a second fit, and without one.  With 700
# rows, a share of 0.3 is worth 0.2 % against 0.2.
VALIDATION_ROWS = 300
LEAST_VALIDATION, MOST_VALIDATION = 0.2, 0.3
VALIDATION_OF_MANY = 0.1

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
    few, many, classifies = n_rows < FEW_ROWS, n_rows >= MANY_ROWS, n_classes is not None
    how_many = f"{n_rows:,} {'row' if n_rows == 1 else 'rows'}"
    task = "classes" if classifies else "numbers"
    most_knots = max(MOST_KNOTS, HATS_OF_FEW_COLUMNS // max(1, n_numbers))
    n_knots = _within(FEWEST_KNOTS, min(n_rows // ROWS_A_KNOT, MOST_HATS // max(1, n_numbers)), most_knots)
    decay = _within(LEAST_DECAY, DECAY_ROWS / n_rows, MOST_DECAY) if classifies else DECAY_OF_NUMBERS
    validation = VALIDATION_OF_MANY if many else _within(LEAST_VALIDATION, VALIDATION_ROWS / n_rows, MOST_VALIDATION)
    chosen: dict[str, tuple[Any, str]] = {
        "n_knots": (n_knots if n_numbers else 0, f"{how_many}, {n_numbers:,} columns of numbers"),
        "hidden_layer_sizes": (HIDDEN, "wider ones take longer and predict little better"),
        "activation": ("silu", "smooth"),
        "learning_rate": (4e-3 if many else 2e-3, "for batches of this size"),
        "weight_decay": (decay, f"{task}, {how_many}"),
        "dropout": (0.0 if many else DROPOUT[not classifies], f"{task}, {how_many}"),
        "label_smoothing": (0.0, "probabilities are to be right"),
        "batch_size": (32 if few else 128 if many else 64, how_many),
        "max_epochs": (_within(FEWEST_EPOCHS, ROWS_A_FIT // n_rows, MOST_EPOCHS), f"{ROWS_A_FIT:,} rows in all, about"),
        "patience": (PATIENCE, "the validation rows say when"),
        "fall": (0.3, "a few falls make the steps small"),
        "most_falls": (4, "steps are too small to matter then"),
        "averaging": (AVERAGING, "a mean over epochs predicts better than the last one"),
        "validation_fraction": (validation, how_many),
        "refit": (not many, how_many),
    }
    chosen |= {name: (value, "as told") for name, value in told.items()}
    values = {name: value for name, (value, _) in chosen.items()}
    return Recipe(**values, reasons={name: why for name, (_, why) in chosen.items()})


def rivals(recipe: Recipe, n_rows: int, n_classes: int | None = None, told: Collection[str] = ()) -> tuple[Recipe, ...]:
    """Return other recipes for a table, of which validation rows may tell which is best; none for many rows.

    They are without knots, which only cost where numbers act by straight lines or by products, and more or less
    regularised, as targets are clear or noisy.

    Parameters
    ----------
    recipe : Recipe
        Of `recipe_for`.
    n_rows, n_classes
        As for `recipe_for`.
    told : collection of str
        Names of fields that stay.
    """
    if n_rows >= MANY_ROWS:
        return ()
    kind = int(n_classes is None)
    variants = (SMOOTH, OTHER[kind], BOTH[kind]) if n_rows < TRIED_ROWS else (OTHER[kind],)
    why = "chosen on the validation rows"
    found: dict[Recipe, None] = {}
    for each in variants:
        new = {name: value for name, value in each.items() if name not in told}
        found[replace(recipe, **new, reasons={**recipe.reasons, **dict.fromkeys(new, why)})] = None
    found.pop(recipe, None)
    return tuple(found)


def _within(least: T, value: T, most: T) -> T:
    return max(least, min(value, most))
