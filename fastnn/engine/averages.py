"""Averages over ranks that train alone in between.

T. Lin, S. U. Stich, K. K. Patel, M. Jaggi, "Don't use large mini-batches, use local SGD", ICLR 2020.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.exchanges import Gather
from fastnn.engine.ranks import Ranks
from fastnn.kernels.epoch import Space
from fastnn.layout import shares


class Averages:
    """Averages parameters and the optimizer's state, and adds up what the ranks have trained on in between.

    Parameters
    ----------
    ranks : Ranks
    space : Space
        Its sums are added up.
    vectors : list of arrays
        Parameters and the optimizer's state, in the stored form: ranks may train in different ones.
    share : float
        The rank's share of all rows, which is its weight.
    """

    def __init__(self, ranks: Ranks, space: Space, vectors: Sequence[NDArray[Any]], share: float) -> None:
        self._ranks, self._space, self._share = ranks, space, share
        bounds = shares(vectors[0].size, ranks.size)
        self._slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        own = self._slices[ranks.rank]
        self._sent = np.empty_like(vectors[0])
        self._received = np.empty((ranks.size, own.stop - own.start), vectors[0].dtype)
        self._gathers = [(vector, Gather(ranks, vector, [[part] for part in self._slices])) for vector in vectors]
        self.restart()

    def restart(self) -> None:
        """Begin from the sums that are in the space."""
        self._log_likelihood = float(self._space.log_likelihood[0])
        self._penalties = self._space.penalties.copy()

    def add_up(self) -> None:
        """Add up the sums of all ranks; if one has diverged, all have an infinite log-likelihood."""
        space = self._space
        since = np.array([space.log_likelihood[0] - self._log_likelihood, *(space.penalties - self._penalties).flat])
        total = self._ranks.sum("an average", since, heeds_interrupts=False)  # the ranks' parameters still differ
        space.log_likelihood[0] = self._log_likelihood + total[0]
        space.penalties[...] = self._penalties + total[1:].reshape(space.penalties.shape)
        self.restart()

    def average(self) -> None:
        """Average the vectors."""
        with self._ranks.watched("an average"):
            for vector, gather in self._gathers:
                self._average(vector, gather)

    def _average(self, vector: NDArray[Any], gather: Gather) -> None:
        # Each rank averages a slice, in the order of the ranks, and gathers the others.
        own, size = self._slices[self._ranks.rank], self._received.shape[1]
        np.multiply(vector, vector.dtype.type(self._share), out=self._sent)
        counts = [part.stop - part.start for part in self._slices]
        self._ranks.comm.Alltoallv([self._sent, counts], [self._received, [size] * self._ranks.size])
        np.sum(self._received, axis=0, out=vector[own])
        gather()
