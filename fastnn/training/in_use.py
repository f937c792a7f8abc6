"""Which trainers and networks are in a fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class _InUse:
    """Objects in a fit, in any thread, each in one fit at a time; a forked child has none."""

    def __init__(self) -> None:
        self._owners: dict[int, object] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._owners.clear)

    def __contains__(self, thing: object) -> bool:
        return id(thing) in self._owners

    @contextmanager
    def reserve(self, **things: object) -> Iterator[None]:
        """Reserve these objects, or raise RuntimeError if another fit has one; the names are for the message."""
        owner, taken = object(), []
        try:
            for name, thing in things.items():
                if self._owners.setdefault(id(thing), owner) is not owner:
                    raise RuntimeError(f"the {name} is in a fit already, which must end before another one begins")
                taken.append(id(thing))
            yield
        finally:
            for key in taken:
                self._owners.pop(key, None)


#: Trainers and networks that are in a fit.
in_use = _InUse()
