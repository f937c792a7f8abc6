"""The engine: runs of batches without the GIL, and the forward pass over many rows.

A large batch is cut into lanes, a lane into blocks of rows; small ones, and those of sparse rows with wide layers, are
shared out by units.pyx.  A block
goes forward and backward while it is in cache and adds to its lane's gradient; when all lanes are done, their
gradients are added up in order and the parameters move.  How a batch is cut depends on its size alone, a
lane's blocks are taken in order, and BLAS must run single-threaded: so the bits are the same whatever the
number of threads, and wherever the clock interrupts the run.  The parameters stand in one vector: W (n_in,
n_out) and b (n_out,) of the first layer, then of the next; behind them, where there is batch normalisation, scale,
running mean and running variance (n_out,) of each hidden layer.  For training the weights may stand otherwise: see
layouts.pyx.

Batch normalisation couples the rows of a batch, so that it is one block in one lane.  Its layers are shared out by
slices of units instead, which depend on the widths and the number of rows alone.
"""

from typing import NamedTuple

from cython.parallel cimport prange
from cython cimport floating
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t

from .activations cimport activate, backprop_activation
from .affine cimport affine_backward_bias, affine_backward_input, affine_backward_weight, affine_forward
from .dense cimport backward_share, dense_backward_input, dense_backward_weight, dense_forward, forward_share
from .dropout cimport drop_units
from .layouts cimport (
    N_SLICES, PANELS, STORED, TRANSPOSED, arrange, limit_panels, slice_begin, slices_at_most, slices_backward,
    slices_forward, slices_of, transposes_output)
from .losses cimport TargetStore, loss_rows, open_targets, sum_of_weights
from .model cimport Batch, Model, leaves_slopes, now, weight_size
from .normalisation cimport backprop_normalise, move_statistics, normalise
from .rows cimport (
    CSR, LINE_BYTES, RowsAhead, RowStore, dense_rows, find_rows, lie_ready, open_rows, rows_ahead)
from .sparse cimport (
    BlockStore, ColumnStore, block_at, column_work_size, columns_backward_weight, columns_in, open_blocks, scale_rows,
    sort_by_column, sparse_backward_weight, sparse_forward)
from .touched cimport step_touched, touch_columns
from .units cimport climb_by_units, units_work_size
from .updates cimport (
    NO_UPDATE, Step, StepStore, clipped, limit_norms, open_steps, penalty, step_at, sum_of_squares, update_range)

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
    /* What stands there, which others find one larger.  Without a lock if possible: a fork may leave one closed. */
    static inline Py_ssize_t fastnn_take(Py_ssize_t* next) {
    #if defined(__GNUC__)
        return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    #else
        Py_ssize_t taken;
    #ifdef _OPENMP
    #pragma omp critical(fastnn_take)
    #endif
        taken = (*next)++;
        return taken;
    #endif
    }
    """
    const bint FASTNN_OPENMP
    const unsigned int FLUSH_TO_ZERO
    unsigned int float_control() noexcept nogil
    void set_float_control(unsigned int control) noexcept nogil
    Py_ssize_t fastnn_take(Py_ssize_t* next) noexcept nogil

cdef enum:
    LANES = 8               # the most lanes a batch is cut into, and so the most threads that can help
    MIN_LANE_ROWS = 256     # below this a lane's own gradient costs more than it gains
    UPDATE_CHUNK = 16384    # numbers, of all lanes' gradients, from which a thread updates parameters at a time
    UNITS_PRODUCT = 300000  # multiply-adds forward below which a batch is not worth a barrier
    BLOCK_ROWS = 2 * MIN_LANE_ROWS  # rows that a product takes at a time
    TEAM_ROWS = 128         # that are taken at a time where a large batch is shared out by units

MAX_LANES = LANES

#: What each layer has in `Space.penalties`.
N_PENALTIES = N_SLICES

#: A block, also where units are shared out, has no more rows than this; without batch normalisation.
MAX_BLOCK_ROWS = BLOCK_ROWS

#: Whether the kernels were compiled with OpenMP; without it everything runs on one thread.
HAS_OPENMP = bool(FASTNN_OPENMP)


class Architecture(NamedTuple):
    """Shape of a network.

    sizes : (n_layers + 1,) intp, input first
    activations : (n_layers - 1,) int32, codes of ACTIVATIONS, one a hidden layer
    dropout : (n_layers - 1,) float64, share of each hidden layer's outputs that training drops, or None
    key : of the epoch's masks
    batch_norm : whether training normalises the hidden layers over each batch; for `forward` the running statistics
        must have been folded into weights and biases instead
    """

    sizes: object
    activations: object
    dropout: object = None
    key: int = 0
    batch_norm: bool = False


class Space(NamedTuple):
    """Work space of `train`, and how far it has come.

    gradients : (n_lanes, n_parameters or more), zeros; with update "none" the gradient is left in its first row
    work : of `work_shape`
    block_rows : rows that go forward and backward at a time; with batch normalisation a whole batch's
    position : (1 + n_lanes,), zeros at the start of an epoch: first row of the current batch, rows done by each lane
    log_likelihood : (1 + n_lanes,), zeros at the start of an epoch: weighted sum over the finished batches, in nats,
        and over the rows that each lane has done.  Not finite after the call: the batch at position[0] diverged, and
        its step was not taken.
    penalties : (n_layers, N_PENALTIES), zeros at the start of an epoch: sum over the finished batches of what the
        penalties take off the objective, times the weight of the batch; to be added up
    layout : of `layouts.LAYOUTS`; parameters, state and gradients are as `layouts.rearrange` makes them, as long as
        `layouts.vector_size` says.  "slices" are for batches of sparse rows that are shared out by units, and others of
        sparse rows know nothing but "stored".
    nonzeros : room for so many non-zeros of min(batch_size, MAX_BLOCK_ROWS) rows, sorted by column; 0: not sorted
    touched : (1 + 2 n_in,), zeros at the start of an epoch: sparse rows move the rows of the first weight that they
        touch alone, and `touched.bring_up_to_date` the others in the end; work space is then that of touches=True,
        all steps are alike, and the first weight's penalty is left out of penalties
    blocks : SortedBlocks of X, for rows as they are stored, with bounds of block_bounds(n, batch_size, rows, in_lanes),
        where rows is what rows_at_once says, and batches are in lanes unless they go by units or are normalised
    """

    gradients: object
    work: object
    block_rows: int
    position: object
    log_likelihood: object
    penalties: object
    layout: int = STORED
    nonzeros: int = 0
    touched: object = None
    blocks: object = None


cdef Model open_model(object architecture, Py_ssize_t nonzeros=0, int layout=STORED,
                      bint is_sparse=False) except *:
    # The caller keeps the architecture alive.
    cdef Model model
    cdef Py_ssize_t k
    cdef const Py_ssize_t[::1] sizes = architecture.sizes
    cdef const int[::1] activations = architecture.activations
    cdef const double[::1] dropout
    model.n_layers = sizes.shape[0] - 1
    model.norms = model.widest = model.n_hidden_units = 0
    for k in range(model.n_layers):
        model.norms += (sizes[k] + 1) * sizes[k + 1]
        model.widest = max(model.widest, sizes[k + 1])
        model.n_hidden_units += sizes[k + 1] if k < model.n_layers - 1 else 0
    model.normalises = architecture.batch_norm and model.n_hidden_units > 0
    model.n_parameters = model.norms + (3 * model.n_hidden_units if model.normalises else 0)
    model.n_threads = 1
    model.sizes = &sizes[0]
    model.row_size = 0 if is_sparse else sizes[0]
    model.activations = &activations[0] if activations.shape[0] else NULL
    model.nonzeros = nonzeros
    model.layout = layout
    model.output_transposed = layout != STORED and transposes_output(sizes)
    model.first_size = sizes[0] * sizes[1]
    model.blocks = NULL
    model.dropout = NULL
    if architecture.dropout is not None and activations.shape[0]:
        dropout = architecture.dropout
        model.dropout = &dropout[0]
    model.key = architecture.key
    model.has_slopes = False
    for k in range(model.n_layers - 1):
        model.has_slopes = model.has_slopes or leaves_slopes(&model, k)
    return model


cdef Py_ssize_t lanes_of(Py_ssize_t n_rows) noexcept nogil:
    return min(<Py_ssize_t> LANES, max(<Py_ssize_t> 1, n_rows // MIN_LANE_ROWS))


cdef bint goes_by_units(const Model* model, Py_ssize_t batch_size, int update) noexcept nogil:
    # Large batches of sparse rows do where layers are wide: a lane's gradient would be too large for the cache.  Dense
    # ones gain less than they lose by waiting for each other.
    cdef int n_slices = slices_at_most(model)
    return (update != NO_UPDATE and not model.normalises and n_slices > 1
            and (lanes_of(batch_size) == 1 or (n_slices == N_SLICES and model.row_size == 0))
            and batch_size * model.n_parameters >= UNITS_PRODUCT)


cdef Py_ssize_t rows_by_units(Py_ssize_t batch_size) noexcept nogil:
    # Of a batch that is shared out by units, so many are taken at a time.
    return batch_size if lanes_of(batch_size) == 1 else TEAM_ROWS


cdef Py_ssize_t normalised_begin(const Model* model, Py_ssize_t block_rows) noexcept nogil:
    # Where a block's work space has what each hidden layer is before it is scaled, and then mean and variance of each;
    # before that the rows, the outputs of all layers, two gradients of hidden ones, slopes.
    cdef Py_ssize_t total = (model.row_size + model.n_hidden_units + model.sizes[model.n_layers] + 2 * model.widest
                             + (model.n_hidden_units if model.has_slopes else 0))
    return block_rows * total


cdef Py_ssize_t block_work_size(const Model* model, Py_ssize_t block_rows) noexcept nogil:
    # At the end sparse rows by column.  In whole lines of the cache.
    cdef Py_ssize_t size = (
        normalised_begin(model, block_rows) + (block_rows + 2) * (model.n_hidden_units if model.normalises else 0)
        + (column_work_size(model.sizes[0], model.nonzeros) if model.nonzeros else 0))
    cdef Py_ssize_t line = LINE_BYTES // sizeof(float)
    return (size + line - 1) // line * line


def work_shape(architecture, Py_ssize_t batch_size, Py_ssize_t block_rows, int update, Py_ssize_t nonzeros=0,
               bint touches=False, bint is_sparse=False):
    """Shape of the work space that batches of this size want: (n_lanes, numbers for each)."""
    cdef Model model = open_model(architecture, nonzeros, STORED, is_sparse)
    if touches or model.normalises:
        return 1, block_work_size(&model, block_rows)
    if goes_by_units(&model, batch_size, update):
        return 1, units_work_size(&model, rows_by_units(batch_size))
    return lanes_of(batch_size), block_work_size(&model, block_rows)


def go_by_units(architecture, Py_ssize_t batch_size, int update, bint is_sparse=False):
    """Whether batches of this size are shared out by units."""
    cdef Model model = open_model(architecture, 0, STORED, is_sparse)
    return goes_by_units(&model, batch_size, update)


def rows_at_once(architecture, Py_ssize_t batch_size, Py_ssize_t block_rows, int update):
    """How many sparse rows of a batch go forward and backward at a time."""
    cdef Model model = open_model(architecture, 0, STORED, True)
    if model.normalises:
        return batch_size
    return rows_by_units(batch_size) if goes_by_units(&model, batch_size, update) else min(block_rows, batch_size)


def block_bounds(Py_ssize_t n_rows, Py_ssize_t batch_size, Py_ssize_t block_rows, bint in_lanes):
    """First row of each block of all batches, and the number of rows; large batches may be cut into lanes first."""
    cdef Py_ssize_t begin, n, n_lanes, lane
    bounds = []
    for begin in range(0, n_rows, batch_size):
        n = min(batch_size, n_rows - begin)
        n_lanes = lanes_of(n) if in_lanes else 1
        for lane in range(n_lanes):
            bounds += range(begin + n * lane // n_lanes, begin + n * (lane + 1) // n_lanes, block_rows)
    return [*bounds, n_rows]


def forward_work_size(architecture, Py_ssize_t block_rows, bint is_sparse):
    """Numbers of work space that each lane of `forward` wants."""
    cdef Model model = open_model(architecture, 0, STORED, is_sparse)
    return block_work_size(&model, block_rows)


cdef int shares_of(const Model* model, Py_ssize_t k, Py_ssize_t n, Py_ssize_t width) noexcept nogil:
    # To how many threads the slices of a layer, or of that below, are shared out in layer k's products on n rows.
    if not model.normalises or n * model.sizes[k] * model.sizes[k + 1] < UNITS_PRODUCT:
        return 1
    return slices_of(width)


cdef inline RowsAhead next_rows(const Batch* batch, const floating* X, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    # The rows to fetch while n rows from position first on are used, so that no pass waits for the memory.
    return rows_ahead(batch.store, batch.order, first + n,
                      n if lie_ready(batch.store, X) and first + 2 * n <= batch.run_end else 0)


cdef void forward_units(const Model* model, const Batch* batch, Py_ssize_t k, Py_ssize_t first, Py_ssize_t n,
                        const floating* X, const Py_ssize_t* order, const floating* W, const floating* norm,
                        floating* Z, floating* slopes, floating* X_hat, floating* statistics, int first_slice,
                        int end_slice) noexcept nogil:
    # Some slices of layer k, whose parameters are W and norm, for n rows from position first on.  X is NULL where they
    # are sparse, slopes and X_hat where the layer has none.
    cdef Py_ssize_t n_in = model.sizes[k], n_out = model.sizes[k + 1], block, at, rows, i
    cdef Py_ssize_t begin = slice_begin(n_out, first_slice), end = slice_begin(n_out, end_slice)
    cdef const floating* b = W + weight_size(model, k) + begin
    cdef const floating* added = b
    cdef RowsAhead ahead
    if X_hat != NULL:  # the mean would take a constant off again
        added = NULL
    for block in range((n + BLOCK_ROWS - 1) // BLOCK_ROWS):
        at = block * BLOCK_ROWS
        rows = min(<Py_ssize_t> BLOCK_ROWS, n - at)
        if k == 0 and X == NULL:
            sparse_forward(batch.store, batch.order, first + at, rows, W + begin, n_out, added,
                           Z + at * n_out + begin, n_out, end - begin)
        elif k == 0 and model.layout == TRANSPOSED:
            ahead = next_rows(batch, X, first + at, rows)
            find_rows(&ahead)
            ahead = forward_share(&ahead)
            dense_forward(X + (at * n_in if order == NULL else 0), order + at if order != NULL else order, n_in,
                          W + begin * n_in, n_in, added, Z + at * n_out + begin, n_out, rows, n_in, end - begin,
                          &ahead)
        elif k == 0 and model.layout == PANELS:
            slices_forward(model, first_slice, end_slice, X + at * n_in, W, added, Z + at * n_out + begin, n_out, rows,
                           NULL)
        elif k == model.n_layers - 1 and model.output_transposed:
            dense_forward(X + at * n_in, NULL, n_in, W + begin * n_in, n_in, added, Z + at * n_out + begin, n_out,
                          rows, n_in, end - begin, NULL)
        else:
            affine_forward(X + at * n_in, n_in, W + begin, n_out, added, Z + at * n_out + begin, n_out, rows, n_in,
                           end - begin)
    if k == model.n_layers - 1:
        return
    if X_hat != NULL:
        normalise(Z + begin, X_hat + begin, n_out, norm + begin, b, statistics + begin, statistics + n_out + begin, n,
                  end - begin)
    if end - begin == n_out:
        activate(model.activations[k], Z, slopes, n * n_out)
    else:
        for i in range(n):
            activate(model.activations[k], Z + i * n_out + begin,
                     slopes + i * n_out + begin if slopes != NULL else slopes, end - begin)
    if slopes != NULL and model.dropout != NULL:
        drop_units(Z + begin, slopes + begin, n_out, n, end - begin, model.dropout[k], model.key, <int> k, first, begin,
                   n_out)


cdef const floating* forward_block(const Model* model, const Batch* batch, Py_ssize_t first, Py_ssize_t n,
                                   const floating* parameters, Py_ssize_t block_rows, floating* work,
                                   floating* Z_out, floating* slopes, floating* X_hat,
                                   const Py_ssize_t** order_out) noexcept nogil:
    # Leaves the output of each hidden layer in work, behind the rows themselves, and those of the last in Z_out.
    # Training gives a place for slopes, and has units dropped; and one for X_hat, and has them normalised.
    # Returns the dense rows and their order as `dense_rows` does, NULL if they are sparse.
    cdef Py_ssize_t k, n_out
    cdef int share, n_shares
    cdef const floating* W = parameters
    cdef const floating* norm = parameters + model.norms
    cdef const floating* X = NULL
    cdef const floating* Y
    cdef const Py_ssize_t* order = NULL
    cdef floating* Z = work + block_rows * model.row_size
    cdef floating* S
    cdef floating* statistics = X_hat + block_rows * model.n_hidden_units if X_hat != NULL else X_hat
    if batch.store.kind != CSR:
        X = dense_rows(batch.store, batch.order, first, n, work, order_out if model.layout == TRANSPOSED else NULL)
        order = order_out[0] if model.layout == TRANSPOSED else NULL
    Y = X
    for k in range(model.n_layers):
        n_out = model.sizes[k + 1]
        S = slopes
        if k == model.n_layers - 1:
            Z = Z_out
            S = X_hat = NULL
        elif not leaves_slopes(model, k):
            S = NULL
        n_shares = shares_of(model, k, n, n_out)
        if n_shares == 1:
            forward_units(model, batch, k, first, n, Y, order, W, norm, Z, S, X_hat, statistics, 0, slices_of(n_out))
        else:
            for share in prange(n_shares, num_threads=min(model.n_threads, n_shares), schedule="static"):
                forward_units(model, batch, k, first, n, Y, order, W, norm, Z, S, X_hat, statistics, share, share + 1)
        if slopes != NULL:
            slopes += block_rows * n_out
        if X_hat != NULL:
            X_hat += block_rows * n_out
            statistics += 2 * n_out
            norm += 3 * n_out
        Y = Z
        Z += block_rows * n_out
        W += weight_size(model, k) + n_out
    return X


cdef void backward_units(const Model* model, const Batch* batch, Py_ssize_t k, Py_ssize_t first, Py_ssize_t n,
                         const floating* X, const Py_ssize_t* order, const ColumnStore* columns, const floating* dZ,
                         floating* dW, int first_slice, int end_slice, floating alpha,
                         floating beta) noexcept nogil:
    # dW of layer k = alpha * gradient + beta * dW, for some of its slices; X and order as for `forward_units`, columns
    # NULL where sparse rows were not sorted.
    cdef Py_ssize_t n_in = model.sizes[k], n_out = model.sizes[k + 1], block, at, rows
    cdef Py_ssize_t begin = slice_begin(n_out, first_slice), end = slice_begin(n_out, end_slice)
    cdef RowsAhead ahead
    if k == 0 and columns != NULL:
        scale_rows(dW + begin, n_out, n_in, end - begin, beta)
        columns_backward_weight(columns, dZ + begin, n_out, dW + begin, n_out, end - begin, alpha)
        return
    if k == 0 and X == NULL:
        sparse_backward_weight(batch.store, batch.order, first, n, dZ + begin, n_out, dW + begin, n_out, end - begin,
                               alpha, beta)
        return
    for block in range((n + BLOCK_ROWS - 1) // BLOCK_ROWS):
        at = block * BLOCK_ROWS
        rows = min(<Py_ssize_t> BLOCK_ROWS, n - at)
        if k == 0 and model.layout == TRANSPOSED:
            ahead = next_rows(batch, X, first + at, rows)
            ahead = backward_share(&ahead)
            dense_backward_weight(X + (at * n_in if order == NULL else 0), order + at if order != NULL else order,
                                  n_in, dZ + at * n_out + begin, n_out, dW + begin * n_in, n_in, rows, n_in,
                                  end - begin, alpha, beta, &ahead)
        elif k == 0 and model.layout == PANELS:
            slices_backward(model, first_slice, end_slice, X + at * n_in, dZ + at * n_out + begin, n_out, dW, rows,
                            alpha, beta)
        elif k == model.n_layers - 1 and model.output_transposed:
            dense_backward_weight(X + at * n_in, NULL, n_in, dZ + at * n_out + begin, n_out, dW + begin * n_in, n_in,
                                  rows, n_in, end - begin, alpha, beta, NULL)
        else:
            affine_backward_weight(X + at * n_in, n_in, dZ + at * n_out + begin, n_out, dW + begin, n_out, rows, n_in,
                                   end - begin, alpha, beta)
        beta = 1


cdef void backward_below(const Model* model, Py_ssize_t k, Py_ssize_t n, const floating* dZ, const floating* W,
                         const floating* Y, const floating* slopes, const floating* X_hat,
                         const floating* statistics, const floating* norm, floating* dY, floating* dbias,
                         floating* dnorm, Py_ssize_t begin, Py_ssize_t end, floating alpha,
                         floating beta) noexcept nogil:
    # From the gradient dZ of layer k, whose weight is W, that of the layer below, whose output is Y: dY, before the
    # activation and, if there is X_hat, before the normalisation, whose parameters go along.  Units begin to end.
    # A transposed output layer has left its product in dY already.
    cdef Py_ssize_t n_in = model.sizes[k], n_out = model.sizes[k + 1], i
    if k < model.n_layers - 1 or not model.output_transposed:
        affine_backward_input(dZ, n_out, W + begin * n_out, n_out, dY + begin, n_in, n, end - begin, n_out)
    if end - begin == n_in:
        backprop_activation(model.activations[k - 1], Y, slopes, dY, n * n_in)
    else:
        for i in range(n):
            backprop_activation(model.activations[k - 1], Y + i * n_in + begin,
                                slopes + i * n_in + begin if slopes != NULL else slopes, dY + i * n_in + begin,
                                end - begin)
    if X_hat != NULL:
        backprop_normalise(X_hat + begin, dY + begin, n_in, statistics + n_in + begin, norm + begin, dnorm + begin,
                           dbias + begin, n, end - begin, alpha, beta)


cdef double climb_block(const Model* model, const Batch* batch, Py_ssize_t first, Py_ssize_t n,
                        const floating* parameters, Py_ssize_t block_rows, floating* work,
                        floating* target, double alpha, double first_beta, double weight_beta,
                        double bias_beta) noexcept nogil:
    # Forward and backward on n rows of a batch: target = alpha * gradient + beta * target, where the
    # gradient is that of the batch's mean log-likelihood.  Returns the sum of these rows' own; where
    # that is not finite, target is left alone.  target may be the parameters themselves.  beta may differ for the
    # first weight, the other weights, and biases and scales.
    cdef Py_ssize_t k, n_in, n_out, last = model.n_layers - 1
    cdef Py_ssize_t offset = model.norms, norm = model.n_parameters
    cdef int share, n_shares
    cdef floating* dZ = work + block_rows * model.row_size
    cdef floating* Y
    cdef floating* dY
    cdef floating* spare
    cdef floating* slopes = NULL
    cdef floating* X_hat = NULL
    cdef floating* statistics = NULL
    cdef const floating* S
    cdef const floating* X
    cdef const floating* inputs
    cdef const Py_ssize_t* order = NULL
    cdef ColumnStore columns
    cdef const ColumnStore* sorted_rows = NULL
    cdef double log_likelihood, beta
    for k in range(last):
        dZ += block_rows * model.sizes[k + 1]
    Y = dZ
    dY = dZ + block_rows * model.sizes[last + 1]
    spare = dY + block_rows * model.widest
    if model.has_slopes:
        slopes = spare + block_rows * model.widest
    if model.normalises:
        X_hat = work + normalised_begin(model, block_rows)
    X = forward_block(model, batch, first, n, parameters, block_rows, work, dZ, slopes, X_hat, &order)
    log_likelihood = loss_rows(batch.targets, first, dZ, n, model.sizes[last + 1], batch.total)
    if not isfinite(log_likelihood):
        return log_likelihood
    if model.has_slopes:
        slopes += block_rows * model.n_hidden_units
    if model.normalises:
        X_hat += block_rows * model.n_hidden_units
        statistics = X_hat + 2 * model.n_hidden_units
    if X == NULL and model.blocks != NULL:
        columns = block_at(model.blocks, batch.store, first, dZ)
        sorted_rows = &columns
    elif X == NULL and model.nonzeros:
        columns = columns_in(
            work + block_work_size(model, block_rows) - column_work_size(model.sizes[0], model.nonzeros),
            model.sizes[0], model.nonzeros)
        sort_by_column(batch.store, batch.order, first, n, 0, &columns, dZ)
        sorted_rows = &columns
    for k in range(last, -1, -1):
        n_in, n_out = model.sizes[k], model.sizes[k + 1]
        offset -= weight_size(model, k) + n_out
        if k > 0:
            # The old weights carry the gradient down, so this stands before their update.
            Y -= block_rows * n_in
            if model.has_slopes:
                slopes -= block_rows * n_in
            if model.normalises:
                X_hat -= block_rows * n_in
                statistics -= 2 * n_in
                norm -= 3 * n_in
            S = slopes if leaves_slopes(model, k - 1) else NULL
            if k == last and model.output_transposed:
                dense_backward_input(dZ, parameters + offset, n_in, dY, n_in, spare, n, n_in, n_out)
            n_shares = shares_of(model, k, n, n_in)
            if n_shares == 1:
                backward_below(model, k, n, dZ, parameters + offset, Y, S, X_hat, statistics, parameters + norm, dY,
                               target + offset - n_in, target + norm, 0, n_in, <floating> alpha, <floating> bias_beta)
            else:
                for share in prange(n_shares, num_threads=min(model.n_threads, n_shares), schedule="static"):
                    backward_below(model, k, n, dZ, parameters + offset, Y, S, X_hat, statistics, parameters + norm,
                                   dY, target + offset - n_in, target + norm, slice_begin(n_in, share),
                                   slice_begin(n_in, share + 1), <floating> alpha, <floating> bias_beta)
        inputs = X
        if k > 0:
            inputs = Y
        beta = weight_beta if k > 0 else first_beta
        n_shares = shares_of(model, k, n, n_out)
        if n_shares == 1:
            backward_units(model, batch, k, first, n, inputs, order, sorted_rows, dZ, target + offset, 0,
                           slices_of(n_out), <floating> alpha, <floating> beta)
        else:
            for share in prange(n_shares, num_threads=min(model.n_threads, n_shares), schedule="static"):
                backward_units(model, batch, k, first, n, inputs, order, sorted_rows, dZ, target + offset, share,
                               share + 1, <floating> alpha, <floating> beta)
        if k == last or not model.normalises:
            affine_backward_bias(dZ, n_out, target + offset + weight_size(model, k), n, n_out,
                                 <floating> alpha, <floating> bias_beta)
        if k == last:
            dZ, dY = dY, spare
        else:
            dZ, dY = dY, dZ
    return log_likelihood


cdef void climb_lane(const Model* model, const Batch* batch, Py_ssize_t lane, Py_ssize_t n_lanes,
                     const floating* parameters, Py_ssize_t block_rows, floating* work, floating* gradient,
                     Py_ssize_t* done, double* log_likelihood, double deadline, bint cleared) noexcept nogil:
    # Goes on with one lane of a batch until it is finished or time is up, by one block at least, or a thread that never
    # gets its processor in time would not come on.  cleared: the first weight's gradient is 0 already where it matters.
    cdef Py_ssize_t first = batch.n_rows * lane // n_lanes
    cdef Py_ssize_t n_rows = batch.n_rows * (lane + 1) // n_lanes - first
    cdef Py_ssize_t n, at = done[0]
    cdef double beta, sum_ = log_likelihood[0]
    while at < n_rows:
        n = min(block_rows, n_rows - at)
        beta = 0 if at == 0 else 1
        sum_ += climb_block(model, batch, batch.first + first + at, n, parameters, block_rows, work, gradient, 1,
                            1 if cleared else beta, beta, beta)
        at += n
        if now() >= deadline:
            break
    # Once, since what other threads write is in the same line of the cache.
    done[0], log_likelihood[0] = at, sum_


cdef void climb_lanes(const Model* model, const Batch* batch, Py_ssize_t n_lanes, const floating* parameters,
                      Py_ssize_t block_rows, floating* work, Py_ssize_t work_size, floating* gradients,
                      Py_ssize_t lane_size, Py_ssize_t* done, double* log_likelihood, double deadline,
                      int n_threads) noexcept nogil:
    # All lanes.  A thread begins with lanes that follow each other, so that the rows it fetches ahead are its own, and
    # then helps the others.
    cdef Py_ssize_t[LANES] next_lane
    cdef Py_ssize_t* next_ = &next_lane[0]
    cdef Py_ssize_t lane
    cdef int thread, turn, owner
    for thread in range(n_threads):
        next_[thread] = n_lanes * thread // n_threads
    for thread in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        for turn in range(n_threads):
            owner = (thread + turn) % n_threads
            lane = fastnn_take(next_ + owner)
            while lane < n_lanes * (owner + 1) // n_threads:
                climb_lane(model, batch, lane, n_lanes, parameters, block_rows, work + lane * work_size,
                           gradients + lane * lane_size, done + lane, log_likelihood + lane, deadline, False)
                lane = fastnn_take(next_ + owner)


cdef void update_chunk(const Step* step, bint is_weight, floating* parameters, floating* gradients,
                       Py_ssize_t n_lanes, Py_ssize_t lane_size, floating* state,
                       Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t lane, i
    cdef const floating* other
    for lane in range(1, n_lanes):
        other = gradients + lane * lane_size
        for i in range(begin, end):
            gradients[i] += other[i]
    update_range(step, is_weight, parameters, gradients, state, begin, end)


cdef void update_span(const Step* step, bint is_weight, floating* parameters, floating* gradients,
                      Py_ssize_t n_lanes, Py_ssize_t lane_size, floating* state,
                      Py_ssize_t begin, Py_ssize_t end, int n_threads) noexcept nogil:
    # Adds the lanes' gradients up, in order, into the first; moves the parameters.
    cdef Py_ssize_t size = UPDATE_CHUNK // n_lanes, chunk, n_chunks = (end - begin + size - 1) // size
    if n_chunks == 1:
        update_chunk(step, is_weight, parameters, gradients, n_lanes, lane_size, state, begin, end)
        return
    for chunk in prange(n_chunks, num_threads=min(n_threads, n_chunks), schedule="static"):
        update_chunk(step, is_weight, parameters, gradients, n_lanes, lane_size, state,
                     begin + chunk * size, min(end, begin + (chunk + 1) * size))


cdef void add_penalties(const Model* model, const Step* step, const floating* parameters, double weight,
                        double* penalties, bint touches) noexcept nogil:
    # Those of all weights before a step; rows of the first that a batch does not touch may not be up to date.
    cdef Py_ssize_t k, size, begin = 0
    for k in range(model.n_layers):
        size = weight_size(model, k)
        if k > 0 or not touches:
            penalties[k * N_SLICES] += weight * penalty(step, parameters + begin, size)
        begin += size + model.sizes[k + 1]


cdef void limit_hidden_norms(const Model* model, double limit, floating* parameters,
                             floating* scratch) noexcept nogil:
    cdef Py_ssize_t k, n_in, n_out, begin = 0
    for k in range(model.n_layers - 1):
        n_in, n_out = model.sizes[k], model.sizes[k + 1]
        if k == 0 and model.layout == TRANSPOSED:
            limit_norms(parameters, n_in, n_out, n_in, True, scratch, limit)
        elif k == 0 and model.layout == PANELS:
            limit_panels(model, 0, slices_of(n_out), limit, parameters, scratch)
        else:
            limit_norms(parameters + begin, n_out, n_in, n_out, False, scratch, limit)
        begin += weight_size(model, k) + n_out


cdef void take_step(const Model* model, const StepStore* steps, Step* step, floating* parameters, floating* state,
                    floating* gradients, Py_ssize_t lane_size, Py_ssize_t n_lanes, Py_ssize_t batch,
                    int64_t* touched, int n_threads) noexcept nogil:
    # From the gradients of all lanes.
    cdef Py_ssize_t k, n_weights, begin = 0
    if steps.clip_norm > 0:
        step.update = NO_UPDATE  # the gradients are only added up
        update_span(step, False, parameters, gradients, n_lanes, lane_size, state, 0, model.n_parameters,
                    n_threads)
        n_lanes = 1
        step.update, step.scale = steps.update, clipped(sum_of_squares(gradients, model.n_parameters), steps.clip_norm)
    for k in range(model.n_layers):
        n_weights = weight_size(model, k)
        if k == 0 and touched != NULL:
            step_touched(step, parameters, state, gradients, model.sizes[0], model.sizes[1], touched, batch)
        else:
            update_span(step, True, parameters, gradients, n_lanes, lane_size, state, begin,
                        begin + n_weights, n_threads)
        begin += n_weights
        update_span(step, False, parameters, gradients, n_lanes, lane_size, state, begin,
                    begin + model.sizes[k + 1], n_threads)
        begin += model.sizes[k + 1]
    for k in range(model.n_layers - 1 if model.normalises else 0):
        update_span(step, False, parameters, gradients, n_lanes, lane_size, state, begin,
                    begin + model.sizes[k + 1], n_threads)
        begin += 3 * model.sizes[k + 1]


cdef void move_running_statistics(const Model* model, floating* parameters, Py_ssize_t block_rows,
                                  const floating* work, Py_ssize_t n) noexcept nogil:
    # By what `climb_block` has left of the batch's n rows.
    cdef Py_ssize_t k, n_units
    cdef floating* norm = parameters + model.norms
    cdef const floating* statistics = work + normalised_begin(model, block_rows) + block_rows * model.n_hidden_units
    for k in range(model.n_layers - 1):
        n_units = model.sizes[k + 1]
        move_statistics(statistics, statistics + n_units, norm + n_units, norm + 2 * n_units, n, n_units)
        statistics += 2 * n_units
        norm += 3 * n_units


cdef void climb_by_rows(const Model* model, const Batch* run, Py_ssize_t batch_size, const StepStore* steps,
                        floating* parameters, floating* state, floating* gradients, Py_ssize_t lane_size,
                        floating* work, Py_ssize_t work_size, Py_ssize_t block_rows, Py_ssize_t* position,
                        double* log_likelihood, double* penalties, double deadline, int n_threads,
                        int64_t* touched) noexcept nogil:
    # Batch after batch, from position[0] on, until the rows end, a log-likelihood is not finite or time is up.
    # run.n_rows counts all rows.
    cdef Batch batch = run[0]
    cdef Step step
    cdef Py_ssize_t lane, n_lanes, total_done
    # Sparse rows are one block where that spares them a gradient as large as the parameters.
    cdef Py_ssize_t most = 2 * MIN_LANE_ROWS if run.store.kind == CSR else MIN_LANE_ROWS
    cdef double sum_, rate
    while position[0] < run.n_rows:
        batch.first = position[0]
        batch.n_rows = min(batch_size, run.n_rows - batch.first)
        batch.total = sum_of_weights(batch.targets, batch.first, batch.n_rows)
        step = step_at(steps, batch.first // batch_size)
        if touched == NULL and steps.folds and (model.normalises or batch.n_rows <= min(block_rows, most)):
            # A plain step on one block: the gradient products write the new parameters themselves.
            if steps.penalised:
                add_penalties(model, &step, parameters, batch.total, penalties, False)
            rate = step.hyperparameters[0]
            sum_ = climb_block(model, &batch, batch.first, batch.n_rows, parameters, block_rows, work, parameters,
                               rate, 1 - rate * step.l2, 1 - rate * step.l2, 1)
            log_likelihood[0] += sum_
            if not isfinite(sum_):
                return
            if model.normalises:
                move_running_statistics(model, parameters, block_rows, work, batch.n_rows)
            if steps.max_norm > 0:
                limit_hidden_norms(model, steps.max_norm, parameters, work)
            position[0] += batch.n_rows
            if now() >= deadline:
                return
            continue
        n_lanes = lanes_of(batch.n_rows) if touched == NULL and not model.normalises else 1
        if touched != NULL:
            touch_columns(&batch, &step, parameters, state, gradients, model.sizes[1], touched,
                          position[0] // batch_size)
        if n_lanes == 1:
            climb_lane(model, &batch, 0, 1, parameters, block_rows, work, gradients, &position[1],
                       &log_likelihood[1], deadline, touched != NULL)
        else:
            climb_lanes(model, &batch, n_lanes, parameters, block_rows, work, work_size, gradients, lane_size,
                        &position[1], &log_likelihood[1], deadline, min(n_threads, <int> n_lanes))
        total_done = 0
        sum_ = 0
        for lane in range(n_lanes):
            total_done += position[1 + lane]
            sum_ += log_likelihood[1 + lane]
        if not isfinite(sum_):
            log_likelihood[0] = -INFINITY
            return
        if total_done < batch.n_rows:
            return
        if steps.penalised:
            add_penalties(model, &step, parameters, batch.total, penalties, touched != NULL)
        take_step(model, steps, &step, parameters, state, gradients, lane_size, n_lanes, batch.first // batch_size,
                  touched, n_threads)
        if model.normalises and steps.update != NO_UPDATE:
            move_running_statistics(model, parameters, block_rows, work, batch.n_rows)
        if steps.max_norm > 0:
            limit_hidden_norms(model, steps.max_norm, parameters, work)
        log_likelihood[0] += sum_
        position[0] += batch.n_rows
        for lane in range(n_lanes):
            position[1 + lane] = 0
            log_likelihood[1 + lane] = 0
        if now() >= deadline:
            return


cdef unsigned int flush_denormals(unsigned int control, int n_threads) noexcept nogil:
    # Has all threads of the team treat numbers too small to be normal as zero, or whatever control says.  Weights that
    # only a penalty moves, as those of pixels that are always black, come down to them, and each operation on them
    # takes as long as a hundred others.  Returns what stood there.
    cdef unsigned int before = float_control()
    cdef int _
    set_float_control(control)  # outside, too: LLVM's OpenMP puts back what its caller had before a parallel region
    for _ in prange(n_threads, num_threads=n_threads, schedule="static", chunksize=1):
        set_float_control(control)
    return before


def train(X, targets, const Py_ssize_t[::1] order, Py_ssize_t batch_size, architecture, floating[::1] parameters,
          floating[:, ::1] state, steps, space, double seconds, int n_threads):
    """Train on batch after batch of one epoch, until it ends, diverges or the time is up; call again to go on.

    Each step ascends the batch's weighted mean log-likelihood minus the penalties.

    X : (n, n_in) array or CSRRows;  order : (n,) rows in the order to take, or None
    targets : Targets of the rows in that order
    architecture : Architecture
    parameters : (n_parameters,), updated in place;  state : (n_slots, n_parameters), the optimizer's
    steps : Steps
    space : Space
    seconds : time after which to return
    """
    cdef RowStore store = open_rows(X)
    cdef TargetStore target_store = open_targets(targets)
    cdef Model model = open_model(architecture, space.nonzeros, space.layout, store.kind == CSR)
    cdef StepStore step_store = open_steps(steps, state.shape[1])
    cdef Batch run
    cdef floating[:, ::1] gradients = space.gradients, work = space.work
    cdef Py_ssize_t[::1] position = space.position
    cdef double[::1] log_likelihood = space.log_likelihood
    cdef double[:, ::1] penalties = space.penalties
    cdef int64_t[::1] touched
    cdef Py_ssize_t block_rows = space.block_rows
    cdef floating* state_ = &state[0, 0] if state.shape[0] else NULL
    cdef int64_t* touched_ = NULL
    cdef BlockStore block_store
    cdef bint by_units
    cdef double deadline
    cdef unsigned int control
    if position[0] >= targets.y.shape[0]:
        return
    run.store, run.targets = &store, &target_store
    if order is None:
        run.order = NULL
    else:
        run.order = &order[0]
    run.first, run.n_rows = 0, targets.y.shape[0]
    run.run_end = run.n_rows
    if space.touched is not None:
        touched = space.touched
        touched_ = &touched[0]
    if space.blocks is not None:
        block_store = open_blocks(space.blocks, store.n_columns)
        model.blocks = &block_store
    model.n_threads = n_threads
    by_units = touched_ == NULL and goes_by_units(&model, batch_size, step_store.update)
    arrange(&model, sizeof(floating))
    with nogil:
        control = flush_denormals(float_control() | FLUSH_TO_ZERO, n_threads)
        deadline = now() + seconds
        if by_units:
            climb_by_units(&model, &run, batch_size, rows_by_units(batch_size), &step_store, &parameters[0], state_,
                           &gradients[0, 0], &work[0, 0], &position[0], &log_likelihood[0], &penalties[0, 0], deadline,
                           n_threads)
        else:
            climb_by_rows(&model, &run, batch_size, &step_store, &parameters[0], state_, &gradients[0, 0],
                          gradients.shape[1], &work[0, 0], work.shape[1], block_rows, &position[0], &log_likelihood[0],
                          &penalties[0, 0], deadline, n_threads, touched_)
        flush_denormals(control, n_threads)


def forward(X, Py_ssize_t first, architecture, const floating[::1] parameters, floating[:, ::1] work,
            Py_ssize_t block_rows, floating[:, ::1] Z_out, int n_threads):
    """Z_out (n, n_out) = last layer of the n rows of X that begin at first; work and block_rows as for train."""
    cdef RowStore store = open_rows(X)
    cdef Model model = open_model(architecture, 0, STORED, store.kind == CSR)
    cdef Batch batch
    cdef Py_ssize_t n_rows = Z_out.shape[0], lane, n_lanes = work.shape[0]
    batch.store = &store
    batch.order, batch.targets = NULL, NULL
    batch.first = first
    batch.n_rows = n_rows
    if n_rows == 0:
        return
    with nogil:
        for lane in prange(n_lanes, num_threads=min(n_threads, n_lanes), schedule="dynamic", chunksize=1):
            forward_lane(&model, &batch, lane, n_lanes, &parameters[0], block_rows, &work[lane, 0], &Z_out[0, 0])


cdef void forward_lane(const Model* model, const Batch* batch, Py_ssize_t lane, Py_ssize_t n_lanes,
                       const floating* parameters, Py_ssize_t block_rows, floating* work,
                       floating* Z_out) noexcept nogil:
    # Every n_lanes-th block of rows, from the lane's own on.
    cdef Py_ssize_t at = lane * block_rows
    while at < batch.n_rows:
        forward_block(model, batch, batch.first + at, min(block_rows, batch.n_rows - at), parameters, block_rows,
                      work, Z_out + at * model.sizes[model.n_layers], <floating*> NULL, <floating*> NULL, NULL)
        at += n_lanes * block_rows
