"""States of NumPy's `RandomState`, as values that never change, and draws from them.

A draw gives numbers and the next state.  To make a RandomState, or to give it another state, takes NumPy some 70 us, as
long as to draw thousands of numbers; so each thread has one, and states are copied into and out of its memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Words of the Mersenne twister, 624 numbers and the place of the next one.
N_WORDS = 625


@dataclass(frozen=True, eq=False)
class State:
    """A state of a `RandomState`, which must have the default generator, MT19937.

    Attributes
    ----------
    words : (625,) uint32
        The generator's numbers, and the place of the next one.
    ready : float or None
        NumPy makes normal numbers in pairs: the second one, if nobody has taken it yet.
    """

    words: NDArray[np.uint32]
    ready: float | None

    @classmethod
    def of(cls, generator: Any) -> State:
        """Return the state of a RandomState."""
        found = generator.get_state(legacy=False) if isinstance(generator, np.random.RandomState) else {}
        if found.get("bit_generator") != "MT19937":
            raise TypeError(f"a random state must be a numpy.random.RandomState with MT19937, not {generator!r}")
        words = np.empty(N_WORDS, np.uint32)
        words[:-1], words[-1] = found["state"]["key"], found["state"]["pos"]
        return cls(words, found["gauss"] if found["has_gauss"] else None)

    def put_into(self, generator: np.random.RandomState) -> np.random.RandomState:
        """Give a RandomState this state, and return it."""
        key, place = self.words[:-1], int(self.words[-1])
        has_ready, ready = (0, 0.0) if self.ready is None else (1, self.ready)
        generator.set_state(("MT19937", key, place, has_ready, ready))
        return generator

    def draw(
        self, distribution: Callable[..., Any], parameters: Sequence[Any], size: tuple[int, ...] | None
    ) -> tuple[State, Any]:
        """Return the state after a draw, and the numbers.

        Parameters
        ----------
        distribution : callable
            Takes a RandomState, the parameters and the size.
        parameters : sequence
        size : tuple of int or None
        """
        try:
            generator = _own.loaded(self)
            numbers = distribution(generator, *parameters, size)
            n_normal = np.size(numbers) if distribution is np.random.RandomState.normal else 0
            is_ready = (n_normal + (self.ready is not None)) % 2 == 1
            ready = generator.standard_normal() if is_ready else None
            return State(_own.words(), ready), numbers
        except BaseException:
            _own.generator.seed(0)  # forgets a number that is ready
            raise


class _Generator(threading.local):
    """The RandomState of each thread; it has no normal number ready between draws."""

    def __init__(self) -> None:
        source = np.random.MT19937(0)
        self.generator = np.random.RandomState(source)
        address = source.ctypes.state_address
        memory = np.ctypeslib.as_array((ctypes.c_uint32 * N_WORDS).from_address(address))
        # NumPy documents the address, but not what is there.
        self._memory = memory if np.array_equal(memory, State.of(self.generator).words) else None

    def loaded(self, state: State) -> np.random.RandomState:
        """Return the RandomState in a state."""
        if self._memory is None or state.ready is not None:
            return state.put_into(self.generator)
        np.copyto(self._memory, state.words)
        return self.generator

    def words(self) -> NDArray[np.uint32]:
        """Return its words."""
        return State.of(self.generator).words if self._memory is None else self._memory.copy()


_own = _Generator()
