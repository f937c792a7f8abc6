"""Updates of shared variables, in the order in which they were put there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from fastnn.symbolic.graph import Shared


class OrderedUpdates(OrderedDict[Shared, Any]):
    """A dictionary from shared variables to their new values; ``+`` joins two that do not contradict each other."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, Shared):
            raise TypeError(f"updates must be of shared variables, not {key!r}")
        super().__setitem__(key, value)

    def update(self, other: Mapping[Shared, Any] | Iterable[Any] | None = None) -> None:  # type: ignore[override]
        """Take over another's updates; raise KeyError if one of them is different here."""
        for key, value in OrderedDict(other or ()).items():
            if key in self and self[key] is not value:
                raise KeyError(f"{key!r} has two different updates")
            self[key] = value

    def __add__(self, other: Mapping[Shared, Any] | Iterable[Any]) -> OrderedUpdates:
        found = OrderedUpdates(self)
        found.update(other)
        return found

    def __radd__(self, other: Mapping[Shared, Any] | Iterable[Any]) -> OrderedUpdates:
        found = OrderedUpdates(other)
        found.update(self)
        return found
