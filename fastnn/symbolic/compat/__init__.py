"""Names that were in different places in Python 2 and 3."""

import configparser
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, ValuesView
from collections.abc import MutableMapping as DictMixin
from importlib import reload
from io import BytesIO
from operator import truediv as operator_div

PY3 = True
ifilter, imap, izip = filter, map, zip

__all__ = [
    "PY3",
    "BytesIO",
    "Callable",
    "DictMixin",
    "Iterable",
    "Mapping",
    "OrderedDict",
    "ValuesView",
    "configparser",
    "ifilter",
    "imap",
    "izip",
    "operator_div",
    "reload",
]
