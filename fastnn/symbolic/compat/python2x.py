"""Names of the standard library that early versions of Python 2 lacked."""

from collections import Counter, OrderedDict, defaultdict
from functools import partial

__all__ = ["Counter", "OrderedDict", "defaultdict", "partial"]
