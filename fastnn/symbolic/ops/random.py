"""Random numbers.  An operation on a state gives the next state and numbers, so equal draws are equal numbers.

The states are those of NumPy's `RandomState`, and of MRG31k3p, a generator with many streams:

P. L'Ecuyer and R. Touzin, "Fast combined multiple recursive generators with multipliers of the form a = ±2^q ±2^r",
Winter Simulation Conference 2000;  P. L'Ecuyer, R. Simard, E. J. Chen and W. D. Kelton, "An object-oriented
random-number package with many long streams and substreams", Operations Research 50 (2002).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from fastnn.engine.threads import available_threads, forks
from fastnn.kernels import streams
from fastnn.symbolic.graph import PACKED, Op, Parts, Shared, Type, Variable, apply
from fastnn.symbolic.ops.parts import packed, part
from fastnn.symbolic.ops.texts import Gradients, call
from fastnn.symbolic.states import State

#: A draw of more numbers than this, some 30 us, is divided among threads.
LARGEST_ALONE = 50_000

#: More numbers than this are not drawn from MRG31k3p at once, as in Theano.
MOST_NUMBERS = 2**31 - 1

# float32 rounds large integers up, so its numbers would reach 1.
SCALES = {"float32": float(np.nextafter(np.float32(2**-31), np.float32(0))), "float64": 2.0**-31}


def _integers(generator: RandomState, low: Any, high: Any, size: tuple[int, ...] | None) -> Any:
    # Both ends are included.
    return generator.randint(low.astype(np.int64), high.astype(np.int64) + 1, size, np.int64)


def _choice(generator: RandomState, a: Any, replace: Any, p: Any, size: tuple[int, ...] | None) -> Any:
    return generator.choice(a, size, bool(replace), p if p.size else None)


def _permutations(generator: RandomState, n: Any, size: tuple[int, ...] | None) -> Any:
    found = np.empty((*(size or ()), int(n)), np.int64)
    for place in np.ndindex(found.shape[:-1]):
        found[place] = generator.permutation(int(n))
    return found


def _multinomial(generator: RandomState, n: Any, pvals: Any, size: tuple[int, ...] | None) -> Any:
    if size is None:
        size = np.broadcast_shapes(n.shape, pvals.shape[:-1])
    found = np.empty((*size, pvals.shape[-1]), np.int64)
    n, pvals = np.broadcast_to(n, size), np.broadcast_to(pvals, found.shape)
    if found.size and pvals.min() < 0:
        raise ValueError("probabilities must not be negative")
    for place in np.ndindex(size):
        # Theano scales down what may add up to more than 1.
        row = pvals[place]
        if 1.0 < np.sum(row) < 1.0 + 1e-5 or row[-1] < 5e-5:
            row = row * (1.0 - 5e-5)
        if np.sum(row) > 1.0:
            raise ValueError(f"probabilities must add up to 1, not {np.sum(row)}")
        found[place] = generator.multinomial(n[place], row.astype(np.float64))
    return found


#: By name: functions of a RandomState, arrays of parameters, and a size.
DISTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "binomial": RandomState.binomial,
    "choice": _choice,
    "multinomial": _multinomial,
    "normal": RandomState.normal,
    "permutation": _permutations,
    "poisson": RandomState.poisson,
    "random_integers": _integers,
    "uniform": RandomState.uniform,
}


def held(state: Any) -> NDArray[Any]:
    """Return an array without dimensions that holds a state."""
    found = np.empty((), object)
    found[()] = state
    return found


class RandomStateVariable(Shared):
    """A shared variable with the state of a `numpy.random.RandomState`.

    Parameters
    ----------
    value : numpy.random.RandomState
    name : str or None
    """

    def __init__(self, value: RandomState, name: str | None = None) -> None:
        super().__init__(held(State.of(value)), name, exposed=False)

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> Any:
        """Return a new RandomState in the present state, also if borrow is true."""
        return self.array.item().put_into(RandomState(0))

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """Take over the state of a RandomState, which stays the caller's."""
        self.put(held(State.of(new_value)))


class _Random(Op):
    """An operation whose parameters have no gradient: `gradient.grad` refuses to go through it."""

    differentiable = False

    def gradient(self, inputs: tuple[Variable, ...], output: Variable, g: Variable) -> Gradients:
        return [None] * len(inputs)


@dataclass(frozen=True)
class Draw(_Random):
    """Numbers of a type from parameters, a size, empty if the parameters decide, and a state of NumPy's generator."""

    distribution: str
    type: Type

    connects = slice(0, -2)

    def compute(self, *arrays: Any) -> Any:
        *parameters, size, state = arrays
        lengths = tuple(size.tolist()) or None
        following, numbers = state.item().draw(DISTRIBUTIONS[self.distribution], parameters, lengths)
        found = np.asarray(numbers, self.type.dtype)
        if found.ndim != self.type.ndim:
            raise ValueError(f"the numbers have {found.ndim} dimensions, but {self.type.ndim} are expected")
        return packed(held(following), found)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[:-1] if self.distribution == "permutation" else inputs[-2:-1]

    def text(self, inputs: Parts) -> tuple[str, int]:
        *parameters, size, _ = [text for text, _ in inputs]
        return call(self.distribution, size, *parameters)


def draw(
    distribution: str, state: Variable, lengths: Variable, type_: Type, *parameters: Variable
) -> tuple[Variable, Variable]:
    """Return the next state and numbers from a distribution of `DISTRIBUTIONS`; see `Draw`."""
    pack = apply(Draw(distribution, type_), PACKED, *parameters, lengths, state)
    return part(pack, 0, PACKED), part(pack, 1, type_)


@dataclass(frozen=True)
class MRG31k3p(_Random):
    """Uniform numbers of a type between 0 and 1 in a shape, from a matrix with the states of streams.

    Attributes
    ----------
    type : Type
    in_pairs : bool
        Whether to return a vector instead, of a number more if the shape has an odd number of elements.
    """

    type: Type
    in_pairs: bool

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        lengths, states = tuple(arrays[0].tolist()), np.require(arrays[1], np.int32, ["C", "A"])
        n = math.prod(lengths)
        if self.in_pairs:
            n += n % 2
            lengths = (n,)
        if len(lengths) != self.type.ndim:
            raise ValueError(f"the size must have {self.type.ndim} lengths, not {len(lengths)}")
        if n > MOST_NUMBERS:
            raise ValueError(f"at most {MOST_NUMBERS} numbers can be drawn at once, not {n}")
        if states.shape[1] != 6 or (n and not len(states)):
            raise ValueError(f"the states must be a matrix with 6 columns, not of shape {states.shape}")
        numbers, following = np.empty(lengths, self.type.dtype), np.empty_like(states)
        n_threads = forks.usable_threads(available_threads()) if n > LARGEST_ALONE else 1
        streams.mrg31k3p(states, following, numbers.reshape(-1), SCALES[self.type.dtype.name], n_threads)
        return packed(following, numbers)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[:1]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("mrg_uniform", inputs[0][0])


def mrg_uniform(states: Variable, lengths: Variable, type_: Type, in_pairs: bool = False) -> tuple[Variable, Variable]:
    """Return the next states and uniform numbers; see `MRG31k3p`."""
    pack = apply(MRG31k3p(type_, in_pairs), PACKED, lengths, states)
    return part(pack, 0, states.type), part(pack, 1, type_)


@dataclass(frozen=True)
class Parameter(_Random):
    """A parameter of a distribution: the input itself, without a gradient."""

    views = True

    def compute(self, *arrays: Any) -> Any:
        return arrays[0]

    def shapes(self, inputs: tuple[Variable, ...]) -> frozenset[Variable] | None:
        return inputs[0].shapes

    def text(self, inputs: Parts) -> tuple[str, int]:
        return inputs[0]


@dataclass(frozen=True)
class Normal(_Random):
    """Standard normal numbers in a shape, from an even number of uniform ones, at least as many as the shape has.

    A third input has uniform numbers from exp(-2) to 1, one for each normal number beyond -2 and 2: these are replaced.
    G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.  The order is Theano's.
    """

    connects = slice(0)

    def compute(self, *arrays: Any) -> Any:
        uniform, lengths, *fresh = arrays
        half = len(uniform) // 2
        radius = np.sqrt(-2.0 * np.log(uniform[:half]))
        angle = uniform.dtype.type(2.0 * np.pi) * uniform[half:]
        parts = []
        for direction in (np.cos(angle), np.sin(angle)):
            z = radius * direction
            if fresh:
                far = np.abs(z) > 2
                n = np.count_nonzero(far)
                radii, fresh = np.sqrt(-2.0 * np.log(fresh[0][:n])), [fresh[0][n:]]
                z = np.concatenate([z[~far], radii * direction[far]])
            parts.append(z)
        return np.concatenate(parts)[: math.prod(lengths.tolist())].reshape(lengths)

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[1:2]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("normal", *(text for text, _ in inputs))


@dataclass(frozen=True)
class Multinomial(_Random):
    """How often each of the columns was drawn, by row: of probabilities, and uniform numbers for a number of draws."""

    dtype: np.dtype[Any]

    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        pvals, uniform, n = arrays
        found, rows = np.zeros(pvals.shape, self.dtype), np.arange(len(pvals))
        limits = pvals.cumsum(axis=1, dtype=np.float64)
        for numbers in uniform.reshape(int(n), len(pvals)):
            reached = limits > numbers[:, None]
            hits = reached.any(axis=1)
            found[rows[hits], reached.argmax(axis=1)[hits]] += 1
        return found

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("multinomial", *(text for text, _ in inputs))


@dataclass(frozen=True)
class Choice(_Random):
    """Columns drawn without replacement, by row: of probabilities, and uniform numbers for a number of draws."""

    dtype: np.dtype[Any]

    connects = slice(1)

    def compute(self, *arrays: Any) -> Any:
        pvals, uniform, n = arrays[0].copy(), arrays[1], int(arrays[2])
        if n > pvals.shape[1]:
            raise ValueError(f"{n} of {pvals.shape[1]} columns cannot be drawn without replacement")
        found = np.full((len(pvals), n), -1, self.dtype)
        for k, numbers in enumerate(uniform.reshape(n, len(pvals))):
            for i, number in enumerate(numbers):
                limits = pvals[i].cumsum(dtype=np.float64)
                j = int(np.argmax(limits > number))
                if limits[j] > number:
                    # What is left is added up in Theano's order.
                    before, pvals[i, j] = limits[j] - pvals[i, j], 0
                    rest = np.concatenate([[before], pvals[i, j:]], dtype=pvals.dtype, casting="same_kind")
                    found[i, k], pvals[i] = j, pvals[i] / rest.cumsum()[-1]
        return found

    def shaping(self, inputs: tuple[Variable, ...]) -> tuple[Variable, ...]:
        return inputs[2:]

    def text(self, inputs: Parts) -> tuple[str, int]:
        return call("choice", *(text for text, _ in inputs))
