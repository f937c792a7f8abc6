"""The number of threads of each run, chosen by measurement: results do not depend on it.

How fast several threads are depends on what no plan can know: whether other processes want the processors, whether the
system has put two threads on one processor, how far apart the processors are.  So each number of threads is tried for a
moment, and the one with which the most rows a second are finished goes on.  Now and then its neighbours, half and twice
as many, are tried again: the more time that cost the last time, the later.
"""

from __future__ import annotations

from fastnn import tuning


class Pace:
    """Chooses the number of threads of each run from the speed of those before.

    Parameters
    ----------
    most : int
        Threads at most.

    Attributes
    ----------
    n_threads : int
        Threads for the next run.
    """

    def __init__(self, most: int) -> None:
        self._numbers = sorted({*(2**i for i in range(most.bit_length())), most})
        self._best = self.n_threads = most
        self._to_try = self._numbers[:-1]
        self._is_cold = True  # memory and caches
        self._tried: dict[int, tuple[int, float]] = {}  # rows and seconds of each number that is compared
        self._rows, self._seconds = 0, 0.0  # since n_threads was chosen
        self._wait, self._speed = 0.0, 0.0  # until the next comparison; rows a second, when the best was chosen

    @property
    def run_seconds(self) -> float:
        """How long the next run may last, at most."""
        return tuning.TRIAL_SECONDS if self._tries else tuning.CHUNK_SECONDS

    @property
    def _tries(self) -> bool:
        return self.n_threads != self._best or bool(self._to_try)

    def note(self, rows: int, seconds: float) -> None:
        """Note that the last run, with n_threads, finished so many rows in so many seconds."""
        if rows == 0:  # a rank that has none, or none left, only waits for the others
            return
        is_cold, self._is_cold = self._is_cold, False
        if is_cold and seconds < tuning.COLD_SECONDS:
            return
        self._rows += rows
        self._seconds += seconds
        if self._tries:
            if self._seconds >= tuning.TRIAL_SECONDS:
                self._go_on()
        elif self._best > 1 and self._has_slowed_down(rows, seconds):
            self._compare([n for n in self._numbers if n < self._best])
        elif self._seconds >= self._wait:
            i = self._numbers.index(self._best)
            self._compare(self._numbers[i + 1 : i + 2] + self._numbers[max(0, i - 1) : i])

    def _compare(self, numbers: list[int]) -> None:
        # Tries these numbers beside the best.
        self._to_try, self._tried = numbers, {}
        self._go_on()

    def _go_on(self) -> None:
        # With the next number to try, or with the best.
        self._tried[self.n_threads] = self._rows, self._seconds
        self._rows, self._seconds = 0, 0.0
        if self._to_try:
            self.n_threads = self._to_try.pop()
            return
        speeds = {n: rows / seconds for n, (rows, seconds) in self._tried.items()}
        fastest = max(speeds, key=lambda n: speeds[n] * (tuning.STAYING if n == self._best else 1.0))
        lost = sum(s - r / speeds[fastest] for n, (r, s) in self._tried.items() if n not in (self._best, fastest))
        self._wait = min(max(tuning.SHORTEST_WAIT, lost / tuning.TRIAL_SHARE), tuning.LONGEST_WAIT)
        self._best = self.n_threads = fastest
        self._speed = speeds[fastest]

    def _has_slowed_down(self, rows: int, seconds: float) -> bool:
        # Whether the last run was much slower than what was measured when its number was chosen.
        return seconds >= tuning.CHUNK_SECONDS / 2 and rows / seconds < tuning.SLOWED_DOWN * self._speed
