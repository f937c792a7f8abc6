"""Random streams: objects that make random numbers for expressions, each draw with a state of its own.

The states are shared variables.  A function that uses a draw also updates its state, unless its ``no_default_updates``
says otherwise, so that the next call draws other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.symbolic import graph, ops
from fastnn.symbolic.configuration import config
from fastnn.symbolic.graph import Operand, Shared, Type, Variable, apply, as_variable, constant, length_of

#: The moduli of MRG31k3p.
M1, M2 = 2**31 - 1, 2**31 - 21069

#: Streams of a draw if its size is not known, and at most.
MOST_STREAMS = 60 * 256


def uniform(
    random_state: Variable,
    size: Any = None,
    low: Operand = 0.0,
    high: Operand = 1.0,
    ndim: int | None = None,
    dtype: Any = None,
) -> tuple[Variable, Variable]:
    """Return the next state and numbers between low and high."""
    return _drawn("uniform", random_state, size, ndim, dtype or _widest(low, high), low, high)


def normal(
    random_state: Variable,
    size: Any = None,
    avg: Operand = 0.0,
    std: Operand = 1.0,
    ndim: int | None = None,
    dtype: Any = None,
) -> tuple[Variable, Variable]:
    """Return the next state and normal numbers of a mean and a standard deviation."""
    return _drawn("normal", random_state, size, ndim, dtype or _widest(avg, std), avg, std)


def binomial(
    random_state: Variable,
    size: Any = None,
    n: Operand = 1,
    p: Operand = 0.5,
    ndim: int | None = None,
    dtype: Any = "int64",
    prob: Operand | None = None,
) -> tuple[Variable, Variable]:
    """Return the next state and how many of n trials succeed, each with probability p, formerly called prob."""
    return _drawn("binomial", random_state, size, ndim, dtype, n, p if prob is None else prob)


def random_integers(
    random_state: Variable,
    size: Any = None,
    low: Operand = 0,
    high: Operand = 1,
    ndim: int | None = None,
    dtype: Any = "int64",
) -> tuple[Variable, Variable]:
    """Return the next state and integers from low to high, both included."""
    return _drawn("random_integers", random_state, size, ndim, dtype, low, high)


def choice(
    random_state: Variable,
    size: Any = None,
    a: Operand = 2,
    replace: Any = True,
    p: Operand | None = None,
    ndim: int | None = None,
    dtype: Any = "int64",
) -> tuple[Variable, Variable]:
    """Return the next state and elements of a vector, or numbers below a scalar; p are their probabilities."""
    lengths, ndim = _size(size, ndim)
    parameters = [as_variable(each) for each in (a, replace, [] if p is None else p)]
    return ops.draw("choice", random_state, lengths, Type(_dtype(dtype), ndim), *parameters)


def poisson(
    random_state: Variable, size: Any = None, lam: Operand = 1.0, ndim: int | None = None, dtype: Any = "int64"
) -> tuple[Variable, Variable]:
    """Return the next state and numbers of events, of which lam are expected."""
    lengths, ndim = _size(size, ndim)
    return ops.draw("poisson", random_state, lengths, Type(_dtype(dtype), ndim), as_variable(lam))


def permutation(
    random_state: Variable, size: Any = None, n: Operand = 1, ndim: int | None = None, dtype: Any = "int64"
) -> tuple[Variable, Variable]:
    """Return the next state and permutations of the numbers below n, along the last axis, in a shape of size."""
    if size is None and ndim not in (None, 1):
        raise TypeError(f"without a size there is one permutation, not a result of {ndim} dimensions")
    lengths, ndim = _size((), None) if size is None else _size(size, ndim)
    return ops.draw("permutation", random_state, lengths, Type(_dtype(dtype), ndim + 1), as_variable(n))


def multinomial(
    random_state: Variable,
    size: Any = None,
    n: Operand = 1,
    pvals: Operand = (0.5, 0.5),
    ndim: int | None = None,
    dtype: Any = "int64",
) -> tuple[Variable, Variable]:
    """Return the next state and how often n draws give each of the outcomes, whose probabilities are in rows."""
    trials, probabilities = as_variable(n), as_variable(pvals)
    lengths, ndim = _size(size, ndim, trials, probabilities[..., 0])
    type_ = Type(_dtype(dtype), ndim + 1)
    return ops.draw("multinomial", random_state, lengths, type_, trials, probabilities)


def _drawn(
    distribution: str, state: Variable, size: Any, ndim: int | None, dtype: Any, *parameters: Operand
) -> tuple[Variable, Variable]:
    variables = [as_variable(parameter) for parameter in parameters]
    lengths, ndim = _size(size, ndim, *variables)
    return ops.draw(distribution, state, lengths, Type(_dtype(dtype), ndim), *variables)


def _dtype(dtype: Any) -> np.dtype[Any]:
    return np.dtype(config.floatX if dtype == "floatX" else dtype)


def _widest(*parameters: Operand) -> np.dtype[Any]:
    dtypes = [as_variable(parameter).type.dtype for parameter in parameters]
    return reduce(np.promote_types, dtypes, np.dtype(config.floatX))


def _size(size: Any, ndim: int | None, *parameters: Variable) -> tuple[Variable, int]:
    # The lengths as a vector, empty if the parameters decide, and their number.
    least = max((parameter.ndim for parameter in parameters), default=0)
    if size is None:
        if not parameters:
            raise TypeError("the size is needed, a list of lengths or a vector, or () for one number")
        return constant([], np.int64), least
    if isinstance(size, (tuple, list)):
        lengths = ops.lengths_of(_with_lengths_of(parameters, size))
        given: int | None = len(size)
    else:
        lengths = as_variable(size)
        if lengths.ndim != 1 or lengths.type.dtype.kind not in "iu":
            raise TypeError(f"the size must be a list of lengths or a vector of integers, not {size!r}")
        given = length_of(lengths)
        lengths = ops.cast(lengths, np.int64)
    found = given if given is not None else ndim
    if found is None:
        raise ValueError(f"the number of dimensions is not known from the size {size!r}: ndim=... gives it")
    if ndim not in (None, found):
        raise ValueError(f"ndim is {ndim}, but the size has {found} lengths")
    if least > found:
        raise ValueError(f"the size has {found} lengths, but a parameter has {least} dimensions")
    return lengths, found


def _with_lengths_of(parameters: tuple[Variable, ...], size: Any) -> list[Any]:
    # -1 stands for the length of the parameters along that axis.
    if not any(isinstance(length, (int, np.integer)) and length == -1 for length in size):
        return list(size)
    together = reduce(ops.add, parameters)
    skipped = len(size) - together.ndim
    if any(not isinstance(length, Variable) and length == -1 for length in size[: max(0, skipped)]):
        raise ValueError(f"a length of -1 in {size} must be along an axis of the parameters")
    return [
        ops.shape(together)[i - skipped] if not isinstance(length, Variable) and length == -1 else length
        for i, length in enumerate(size)
    ]


class RandomStreamsBase:
    """The methods of streams whose `gen` draws by the functions of this module."""

    def gen(self, op: Callable[..., tuple[Variable, Variable]], *args: Any, **kwargs: Any) -> Variable:
        """Draw by a function of a state and further arguments, which returns the next state and numbers."""
        raise NotImplementedError

    def uniform(
        self,
        size: Any = None,
        low: Operand = 0.0,
        high: Operand = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
    ) -> Variable:
        """Return numbers between low and high.

        Parameters
        ----------
        size : list of int and Variable, Variable or None
            The shape, in which -1 stands for a length of the parameters; None: that of the parameters, broadcast.
        low, high : array
        ndim : int, optional
            Number of dimensions, if the size does not tell it.
        dtype : dtype, optional
            By default the widest of the parameters' and ``config.floatX``.
        """
        return self.gen(uniform, size, low, high, ndim=ndim, dtype=dtype)

    def normal(
        self,
        size: Any = None,
        avg: Operand = 0.0,
        std: Operand = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
    ) -> Variable:
        """Return normal numbers of a mean and a standard deviation; see `uniform` for the other arguments."""
        return self.gen(normal, size, avg, std, ndim=ndim, dtype=dtype)

    def binomial(
        self,
        size: Any = None,
        n: Operand = 1,
        p: Operand = 0.5,
        ndim: int | None = None,
        dtype: Any = "int64",
        prob: Operand | None = None,
    ) -> Variable:
        """Return how many of n trials succeed, each with probability p, formerly called prob."""
        return self.gen(binomial, size, n, p if prob is None else prob, ndim=ndim, dtype=dtype)

    def random_integers(
        self,
        size: Any = None,
        low: Operand = 0,
        high: Operand = 1,
        ndim: int | None = None,
        dtype: Any = "int64",
    ) -> Variable:
        """Return integers from low to high, both included."""
        return self.gen(random_integers, size, low, high, ndim=ndim, dtype=dtype)

    def choice(
        self,
        size: Any = None,
        a: Operand = 2,
        replace: Any = True,
        p: Operand | None = None,
        ndim: int | None = None,
        dtype: Any = "int64",
    ) -> Variable:
        """Return elements of the vector a, or numbers below the scalar a, with or without replacement.

        p has their probabilities; by default they are equal.
        """
        return self.gen(choice, size, a, replace, p, ndim=ndim, dtype=dtype)

    def poisson(self, size: Any = None, lam: Operand = 1.0, ndim: int | None = None, dtype: Any = "int64") -> Variable:
        """Return numbers of events, of which lam are expected."""
        return self.gen(poisson, size, lam, ndim=ndim, dtype=dtype)

    def permutation(self, size: Any = None, n: Operand = 1, ndim: int | None = None, dtype: Any = "int64") -> Variable:
        """Return permutations of the numbers below n, along a last axis, which size and ndim do not count."""
        return self.gen(permutation, size, n, ndim=ndim, dtype=dtype)

    def multinomial(
        self,
        size: Any = None,
        n: Operand = 1,
        pvals: Operand = (0.5, 0.5),
        ndim: int | None = None,
        dtype: Any = "int64",
    ) -> Variable:
        """Return how often n draws give each outcome, along a last axis, which size and ndim do not count.

        The last axis of pvals has the outcomes' probabilities.
        """
        return self.gen(multinomial, size, n, pvals, ndim=ndim, dtype=dtype)

    def shuffle_row_elements(self, input: Variable) -> Variable:
        """Return an array with each row, along the last axis, in a random order.

        The order is the attribute ``permutation`` of the result.
        """
        lengths = ops.shape(input)
        order = self.permutation([lengths[i] for i in range(input.ndim - 1)], lengths[-1], input.ndim - 1)
        axes = range(input.ndim)
        places = [
            ops.arange(lengths[axis]).dimshuffle(*(0 if other == axis else "x" for other in axes)) for axis in axes
        ]
        shuffled = input[(*places[:-1], order)]
        shuffled.permutation = order  # type: ignore[attr-defined]
        return shuffled


class RandomStreams(RandomStreamsBase):
    """Streams that draw the numbers of `numpy.random.RandomState`, as Theano's do.

    Each draw has a state of its own, its attribute ``rng``, a shared variable.

    Parameters
    ----------
    seed : int or None
        None: from the operating system.

    Attributes
    ----------
    state_updates : list of (Shared, Variable)
        The states of all draws, and the next ones.
    gen_seedgen : numpy.random.RandomState
        Draws a seed for each new state.
    default_instance_seed : int or None
    """

    def __init__(self, seed: int | None = None) -> None:
        self.state_updates: list[tuple[Shared, Variable]] = []
        self.default_instance_seed = seed
        self.gen_seedgen = np.random.RandomState(seed)

    def updates(self) -> list[tuple[Shared, Variable]]:
        """Return the states and the next ones."""
        return list(self.state_updates)

    def seed(self, seed: int | None = None) -> None:
        """Make all states anew from a seed, by default the first one."""
        seeds = np.random.RandomState(self.default_instance_seed if seed is None else seed)
        for state, _ in self.state_updates:
            state.set_value(np.random.RandomState(int(seeds.randint(2**30))))

    def __getitem__(self, item: Shared) -> Any:
        return item.get_value()

    def __setitem__(self, item: Shared, value: np.random.RandomState) -> None:
        item.set_value(value)

    def gen(self, op: Callable[..., tuple[Variable, Variable]], *args: Any, **kwargs: Any) -> Variable:
        """Draw by a function of a state and further arguments, with a new state."""
        state = graph.shared(np.random.RandomState(int(self.gen_seedgen.randint(2**30))))
        following, numbers = op(state, *args, **kwargs)
        state.default_update = following
        numbers.rng, numbers.update = state, (state, following)  # type: ignore[attr-defined]
        self.state_updates.append((state, following))
        return numbers


@cache
def _jump(exponent: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    # The matrices by which MRG31k3p's two recurrences go 2^exponent numbers on.
    if exponent == 0:
        A1 = [[0, 2**22, 2**7 + 1], [1, 0, 0], [0, 1, 0]]
        A2 = [[2**15, 0, 2**15 + 1], [1, 0, 0], [0, 1, 0]]
        return np.array(A1, np.uint64), np.array(A2, np.uint64)
    # Three products of numbers below 2^31 fit into 64 bits.
    (A1_, m1), (A2_, m2) = zip(_jump(exponent - 1), (np.uint64(M1), np.uint64(M2)), strict=True)
    return A1_ @ A1_ % m1, A2_ @ A2_ % m2


def _jumped(states: NDArray[np.int32], exponent: int) -> NDArray[np.int32]:
    # States (n, 6), 2^exponent numbers later.
    A1, A2 = _jump(exponent)
    x, y = np.hsplit(states.astype(np.uint64), 2)
    return np.hstack([x @ A1.T % np.uint64(M1), y @ A2.T % np.uint64(M2)]).astype(np.int32)


def guess_n_streams(size: Any, warn: bool = False) -> int:
    """Return Theano's number of streams for a size: a sixth of the numbers, between limits; warn is ignored."""
    if not isinstance(size, (tuple, list)) or not all(isinstance(length, int) for length in size):
        return MOST_STREAMS
    n = math.prod(size)
    return min(n // 6 if n > 6 else n, MOST_STREAMS)


class MRG_RandomStreams:
    """Streams of MRG31k3p, with Theano's numbers.

    P. L'Ecuyer and R. Touzin, "Fast combined multiple recursive generators with multipliers of the form a = ±2^q ±2^r",
    Winter Simulation Conference 2000.  Each draw has a matrix of states, a shared variable, whose rows are streams that
    are 2^72 numbers apart; the states of the next draw begin 2^134 numbers after those of this one.

    Parameters
    ----------
    seed : int, or six of them
        The first state; an int stands for six.

    Attributes
    ----------
    rstate : (6,) int32
        The state with which the next draw begins.
    state_updates : list of (Shared, Variable, size, int or None)
        The states of all draws, the next ones, the sizes, and the numbers of streams if they were given.
    default_instance_seed : int, or six of them
    """

    def __init__(self, seed: Any = 12345) -> None:
        self.state_updates: list[tuple[Shared, Variable, Any, int | None]] = []
        self.default_instance_seed = seed
        self.set_rstate(seed)

    def updates(self) -> list[tuple[Shared, Variable, Any, int | None]]:
        """Return `state_updates`."""
        return list(self.state_updates)

    def set_rstate(self, seed: Any) -> None:
        """Let the next draw begin with a seed."""
        state = [seed] * 6 if np.ndim(seed) == 0 else list(seed)
        if len(state) != 6 or not all(isinstance(number, (int, np.integer)) for number in state):
            raise TypeError(f"the seed must be an integer, or six of them, not {seed!r}")
        for numbers, modulus in ((state[:3], M1), (state[3:], M2)):
            if not any(numbers) or min(numbers) < 0 or max(numbers) >= modulus:
                raise ValueError(f"of the seed {seed}, {numbers} must be from 0 to {modulus - 1}, and not all 0")
        self.rstate = np.array(state, np.int32)

    def seed(self, seed: Any = None) -> None:
        """Make all states anew from a seed, by default the first one."""
        self.set_rstate(self.default_instance_seed if seed is None else seed)
        for state, _, size, nstreams in self.state_updates:
            n = self.n_streams(size) if nstreams is None else nstreams
            state.set_value(self.get_substream_rstates(n))

    def inc_rstate(self) -> None:
        """Let the next draw begin 2^134 numbers later."""
        self.rstate = _jumped(self.rstate[None], 134)[0]

    def get_substream_rstates(self, n_streams: int, dtype: Any = None, inc_rstate: bool = True) -> NDArray[np.int32]:
        """Return states (n_streams, 6) that are 2^72 numbers apart, and go on to the next draw; dtype is ignored."""
        states, exponent = self.rstate[None], 72
        while len(states) < n_streams:
            states = np.vstack([states, _jumped(states, exponent)])
            exponent += 1
        if inc_rstate:
            self.inc_rstate()
        return np.ascontiguousarray(states[:n_streams])

    def n_streams(self, size: Any) -> int:
        """Return the number of streams for a size; see `guess_n_streams`."""
        return guess_n_streams(size)

    def uniform(
        self,
        size: Any,
        low: Operand = 0.0,
        high: Operand = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
        nstreams: int | None = None,
    ) -> Variable:
        """Return numbers between low and high, both excluded.

        Parameters
        ----------
        size : list of int and Variable, or Variable
            The shape, with lengths of at least 1.
        low, high : array
            They broadcast to the shape.
        ndim : int, optional
            Number of dimensions, if the size does not tell it.
        dtype : dtype, optional
            By default the widest of the parameters' and ``config.floatX``.
        nstreams : int, optional
            How many streams take turns, by default `n_streams` of them.
        """
        wanted = _dtype(dtype or _widest(low, high))
        low, high = _parameter(low, wanted), _parameter(high, wanted)
        numbers = self._uniform(_positive(size), ndim, wanted, nstreams)
        return numbers * (high - low) + low

    def _uniform(
        self, size: Any, ndim: int | None, dtype: np.dtype[Any], nstreams: int | None, in_pairs: bool = False
    ) -> Variable:
        lengths, ndim = _size(size, ndim)
        size = lengths if in_pairs else size
        n_streams = self.n_streams(size) if nstreams is None else nstreams
        state = graph.shared(self.get_substream_rstates(n_streams))
        following, numbers = ops.mrg_uniform(state, lengths, Type(dtype, 1 if in_pairs else ndim), in_pairs)
        state.default_update = following
        numbers.rstate, numbers.update = state, (state, following)  # type: ignore[attr-defined]
        self.state_updates.append((state, following, size, nstreams))
        return numbers

    def binomial(
        self,
        size: Any = None,
        n: int = 1,
        p: Operand = 0.5,
        ndim: int | None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
    ) -> Variable:
        """Return 1 with probability p, else 0; n must be 1."""
        if n != 1:
            raise NotImplementedError(f"MRG_RandomStreams.binomial takes one trial, n=1, not {n}")
        probability = _parameter(p, as_variable(p).type.dtype)
        return ops.cast(self.uniform(size, ndim=ndim, nstreams=nstreams) < probability, dtype)

    def normal(
        self,
        size: Any,
        avg: Operand = 0.0,
        std: Operand = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
        nstreams: int | None = None,
        truncate: bool = False,
    ) -> Variable:
        """Return normal numbers of a mean and a standard deviation; see `uniform` for the other arguments.

        If truncate is true, those beyond two standard deviations are replaced by others.
        """
        wanted = _dtype(dtype or _widest(avg, std))
        avg, std = _parameter(avg, wanted), _parameter(std, wanted)
        lengths, ndim = _size(_positive([size] if np.ndim(size) == 0 else size), ndim)
        uniform = self._uniform(lengths, ndim, wanted, nstreams, in_pairs=True)
        fresh = []
        if truncate:
            z = apply(ops.Normal(), uniform.type, uniform, ops.shape(uniform))
            n_far = ops.sum_(ops.gt(ops.abs_(z), 2.0))
            fresh = [self.uniform((n_far,), constant(np.exp(-2.0), wanted), 1.0, 1, wanted, nstreams)]
        numbers = apply(ops.Normal(), Type(wanted, ndim), uniform, lengths, *fresh)
        return numbers * std + avg

    def truncated_normal(
        self,
        size: Any,
        avg: Operand = 0.0,
        std: Operand = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
        nstreams: int | None = None,
    ) -> Variable:
        """Return normal numbers up to some distance from the mean, with the standard deviation std among these."""
        # That of standard normal numbers between -2 and 2.
        return self.normal(size, avg, std / constant(0.87962566103423978), ndim, dtype, nstreams, truncate=True)

    def multinomial(
        self,
        size: None = None,
        n: Operand = 1,
        pvals: Operand | None = None,
        ndim: None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
    ) -> Variable:
        """Return how often n draws give each outcome, for each row of probabilities; size and ndim must be None."""
        probabilities, numbers = self._for_rows(pvals, n, size, ndim, nstreams)
        return apply(ops.Multinomial(_dtype(dtype)), Type(_dtype(dtype), 2), probabilities, numbers, as_variable(n))

    def choice(
        self,
        size: Operand = 1,
        a: None = None,
        replace: bool = True,
        p: Operand | None = None,
        ndim: None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
    ) -> Variable:
        """Return numbers of different outcomes, size for each row of probabilities; replace must be False."""
        if replace:
            raise NotImplementedError("MRG_RandomStreams.choice draws without replacement only: replace=False")
        probabilities, numbers = self._for_rows(p, size, a, ndim, nstreams)
        return apply(ops.Choice(_dtype(dtype)), Type(_dtype(dtype), 2), probabilities, numbers, as_variable(size))

    def multinomial_wo_replacement(
        self,
        size: None = None,
        n: Operand = 1,
        pvals: Operand | None = None,
        ndim: None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
    ) -> Variable:
        """Return the same as `choice`, of which it is the old name."""
        return self.choice(n, size, False, pvals, ndim, dtype, nstreams)

    def _for_rows(
        self, pvals: Any, n: Operand, size: None, ndim: None, nstreams: int | None
    ) -> tuple[Variable, Variable]:
        # The probabilities, and n uniform numbers for each of their rows.
        if pvals is None or size is not None or ndim is not None:
            raise TypeError("the probabilities are needed, and nothing else may tell the shape")
        probabilities = as_variable(pvals)
        if probabilities.ndim != 2:
            raise NotImplementedError(f"the probabilities must be a matrix, not a {probabilities.type}")
        return probabilities, self.uniform(ops.shape(probabilities)[:1] * n, ndim=1, nstreams=nstreams)


def _parameter(value: Operand, dtype: Any) -> Variable:
    variable = ops.cast(value, dtype)
    return variable if isinstance(variable, graph.Constant) else apply(ops.Parameter(), variable.type, variable)


def _positive(size: Any) -> Any:
    if isinstance(size, (tuple, list)) and any(not isinstance(n, Variable) and n <= 0 for n in size):
        raise ValueError(f"the lengths of a size must be positive, not {size}")
    return size
