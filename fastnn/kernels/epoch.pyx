"""The entry from Python: runs of batches without the GIL, and the forward pass over many rows.

Both carry out a plan; see fastnn/plan.py.  BLAS must be single-threaded here.
"""

from typing import NamedTuple

from cython.parallel cimport prange
from cython cimport floating
from libc.stdint cimport int64_t

from .driver_rows cimport epoch_end, forward_shard, train_by_rows
from .driver_units cimport train_by_units
from .losses cimport TargetStore, open_targets
from .plan cimport CompiledPlan, Job, Ranks, now
from .ranks cimport open_ranks
from .rows cimport RowStore, open_rows
from .sparse cimport BlockStore, open_blocks
from .updates cimport StepStore, open_steps

cdef extern from *:
    """
    #ifdef _OPENMP
    #define FASTNN_OPENMP 1
    #else
    #define FASTNN_OPENMP 0
    #endif
    #if defined(__SSE2__) || defined(_M_X64)
    #include <xmmintrin.h>
    #define FLUSH_TO_ZERO 0x8040u  /* results and operands */
    #define float_control() _mm_getcsr()
    #define set_float_control(control) _mm_setcsr(control)
    #else
    #define FLUSH_TO_ZERO 0u
    #define float_control() 0u
    #define set_float_control(control) ((void)(control))
    #endif
    """
    const bint FASTNN_OPENMP
    const unsigned int FLUSH_TO_ZERO
    unsigned int float_control() noexcept nogil
    void set_float_control(unsigned int control) noexcept nogil

#: Whether the kernels were compiled with OpenMP; without it they run on one thread.
HAS_OPENMP = bool(FASTNN_OPENMP)


class Batches(NamedTuple):
    """The rows of an epoch.

    X : (n, n_in) array or CSRRows
    targets : Targets, in the order of the rows
    order : (n,) intp, the order of the rows; None: as stored
    key : seed of the epoch's dropout masks and motions
    blocks : SortedBlocks of X, if rows are taken as stored, with the plan's `row_blocks` as bounds; or None
    motion : rows.Motion of images, drawn by the key; or None
    """

    X: object
    targets: object
    order: object = None
    key: int = 0
    blocks: object = None
    motion: object = None


class Space(NamedTuple):
    """Parameters in the forms of the plan, the work space of `train`, and its progress, zeros at an epoch's start.

    parameters : (n_parameters,), updated in place
    state : (n_slots, n_parameters), the optimizer's
    gradients : (n_shards, n_parameters or more), zeros; update "none" leaves the gradient in the first row
    work : (threads that take shards, work_size)
    position : (1 + n_shards,), first row of the current batch; rows that each shard has finished
    log_likelihood : (1 + n_shards,), weighted sum over the finished batches, in nats; and over the rows that each shard
        has finished.  If [0] is not finite after a call, the batch at position[0] diverged; its step was not taken.
    penalties : (n_layers, most_slices), of the finished batches, each times the batch's weight; to be added up
    touched : (1 + 2 n_in,) if the plan touches, else None.  Then `touched.bring_up_to_date` must move the other rows of
        the first weight, whose penalty is not in penalties.
    """

    parameters: object
    state: object
    gradients: object
    work: object
    position: object
    log_likelihood: object
    penalties: object
    touched: object = None


cdef unsigned int flush_denormals(unsigned int control, int n_threads) noexcept nogil:
    # Sets the floating-point control of all threads of the team, so that they treat denormal numbers as zero, or back.
    # Weights that only a penalty moves, as those of pixels that are always black, shrink to denormals, and an operation
    # on one takes as long as a hundred others.  Returns the previous control.
    cdef unsigned int before = float_control()
    cdef int _
    set_float_control(control)  # outside, too: LLVM's OpenMP restores its caller's before a parallel region
    for _ in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        set_float_control(control)
    return before


cdef void run(Job* job, double seconds, floating* work) noexcept nogil:
    cdef unsigned int control = flush_denormals(float_control() | FLUSH_TO_ZERO, job.n_threads)
    job.deadline = now() + seconds
    if job.plan.by_units:
        train_by_units(job, work)
    else:
        train_by_rows(job, work)
    flush_denormals(control, job.n_threads)


cdef void open_space(Job* job, space, const floating[:, ::1] work) except *:
    # The caller keeps the space alive.
    cdef floating[::1] parameters = space.parameters
    cdef floating[:, ::1] state = space.state, gradients = space.gradients
    cdef Py_ssize_t[::1] position = space.position
    cdef double[::1] log_likelihood = space.log_likelihood
    cdef double[:, ::1] penalties = space.penalties
    cdef int64_t[::1] touched
    job.parameters, job.gradients = &parameters[0], &gradients[0, 0]
    job.state = &state[0, 0] if state.shape[0] else NULL
    job.gradient_size, job.work_size = gradients.shape[1], work.shape[1]
    job.position, job.log_likelihood, job.penalties = &position[0], &log_likelihood[0], &penalties[0, 0]
    job.touched = NULL
    if space.touched is not None:
        touched = space.touched
        job.touched = &touched[0]


def train(batches, CompiledPlan plan, steps, space, floating[:, ::1] work, double seconds, int n_threads,
          exchanges=None):
    """Train on batch after batch of one epoch, until it ends, diverges or the time is up; call again to continue.

    Each step is one of gradient ascent on the batch's weighted mean log-likelihood minus the penalties.

    batches : Batches;  steps : Steps;  space : Space
    work : space.work
    seconds : time after which to return
    exchanges : fastnn.engine.exchanges.Exchanges, or None if there are no other ranks.  The run ends after its n_left
        batches, or row blocks by units, which are counted down; by rows, it returns within a batch too when the time
        is up.
    """
    cdef RowStore store = open_rows(batches.X, batches.motion, batches.key)
    cdef TargetStore targets = open_targets(batches.targets)
    cdef StepStore step_store = open_steps(steps, space.parameters.shape[0])
    cdef BlockStore blocks
    cdef const Py_ssize_t[::1] order
    cdef Ranks ranks
    cdef Job job
    job.plan, job.store, job.targets, job.steps = &plan.plan, &store, &targets, &step_store
    job.n_rows, job.key, job.n_threads = batches.targets.y.shape[0], batches.key, n_threads
    job.order, job.blocks = NULL, NULL
    if batches.order is not None:
        order = batches.order
        job.order = &order[0] if order.shape[0] else NULL
    if batches.blocks is not None:
        blocks = open_blocks(batches.blocks, store.n_columns)
        job.blocks = &blocks
    open_space(&job, space, work)
    open_ranks(&job, &ranks, exchanges)
    if job.position[0] < epoch_end(&job):
        with nogil:
            run(&job, seconds, &work[0, 0])


def forward(X, Py_ssize_t first, CompiledPlan plan, const floating[::1] parameters, floating[:, ::1] work,
            floating[:, ::1] logits_out, int n_threads):
    """logits_out (n, n_out) = the output layer, before softmax or sigmoid, for n rows of X from row first on.

    work : (n_parts, work_size), one for the row blocks of each thread
    """
    cdef RowStore store = open_rows(X)
    cdef Job job
    cdef Py_ssize_t part, n_parts = work.shape[0], block_rows = plan.plan.block_rows
    job.plan, job.store, job.order, job.key = &plan.plan, &store, NULL, 0
    job.parameters, job.n_rows, job.n_threads, job.ranks = <void*> &parameters[0], logits_out.shape[0], 1, NULL
    if job.n_rows == 0:
        return
    with nogil:
        for part in prange(n_parts, num_threads=min(n_threads, n_parts), schedule="dynamic", chunksize=1):
            forward_shard(&job, first, part * block_rows, n_parts * block_rows, &work[part, 0], &logits_out[0, 0])
