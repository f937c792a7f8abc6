"""What the ranks of a fit exchange within its steps, by one plan; the kernels call it.

*By rows*: ranks own consecutive shards of each batch.  Gradients are added up in pairs of neighbours, then these sums
in pairs.  Each rank adds up what its own shards allow, sends the others their slices of the sums, finishes the sum of
its slice, moves its slice of the parameters, and gathers the others'.  So all ranks have the same parameters, and the
same as one process.  *By units*: ranks own consecutive slices of the units of each layer, and their parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.ranks import Ranks
from fastnn.kernels.epoch import Space
from fastnn.kernels.ranks import EXCHANGES
from fastnn.layout import LayerPlan, shares, slices_of_ranks, split_sum, to_lines
from fastnn.plan import Plan

Array = NDArray[Any]

CODES = {name: code for code, name in EXCHANGES.items()}

# Bytes of a rank's part from which each rank sends its own to each other: with MPICH in shared memory that takes less
# time than an allgather, a third of it at 2 MB.
LARGE_PART = 1 << 14


class Gather:
    """Gathers parts of an array from the ranks that own them, in place.

    Parameters
    ----------
    ranks : Ranks
    array : (n,) array
    parts : list of lists of slices, one a rank
        What each rank owns.
    """

    def __init__(self, ranks: Ranks, array: Array, parts: Sequence[Sequence[slice]]) -> None:
        counts = [sum(part.stop - part.start for part in own) for own in parts]
        starts = [own[0].start if own else 0 for own in parts]
        self._own: list[tuple[Array, Array]] = []
        self._others: list[tuple[Array, Array]] = []
        if any(len(own) > 1 for own in parts):
            buffer, starts = np.empty(sum(counts), array.dtype), _starts(counts)
            sizes = [part.stop - part.start for own in parts for part in own]
            pieces = iter(np.split(buffer, np.cumsum(sizes)[:-1]))
            pairs = [[(array[part], next(pieces)) for part in own] for own in parts]
            self._own = pairs[ranks.rank]
            self._others = [pair for rank, own in enumerate(pairs) if rank != ranks.rank for pair in own]
            array = buffer
        if array.itemsize * max(counts) < LARGE_PART:
            self._gather = partial(ranks.comm.Allgatherv, ranks.in_place, [array, (counts, starts)])
            return
        # MPICH sends large parts in small pieces, one after the other, unless each rank sends its own to each other.
        me, others = ranks.rank, [rank != ranks.rank for rank in range(ranks.size)]
        sent = [counts[me] * other for other in others], [starts[me]] * ranks.size
        came = [count * other for count, other in zip(counts, others, strict=True)], starts
        self._gather = partial(ranks.comm.Alltoallv, [array, sent], [array, came])

    def __call__(self) -> None:
        """Gather."""
        for part, piece in self._own:
            piece[:] = part
        self._gather()
        for part, piece in self._others:
            part[:] = piece


class Sums:
    """Sends each rank its slice of the gradients of some shards, or of other parts, and their log-likelihoods.

    Parameters
    ----------
    ranks : Ranks
    gradients : (n_shards, size) array
        Of shards, or of one rank's own rows in the first row.
    log_likelihoods : (n_shards,) array, or (0,) if there are none
    shard_bounds : list of int
        First shard of each rank, and the number of shards.
    slice_bounds : list of int
        First number of the slice of each rank, and the end; all at cache lines.
    own_rows : bool
        Whether each rank has a single sum, in its first row.

    Attributes
    ----------
    received : (n,) array
        What came, rank by rank; received_bytes are its bytes.
    pairs : (n, 2) int64 array
        The additions that are left, by offsets in it; the sum ends at its beginning.
    log_likelihoods : (n_shards,) array
        Of the shards of all ranks.
    """

    def __init__(
        self,
        ranks: Ranks,
        gradients: Array,
        log_likelihoods: NDArray[np.float64],
        shard_bounds: Sequence[int],
        slice_bounds: Sequence[int],
        own_rows: bool,
    ) -> None:
        sums, left = split_sum(shard_bounds)
        me, widths = ranks.rank, np.diff(slice_bounds).tolist()
        tails = [8 // gradients.itemsize * (end - first) for first, end in itertools.pairwise(shard_bounds)]
        if not log_likelihoods.size:
            tails = [0] * ranks.size
        came = [len(heads) * widths[me] + tail for heads, tail in zip(sums, tails, strict=True)]
        self.received = np.empty(sum(came), gradients.dtype)
        self.received_bytes = self.received.view(np.uint8)
        self.log_likelihoods = np.empty(shard_bounds[-1] if log_likelihoods.size else 0)
        offsets: dict[int, int] = {}
        self._told = []
        for rank, (heads, begin) in enumerate(zip(sums, _starts(came), strict=True)):
            offsets |= {head: begin + k * widths[me] for k, head in enumerate(heads)}
            if tails[rank]:
                told = self.received[begin + came[rank] - tails[rank] : begin + came[rank]].view(np.float64)
                self._told.append((self.log_likelihoods[shard_bounds[rank] : shard_bounds[rank + 1]], told))
        self.pairs = np.array([(offsets[a], offsets[b]) for a, b in left], np.int64).reshape(-1, 2)
        begins, sent = _starts(came), [len(sums[me]) * width + tails[me] for width in widths]
        sent[me] = came[me] = 0  # the own slice needs no message: it goes to its place at once
        message = np.empty(sum(sent), gradients.dtype)
        first, end = (0, 1) if own_rows else shard_bounds[me : me + 2]
        self._pieces: list[tuple[Array, Array]] = []
        for rank, (begin, bounds) in enumerate(zip(_starts(sent), itertools.pairwise(slice_bounds), strict=True)):
            place = self.received[begins[me] :] if rank == me else message[begin:]
            for row in [0] if own_rows else sums[me]:
                self._pieces.append((place[: widths[rank]], gradients[row, slice(*bounds)]))
                place = place[widths[rank] :]
            self._pieces.append((place[: tails[me]].view(np.float64), log_likelihoods[first:end]))
        self._exchange = partial(
            ranks.comm.Alltoallv, [message, (sent, _starts(sent))], [self.received, (came, begins)]
        )

    def __call__(self) -> None:
        """Exchange."""
        for piece, part in self._pieces:
            piece[:] = part
        self._exchange()
        for part, piece in self._told:
            part[:] = piece


def _starts(counts: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(counts[:-1])]


class Exchanges:
    """The exchanges of one fit.

    Parameters
    ----------
    ranks : Ranks
    plan : Plan
    space : Space
        Whose arrays are exchanged.

    Attributes
    ----------
    n_left : (1,) intp array
        Batches, or row blocks by units, until a run ends; the kernels count it down.
    shares : bool
        Whether the ranks share the work; otherwise each does all of it, and nothing is exchanged.
    own_rows : bool
        Whether each rank has rows of its own.
    epoch_rows : int
        With own rows: where an epoch ends here, which may be behind the last row.
    totals : (n_batches,) array or None
        With own rows: weight of each batch in all ranks.
    own_slice : slice
        Parameters that this rank moves, by rows.
    received, received_bytes, pairs, log_likelihoods
        Of the last exchange of shards: see `Sums`.
    """

    def __init__(self, ranks: Ranks, plan: Plan, space: Space) -> None:
        self._ranks, self._plan, self._space, self._watch = ranks, plan, space, ranks.watch
        self.rank, self.n_ranks = ranks.rank, ranks.size
        self.n_left = np.zeros(1, np.intp)
        self.shares, self.own_rows = plan.sharing in ("shards", "units", "rows"), plan.sharing == "rows"
        self.epoch_rows = 0
        self.totals: NDArray[np.float64] | None = None
        self.own_slice = slice(0, 0)
        self._sums: dict[int, Sums] = {}
        self._made: dict[tuple[int, int], Callable[[], None]] = {}
        self._collected: list[Gather] = []
        if not self.shares:
            return
        if plan.sharing == "units":
            self._prepare_units()
        else:
            self._prepare_rows()

    def exchange(self, what: int, index: int) -> None:
        """Make one exchange; for the kernels."""
        # Not `watched`, which would take as long as a small exchange itself.
        self._watch.begin(EXCHANGES[what])
        try:
            if what == CODES["shards"]:
                self._take(self._sums_of(index))
            else:
                self._made[what, index]()
        except BaseException:
            self._ranks.fail(EXCHANGES[what])
        self._watch.end()

    def collect(self) -> None:
        """Gather what only its owner has up to date, for a whole copy on each rank."""
        for gather in self._collected:
            with self._ranks.watched("parameters"):
                gather()

    # By rows.

    def _prepare_rows(self) -> None:
        ranks, space, n_ranks = self._ranks, self._space, self.n_ranks
        size, itemsize = space.gradients.shape[1], space.gradients.itemsize
        width = to_lines(-(-size // n_ranks), itemsize)
        self._bounds = [min(size, rank * width) for rank in range(n_ranks + 1)]
        self.own_slice = slice(*self._bounds[self.rank : self.rank + 2])
        # The vector of parameters ends before that of gradients, which is of whole lines.
        bounds = [min(space.parameters.size, bound) for bound in self._bounds]
        parts = [[slice(*pair)] for pair in itertools.pairwise(bounds)]
        self._made[CODES["parameters"], 0] = Gather(ranks, space.parameters, parts)
        gather = Gather(ranks, space.gradients[0], [[slice(*pair)] for pair in itertools.pairwise(self._bounds)])
        self._made[CODES["gradient"], 0] = lambda: self._gather_gradient(gather)
        self._collected = [Gather(ranks, slot, parts) for slot in space.state]

    def _gather_gradient(self, gather: Gather) -> None:
        own = self.own_slice
        self._space.gradients[0, own] = self.received[: own.stop - own.start]
        gather()

    def _sums_of(self, n_shards: int) -> Sums:
        n = self.n_ranks if self.own_rows else n_shards
        if n not in self._sums:
            space = self._space
            arrays = space.gradients, space.log_likelihood[1:]
            self._sums[n] = Sums(self._ranks, *arrays, shares(n, self.n_ranks), self._bounds, self.own_rows)
        return self._sums[n]

    def _take(self, sums: Sums) -> None:
        sums()
        self.received, self.received_bytes, self.pairs = sums.received, sums.received_bytes, sums.pairs
        self.log_likelihoods = sums.log_likelihoods

    # By units.

    def _prepare_units(self) -> None:
        plan, space, n_ranks = self._plan, self._space, self.n_ranks
        owned = [slices_of_ranks(layer, n_ranks) for layer in plan.layers]
        for k in range(len(plan.layers) - 1):
            self._prepare_hidden(k, owned[k])
        n_logits, n_parts = plan.block_rows * plan.layers[-1].facts.n_out, len(plan.layers[-1].slices)
        for parity in (0, 1):
            begin = plan.parts + parity * n_parts * n_logits
            self._made[CODES["logits"], parity] = self._gather_work(begin, [n_logits * i for i in owned[-1]])
        # Places of the slices of all layers, where each has a number of its own.
        most = plan.most_slices
        places = [
            [slice(most * k + own[rank], most * k + own[rank + 1]) for k, own in enumerate(owned)]
            for rank in range(n_ranks)
        ]
        squares = space.work.reshape(-1)[plan.squares :][: 2 * most * len(owned)]
        pairs = [[slice(2 * part.start, 2 * part.stop) for part in own] for own in places]
        self._made[CODES["squares"], 0] = Gather(self._ranks, squares, pairs)
        parameters = [_parameters_of(plan.layers, owned, rank) for rank in range(n_ranks)]
        self._collected = [Gather(self._ranks, vector, parameters) for vector in (space.parameters, *space.state)]
        self._collected.append(Gather(self._ranks, space.penalties.reshape(-1), places))

    def _prepare_hidden(self, k: int, owned: Sequence[int]) -> None:
        # Outputs of a hidden layer, and the gradients by these if a layer above sums them by groups.
        layer, above = self._plan.layers[k : k + 2]
        bounds = [layer.cut[2] * i for i in owned]
        self._made[CODES["outputs"], k] = self._gather_work(layer.output, bounds)
        if above.groups > 1 and not above.by_inputs:
            deltas = self._space.work.reshape(-1)[layer.delta :][: above.groups * bounds[-1]]
            arrays = deltas.reshape(above.groups, bounds[-1]), np.empty(0)
            sums = Sums(self._ranks, *arrays, shares(above.groups, self.n_ranks), bounds, own_rows=False)
            self._made[CODES["deltas"], k] = partial(self._take, sums)

    def _gather_work(self, begin: int, bounds: Sequence[int]) -> Gather:
        # Of numbers from begin on in the work space, of which each rank has those from its bound to the next.
        parts = [[slice(begin + i, begin + j)] for i, j in itertools.pairwise(bounds)]
        return Gather(self._ranks, self._space.work.reshape(-1), parts)


def _parameters_of(layers: Sequence[LayerPlan], owned: Sequence[Sequence[int]], rank: int) -> list[slice]:
    # The parameters of the rank's slices of all layers.
    found = []
    for layer, bounds in zip(layers, owned, strict=True):
        for own in layer.slices[bounds[rank] : bounds[rank + 1]]:
            rows = [
                slice(own.weight + i * own.stride, own.weight + i * own.stride + own.n_columns)
                for i in range(own.n_rows)
            ]
            found += [slice(rows[0].start, rows[-1].stop)] if own.stride == own.n_columns else rows
            if not layer.by_inputs:
                found.append(slice(layer.bias + own.begin, layer.bias + own.end))
        if layer.by_inputs and bounds[rank] == 0 < bounds[rank + 1]:  # the first slice's owner moves the bias
            found.append(slice(layer.bias, layer.bias + layer.facts.n_out))
    return found
