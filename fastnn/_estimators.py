"""What the estimators have in common: arguments, random numbers, and fits that change all or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastnn.engine.ranks import Ranks


def plain(value: Any) -> Any:
    """A NumPy scalar, as in grids of parameters, as Python's type."""
    return value.item() if isinstance(value, np.generic) else value


def keep(estimator: Any, arguments: dict[str, Any]) -> None:
    """Store the arguments of ``__init__`` unchanged, as `sklearn.base.clone` requires."""
    for name, value in arguments.items():
        if name != "self":
            setattr(estimator, name, value)


# Estimators in a fit, by id.
under_way: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=under_way.clear)


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Change the estimator only if the fit succeeds; nothing else may change its parameters meanwhile.

    A fit never writes into the estimator's objects but replaces them: by a copy of the network, of the optimizer's
    state, of the record.  So only the attributes must be restored, and results of an earlier fit that were read before
    do not change.
    """
    if id(estimator) in under_way:
        raise RuntimeError(f"a fit of this {type(estimator).__name__} is under way: fit a clone of it, or wait")
    generator = estimator.random_state
    drawn = generator._bit_generator.state if isinstance(generator, np.random.RandomState) else None
    before = dict(vars(estimator))
    try:
        under_way.add(id(estimator))
        yield
    except BaseException:
        estimator.__dict__ = before
        if drawn is not None:
            generator._bit_generator.state = drawn
        raise
    finally:
        under_way.discard(id(estimator))


# Generators that are not in a fit: to seed one takes a hundredth of the time of making one.
_idle: list[np.random.RandomState] = []


@contextmanager
def seeded(seed: Any, ranks: Ranks) -> Iterator[np.random.RandomState]:
    """Random numbers of a fit, as `sklearn.utils.check_random_state` gives them on rank 0."""
    if not isinstance(seed, (int, np.integer)):
        from sklearn.utils import check_random_state

        random_state = np.random.RandomState() if seed is None and ranks.rank > 0 else check_random_state(seed)
        bits = random_state._bit_generator
        if ranks.size > 1:
            bits.state = ranks.first_tells("random_state", lambda: bits.state)
        yield random_state
        return
    try:
        random_state = _idle.pop()
    except IndexError:
        random_state = np.random.RandomState()
    random_state.seed(seed)
    yield random_state
    _idle.append(random_state)
