"""The package under the name ``theano``, for libraries and programs that import this name."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import TracebackType

PACKAGE = __name__.rpartition(".")[0]
NAME = "theano"


class Aliases:
    """Names of modules that exist until a ``with`` block of them ends.

    Parameters
    ----------
    names : list of str
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in self._names:
            sys.modules.pop(name, None)


def as_theano() -> Aliases:
    """Make ``import theano`` import this package, everywhere in the process.

    Each module of this package is also Theano's of the same name: ``theano.tensor`` is ``fastnn.symbolic.tensor``
    itself.  A ``with`` statement on the result undoes it at its end; modules imported by then keep what they have.

    Raises
    ------
    ImportError
        If another theano is imported already.

    Examples
    --------
    >>> import fastnn.symbolic
    >>> with fastnn.symbolic.as_theano():
    ...     import theano.tensor as T
    >>> T is fastnn.symbolic.tensor
    True
    """
    package = sys.modules[PACKAGE]
    known = sys.modules.get(NAME, package)
    if known is not package:
        raise ImportError(f"another theano is imported already, from {getattr(known, '__file__', None)}")
    modules = {NAME: package}
    # All of them, so that no import finds a module of this package that is not there yet, and makes a second one.
    for found in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        modules[NAME + found.name.removeprefix(PACKAGE)] = importlib.import_module(found.name)
    new = [name for name in modules if name not in sys.modules]
    sys.modules.update(modules)
    return Aliases(new)
