"""The trainer: settings that may change between fits, and the fit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._validation import check_choice, check_integer, check_path, check_seed
from fastnn.augment import Flip, Shift
from fastnn.callbacks import Callback, Fit, ProgressBar
from fastnn.engine.ranks import ranks_of
from fastnn.engine.threads import sharers
from fastnn.history import History
from fastnn.kernels.rows import UINT8_SCALE
from fastnn.network import Network
from fastnn.optimizers import LBFGS, SGD, Optimizer
from fastnn.plan import Plan
from fastnn.training import checkpoint
from fastnn.training.active import ActiveFit
from fastnn.training.agreement import compare_calls
from fastnn.training.checkpoint import Snapshot
from fastnn.training.data import Data, read_data
from fastnn.training.epochs import train_epochs
from fastnn.training.in_use import in_use
from fastnn.training.joint import own_position, start_together
from fastnn.training.lbfgs import maximise
from fastnn.training.settings import CHECKS, Settings, Variant, check_together
from fastnn.training.state import TrainState


class Trainer(Settings):
    """Trains a network by gradient ascent on its mean log-likelihood.

    The objective is the weighted mean log-likelihood of a batch minus ``l2 / 2`` times the sum of squared weights and
    ``l1`` times the sum of their magnitudes, without the biases.  The same seed and input give the same bits,
    whatever the number of threads.  On x86 processors, which are slow with numbers too small to be normal in the
    network's dtype, training takes these as 0.

    Each parameter but the seed is an attribute too.  It can be set between fits, and is checked then; a fit is settled
    when it starts, so setting one during a fit is a RuntimeError.

    Parameters
    ----------
    network : Network
        Trained in place, by one fit at a time.
    optimizer : Optimizer or LBFGS, default SGD(learning_rate=0.5)
        Turns gradients into steps: see `fastnn.optimizers`.
    batch_size : int or None, default None
        Rows of a step, of all ranks together; a short last batch is trained on too, with its own mean.  None takes all
        rows at once.
    l2 : float, default 0.0
        Weight of the penalty on squares.
    shuffle : bool, default True
        Whether each epoch takes the rows in a new random order.
    seed : int, numpy.random.Generator or None, default 0
        For shuffling, dropout and motions of images.
    n_threads : int or None, default None
        None takes the processors that the process may run on, at most OMP_NUM_THREADS; ranks divide those of their
        machine.  At most 64 are used.
    sparse : bool or "auto", default "auto"
        Whether dense input is stored as sparse, so that the first layer works on the non-zeros only; "auto"
        does so if fewer than a quarter of the values are non-zero, which costs one pass over the data at the
        start of a fit.  Sparse input stays sparse.  The results are the same to rounding.  Convolution and pooling
        take dense rows: True is an error then.
    callbacks : iterable of Callback, default ()
        Called during a fit; see `fastnn.callbacks`.
    l1 : float, default 0.0
        Weight of the penalty on magnitudes.
    dropout : float or a list, one a hidden layer with weights, default 0.0
        Share of the hidden units' outputs that is set to 0 at random; the others are scaled up [1]_.  A layer's own
        `dropout` goes before it; the attribute has what each layer gets.
    label_smoothing : float, default 0.0
        Share of the true class's probability that is spread over all classes [2]_; for cross-entropy.
    clip_norm : float or None, default None
        Greatest norm of the gradient of the log-likelihood; a longer one is shortened to it [3]_.
    max_norm : float or None, default None
        Greatest norm of the weights into a hidden unit; after a step longer ones are shortened to it [1]_.
    augment : Shift, Flip, a list of these, or None, default None
        How images are moved at random, each time they are trained on: see `fastnn.augment`.  The network's
        `input_shape` must be that of an image.
    comm : mpi4py.MPI.Intracomm or None, default None
        The ranks of an MPI job that train together, such as ``mpi4py.MPI.COMM_WORLD``; None trains alone.  See the
        notes.  A copy or a pickle is without it.
    rows : {"shared", "own"}, default "shared"
        With "shared", every rank has, or maps, the same rows, and the bits are those of one process, for any number of
        ranks.  With "own", each rank gives `fit` rows of its own, possibly none: a batch takes rows of each in
        proportion, and the same seed, data and number of ranks give the same bits.  "own" takes no chunks and no
        network with batch normalisation.
    sync_every : int or None, default None
        With a number k, each rank steps alone, on its part of each batch, and parameters and the optimizer's state are
        averaged every k steps: another algorithm, with other results, that exchanges less [4]_.

    Notes
    -----
    With a comm, `fit` and `plan` are collective: all ranks call them, with the same settings and arguments (with
    ``rows="own"``, their own X, y, sample_weight and validation data).  Rank 0 gives the parameters, the optimizer's
    state and the random numbers.  All ranks end with the same network, history and state; callbacks, the progress bar
    and files belong to rank 0.

    A mistake, an exception or Ctrl-C on one rank ends the fit on all: if not all have the same error, its message names
    the rank.  Settings that differ, and shared data that differ in a sample, are errors.  A rank that is lost or does
    not come for 600 s (environment variable FASTNN_RANK_TIMEOUT, in seconds) ends the job.  Where a step cannot be
    shared, or would be slower so, each rank does all of it, to the same bits, with a RuntimeWarning on rank 0.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to prevent
       neural networks from overfitting", JMLR 15 (2014).
    .. [2] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception architecture for computer
       vision" (2015).
    .. [3] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
    .. [4] T. Lin, S. U. Stich, K. K. Patel, M. Jaggi, "Don't use large mini-batches, use local SGD", ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import Network, Trainer
    >>> X, y = np.array([[0.0], [1.0]]), np.array([0, 1])
    >>> net = Network([1, 2])
    >>> history = Trainer(net).fit(X, y, epochs=100)
    >>> net.predict(X)
    array([0, 1])
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer | LBFGS = SGD(learning_rate=0.5),  # noqa: B008  it is immutable
        batch_size: int | None = None,
        l2: float = 0.0,
        shuffle: bool = True,
        seed: int | np.random.Generator | None = 0,
        n_threads: int | None = None,
        sparse: bool | str = "auto",
        callbacks: Iterable[Callback] = (),
        l1: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        augment: Shift | Flip | Sequence[Shift | Flip] | None = None,
        comm: Any = None,
        rows: str = "shared",
        sync_every: int | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.l2 = l2
        self.shuffle = shuffle
        self.n_threads = n_threads
        self.sparse = sparse
        self.callbacks = callbacks
        self.l1 = l1
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.clip_norm = clip_norm
        self.max_norm = max_norm
        self.augment = augment
        self.comm = comm
        self.rows = rows
        self.sync_every = sync_every
        parameters = network.parameters
        self._state = TrainState(check_seed(seed), np.empty((0, parameters.size), parameters.dtype))
        self._active: ActiveFit | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process is in no job.
        return vars(self) | {"_state": dataclasses.replace(self._state), "_active": None, "comm": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state["_state"], TrainState):  # an older pickle: its parts were the trainer's attributes
            parts = (state[name] for name in ("_generator", "_state", "_kind", "_n_steps", "_curve"))
            settings = {name: state[name] for name in CHECKS if name in state}
            state = settings | {"_state": TrainState(*parts), "_active": None}
        vars(self).update(state)
        # Its memory may be read-only, such as a file that joblib maps for its processes.
        self._state.optimizer = self._state.optimizer.copy()

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        epochs: int = 10,
        validation: Sequence[Any] | None = None,
        progress: bool | None = None,
        sample_weight: ArrayLike | None = None,
        resume: str | os.PathLike[str] | None = None,
        resume_exactly: bool = True,
    ) -> History:
        """Train for a number of epochs; call again to continue.

        Parameters
        ----------
        X : (n, n_in) array or scipy.sparse matrix, (n, height, width, channels) array, or an iterable of chunks
            Rows to train on: any real type, finite; uint8 is taken as pixels, each multiplied by 1/256, which the
            network's `input_scale` keeps.  They are copied only if necessary, so do not change them during a fit.  A
            memory-mapped array (`numpy.memmap`, C-contiguous and aligned, of uint8, float32 or float64) stays on the
            disk: see the notes.  Without y, X is an iterable of pairs (X, y) or triples (X, y, sample_weight), iterated
            once an epoch: each is trained on in turn, and only one need be in memory.
        y : (n,) integer array, or (n, n_out) numbers
            Class of each row, from 0; the wanted outputs, if the network's loss is not cross-entropy.
        epochs : int, default 10
            How often to go through the rows.
        validation : (X, y) or (X, y, sample_weight) or None
            Rows on which log-likelihood and error are measured after each epoch.
        progress : bool or None, default None
            Whether to show a progress bar; None shows it if the standard error stream is a terminal.
        sample_weight : (n,) array or None
            Weight of each row, at least 0.
        resume : path or None
            File of a `fastnn.callbacks.Checkpoint`.  If it exists, the fit continues from there to the same number of
            epochs in all, with the same bits as without the interruption; a fit that a callback had ended ends at once.
            Data, network, settings, instruction set and libraries must be those of the fit that wrote the file: a
            difference is an error that names it.  (Chunks are taken on trust.)
        resume_exactly : bool, default True
            False allows differences that change only the rounding: another instruction set, compiler, version of a
            library, or way of storing rows.

        Returns
        -------
        History
            Of this fit, with the epochs before a resumption.  Ctrl-C ends it early: the history so far is returned with
            `interrupted` set, and the network is as after the last finished step.

        Raises
        ------
        DivergenceError
            If the log-likelihood or a parameter stops being finite.  The network is then as it was after the
            last good epoch.
        TypeError, ValueError
            If the input is not as described; nothing has been trained then.  (Chunks are checked when they come: the
            chunks before have been trained on.)
        RuntimeError
            If the trainer or the network is in another fit.

        Notes
        -----
        A memory-mapped X is read once before the fit, to check that its numbers are finite, and once an epoch, a
        little ahead of training.  If it has more than 256 MB, it is shuffled so that the disk is read in long
        stretches: pieces of 1 MB in a random order, and then the rows within each 256 MB of these.  The seed determines
        that order too, but it differs from the order of the same rows in memory; and ``sparse="auto"`` leaves such
        rows dense, since a copy may not fit into memory.
        """
        ranks = ranks_of(self.comm)
        with ranks.keeping_interrupts(), ranks.together():
            epochs = check_integer(epochs, "epochs", 0)
            check_choice(progress, "progress", [None, False, True])
            check_choice(resume_exactly, "resume_exactly", [False, True])
            path = None if resume is None else check_path(resume, "resume")
            with in_use.reserve(trainer=self, network=self.network), sharers:
                check_together(self)
                call = {"method": "fit", "epochs": epochs, "resume": path is not None, "y": y is not None}
                compare_calls(ranks, self, self._state, {**call, "validation": validation is not None})
                data = read_data(self, self._state, X, y, sample_weight, validation)
                active = self._begin(data, epochs, ProgressBar(progress))
                start_together(active, path is not None)
                snapshot = None if path is None else self._read(active, path, resume_exactly)
                return self._carry_out(active, snapshot)

    def _read(self, active: ActiveFit, path: str, exactly: bool) -> Snapshot | None:
        # The checkpoint, if there is one; the file belongs to rank 0.
        def read() -> Snapshot | None:
            if not os.path.exists(path):
                return None
            return checkpoint.read(path, active.fingerprint, exactly, self, self._state, active.data)

        snapshot = active.ranks.first_tells("the checkpoint", read)
        own_position(active, snapshot)
        return snapshot

    def _begin(self, data: Data, epochs: int, bar: Callback) -> ActiveFit:
        fit = Fit(self, epochs, data.n_rows, data.validation is not None)
        return ActiveFit(self, self._state, data, fit, bar)

    def _carry_out(self, active: ActiveFit, snapshot: Snapshot | None = None) -> History:
        given = self.callbacks
        vars(self)["callbacks"] = tuple(given)  # the list may not change during the fit either
        self._active = active
        try:
            _train(active, snapshot)
        finally:
            self._active = None
            vars(self)["callbacks"] = given
        if active.data.are_pixels and len(active.fit.history) > 0:
            self.network.input_scale = UINT8_SCALE
        return active.fit.history

    def plan(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> Plan:
        """Return how a fit would be carried out, and why; print it for a table.

        Parameters
        ----------
        X, y, sample_weight
            As `fit` takes them.  For chunks it is the plan of the first; it must be possible to iterate again.

        Returns
        -------
        fastnn.plan.Plan
            Frozen; ``print`` shows each choice, and why.  It depends on the layers, facts about the data, the settings
            and the machine.  Nothing is trained.

        Raises
        ------
        TypeError, ValueError
            As `fit` does.
        RuntimeError
            If the trainer or the network is in a fit.
        """
        ranks = ranks_of(self.comm)
        with ranks.together(), in_use.reserve(trainer=self, network=self.network):
            check_together(self)
            compare_calls(ranks, self, self._state, {"method": "plan", "y": y is not None})
            return next(read_data(self, None, X, y, sample_weight, None).chunks()).plan

    def save_checkpoint(self, path: str | os.PathLike[str], fit: Fit) -> None:
        """Write a file from which `fit` can resume; `fastnn.callbacks.Checkpoint` does so regularly.

        Parameters
        ----------
        path : path
            Replaced atomically: a crash leaves an old file whole.
        fit : Fit
            The fit under way, as callbacks receive it.

        Raises
        ------
        RuntimeError
            If no fit of this trainer is under way.
        """
        if self._active is None or self._active.fit is not fit:
            raise RuntimeError("save_checkpoint is for a fit that is under way: call it in a callback")
        self._active.save_checkpoint(check_path(path))


def _train(active: ActiveFit, snapshot: Snapshot | None) -> None:
    # From the start of the first callback to the end of the last.
    fit, network = active.fit, active.settings.network
    started: list[Callback] = []
    before: NDArray[Any] | None = network.parameters.copy()
    try:
        with active.ranks.together():
            for callback in active.callbacks:
                callback.on_start(fit)
                started.append(callback)
            if snapshot is not None:
                checkpoint.restore(snapshot, active.settings, active.state, fit, active.callbacks)
            before = None
            if isinstance(active.settings.optimizer, LBFGS):
                maximise(active, snapshot)
            else:
                train_epochs(active, snapshot)
    except KeyboardInterrupt:
        fit.history.interrupt()
    finally:
        with ExitStack() as ends:  # each is called, even if another one raises an error
            ends.push(active.leave)  # last
            if before is not None:  # training has not begun
                ends.callback(active.set_parameters, before)
            for callback in reversed(started):
                ends.callback(callback.on_end, fit)


def make_trainer(
    network: Network,
    optimizer: Optimizer | LBFGS,
    variant: Variant,
    go_on_from: Trainer | None = None,
    **settings: Any,
) -> Trainer:
    """Return a trainer for a front door that needs a variant of it.

    Parameters
    ----------
    network, optimizer, **settings
        As `Trainer` takes them.
    variant : Variant
        What it does differently.
    go_on_from : Trainer or None
        Trainer whose optimizer's state is taken over.
    """
    trainer = Trainer(network, optimizer, **settings)
    trainer._variant = variant
    if go_on_from is not None:
        trainer._state.go_on_from(go_on_from._state)
    return trainer
