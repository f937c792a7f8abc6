"""Tables: from data frames with categories, dates and holes to the numbers that networks take (extra ``tabular``)."""

try:
    import narwhals.stable.v2 as _narwhals  # noqa: F401
except ImportError as error:
    raise ImportError('fastnn.tabular needs narwhals and scikit-learn: pip install "fastnn[tabular]"') from error

from fastnn.tabular.estimators import Predictor, TabularClassifier, TabularRegressor, load
from fastnn.tabular.readers import Column
from fastnn.tabular.table import Table

__all__ = ["Column", "Predictor", "Table", "TabularClassifier", "TabularRegressor", "load"]
