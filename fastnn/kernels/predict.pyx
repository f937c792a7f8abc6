"""Predictions for a few rows, forward pass and all, in one call.

For a single row everything else takes longer than the products: checks, plans, arrays, context managers.  So there is
one test here that the rows are as the kernels need them; if not, they are declined, and go the ordinary way, which
says what is wrong with them.  Products are our tiles, not BLAS, so that a process may fork meanwhile.
"""

from cython cimport floating
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

cimport numpy as np

from .activations cimport SIGMOID, activate
from .affine cimport most_tiled_rows
from .columns cimport Encoder, Table, encode_row, raw
from .driver_rows cimport forward_shard
from .losses cimport BINARY_CROSS_ENTROPY, CROSS_ENTROPY
from .plan cimport CompiledPlan, Job, Layer, Plan
from .rows cimport CSR, FLOAT32, FLOAT64, UINT8, RowStore
from .softmax cimport softmax_rows

np.import_array()

cdef enum:
    DECLINED = -1
    NO_MEMORY = -2
    HELD_PRODUCT = 200_000  # multiply-adds up to which the GIL is kept: others wait for less than for its hand-over


cdef bint as_needed(object X, Py_ssize_t n_in, tuple input_shape, Py_ssize_t most_rows) noexcept:
    # Whether X is an array, not of a subclass, of a stored dtype, contiguous, and has from 1 to most_rows rows, flat or
    # of this shape.
    if not np.PyArray_CheckExact(X) or not np.PyArray_ISCARRAY_RO(X) or np.PyArray_NDIM(X) < 2:
        return False
    if np.PyArray_NDIM(X) > 2 and X.shape[1:] != input_shape and (*X.shape[1:], 1) != input_shape:
        return False
    cdef int number = np.PyArray_TYPE(X)
    if number != np.NPY_FLOAT32 and number != np.NPY_FLOAT64 and number != np.NPY_UINT8:
        return False
    return 1 <= np.PyArray_DIM(X, 0) <= most_rows and (np.PyArray_NDIM(X) > 2 or np.PyArray_DIM(X, 1) == n_in)


cdef bint all_below(const floating* values, Py_ssize_t n, double largest) noexcept nogil:
    # NaN is not below anything.
    cdef Py_ssize_t i, n_below = 0
    for i in range(n):
        n_below += fabs(values[i]) <= largest
    return n_below == n


cdef bint all_finite(const RowStore* store, double largest) noexcept nogil:
    # Whether the numbers are finite, in a dtype with this largest number too.
    cdef Py_ssize_t n = store.n_rows * store.n_columns
    if store.kind == FLOAT32:
        return all_below(<const float*> store.values, n, largest)
    return store.kind == UINT8 or all_below(<const double*> store.values, n, largest)


cdef bint none_infinite(const raw* X, Py_ssize_t n) noexcept nogil:
    # x - x is NaN of an infinity, and of NaN
    cdef Py_ssize_t i, n_infinite = 0
    for i in range(n):
        n_infinite += X[i] == X[i] and X[i] - X[i] != 0
    return n_infinite == 0


cdef bint encode_table(const Table* table, RowStore* store, const raw* X, char* memory,
                       const floating* number) noexcept nogil:
    # Makes the rows X (n, n_columns) of the store a CSR of their features, in memory; returns False if a number is
    # infinite.  The last argument is for its type only.
    cdef Py_ssize_t i, n = store.n_rows
    cdef int64_t* starts = <int64_t*> memory
    cdef floating* values = <floating*> (starts + n + 1)
    cdef int32_t* indices = <int32_t*> (values + n * table.most_active)
    cdef int32_t* codes = indices + n * table.most_active
    if not none_infinite(X, n * table.n_columns):
        return False
    starts[0] = 0
    for i in range(n):
        starts[i + 1] = starts[i] + encode_row(table, X + i * table.n_columns, indices + starts[i], values + starts[i],
                                               codes + i * table.n_codes)
    store.kind, store.values, store.columns, store.row_starts, store.codes = CSR, values, indices, starts, codes
    store.n_columns = table.n_features
    return True


cdef Py_ssize_t argmax(const floating* z, Py_ssize_t n) noexcept nogil:
    # As NumPy's: the first of equals, or the first NaN.
    cdef Py_ssize_t j, best = 0
    for j in range(1, n):
        if z[j] > z[best] or (z[j] != z[j] and z[best] == z[best]):
            best = j
    return best


cdef void choose(int loss, const floating* Z, Py_ssize_t n, Py_ssize_t n_out, Py_ssize_t* chosen) noexcept nogil:
    # The class of each row, or whether each label is more probable than not.
    cdef Py_ssize_t i
    if loss == CROSS_ENTROPY:
        for i in range(n):
            chosen[i] = argmax(Z + i * n_out, n_out)
    else:
        for i in range(n * n_out):
            chosen[i] = Z[i] > 0


cdef void to_probabilities(int loss, floating* Z, Py_ssize_t n, Py_ssize_t n_out) noexcept nogil:
    if loss == CROSS_ENTROPY:
        softmax_rows(Z, n, n_out)
    else:
        activate(SIGMOID, Z, <floating*> NULL, n * n_out)


cdef int forward(const Plan* plan, const Table* table, RowStore* store, const floating* parameters,
                 Py_ssize_t work_size, int loss, floating* Z, Py_ssize_t* chosen,
                 bint as_probabilities) noexcept nogil:
    # Z (n, n_out) = the outputs or, as_probabilities, what they say.  If Z is NULL, chosen has the classes or labels.
    cdef Job job
    cdef Py_ssize_t n = store.n_rows, n_out = plan.layers[plan.n_layers - 1].n_out, n_bytes = 0
    cdef char* memory
    cdef floating* work
    cdef floating* outputs
    cdef bint is_finite
    if table != NULL:
        n_bytes = 8 * (n + 1) + n * (table.most_active * (4 + sizeof(floating)) + 4 * table.n_codes)
        n_bytes = (n_bytes + 7) // 8 * 8    # what follows are floating
    elif not all_finite(store, FLT_MAX if sizeof(floating) == sizeof(float) else DBL_MAX):
        return DECLINED
    memory = <char*> malloc(n_bytes + (work_size + n * n_out) * sizeof(floating))
    if memory == NULL:
        return NO_MEMORY
    if table != NULL:
        if store.kind == FLOAT32:
            is_finite = encode_table(table, store, <const float*> store.values, memory, Z)
        else:
            is_finite = encode_table(table, store, <const double*> store.values, memory, Z)
        if not is_finite:
            free(memory)
            return DECLINED
    work = <floating*> (memory + n_bytes)
    outputs = Z if Z != NULL else work + work_size
    job.plan, job.store, job.order, job.key = plan, store, NULL, 0
    job.parameters, job.n_rows, job.n_threads = <void*> parameters, n, 1
    forward_shard(&job, 0, 0, plan.block_rows, work, outputs)
    if as_probabilities:
        to_probabilities(loss, outputs, n, n_out)
    if chosen != NULL:
        choose(loss, outputs, n, n_out, chosen)
    free(memory)
    return 0


cdef class FewRows:
    """Predictions for few rows by a network's parameters, which may change in place.

    plan : CompiledPlan of a forward pass;  input_shape : of a row;  parameters : (n_parameters,), as stored
    loss : code of LOSSES
    most_rows : at most; more are declined, and those that would go through BLAS
    encoder : Encoder of rows of a table, or None
    """

    cdef CompiledPlan _plan
    cdef Encoder _encoder       # keeps the table alive
    cdef const Table* _table    # NULL: X has no columns of a table
    cdef tuple _input_shape
    cdef object _parameters     # keeps the numbers alive
    cdef const void* _numbers
    cdef int _loss, _number
    cdef double _products       # multiply-adds of a row
    cdef Py_ssize_t _n_in, _n_out, _most_rows, _work_size

    def __init__(self, CompiledPlan plan, tuple input_shape, parameters, int loss, Py_ssize_t most_rows,
                 Encoder encoder=None):
        cdef const Layer* layer
        cdef Py_ssize_t n_in
        cdef int k
        self._encoder, self._table = encoder, NULL if encoder is None else &encoder.table
        self._plan, self._input_shape, self._parameters = plan, input_shape, parameters
        self._loss, self._most_rows = loss, most_rows
        self._products = sum(layer.facts.products for layer in plan.source.layers)
        # Neither layers on images nor the features of sparse rows use BLAS.
        for k in range(plan.plan.trunk.n_layers, plan.plan.n_layers):
            layer = &plan.plan.layers[k]
            n_in = layer.n_in if k or encoder is None else layer.n_embedded
            if n_in:
                self._most_rows = min(self._most_rows, most_tiled_rows(n_in, layer.n_out, parameters.itemsize))
        self._number, self._numbers = np.PyArray_TYPE(parameters), np.PyArray_DATA(parameters)
        self._n_in = plan.plan.layers[0].n_in if encoder is None else encoder.table.n_columns
        self._n_out = plan.plan.layers[plan.plan.n_layers - 1].n_out
        self._work_size = plan.source.work_size

    def predict(self, X):
        """Return what `Network.predict` does, or None if the rows go the ordinary way."""
        return self._answer(X, False)

    def predict_proba(self, X):
        """Return what `Network.predict_proba` does, or None if the rows go the ordinary way."""
        return self._answer(X, True)

    cdef object _answer(self, object X, bint as_probabilities):
        cdef RowStore store
        cdef np.npy_intp[2] shape
        cdef int status, number, n_dims = 2
        cdef void* Z = NULL
        cdef Py_ssize_t* chosen = NULL
        cdef bint classifies = self._loss == CROSS_ENTROPY or self._loss == BINARY_CROSS_ENTROPY
        if not as_needed(X, self._n_in, self._input_shape, self._most_rows) or as_probabilities and not classifies:
            return None
        number = np.PyArray_TYPE(X)
        if self._table != NULL and number == np.NPY_UINT8:  # here it is no pixel
            return None
        store.kind = FLOAT32 if number == np.NPY_FLOAT32 else FLOAT64 if number == np.NPY_FLOAT64 else UINT8
        store.n_rows, store.n_columns, store.values = np.PyArray_DIM(X, 0), self._n_in, np.PyArray_DATA(X)
        store.movement.height = 0
        store.columns = NULL
        store.row_starts = NULL
        store.codes = NULL
        store.n_codes = 0
        shape[0], shape[1] = store.n_rows, self._n_out
        number = self._number
        if classifies and not as_probabilities:
            number, n_dims = np.NPY_INTP, 1 if self._loss == CROSS_ENTROPY else 2
        found = np.PyArray_EMPTY(n_dims, shape, number, 0)
        if number == np.NPY_INTP:
            chosen = <Py_ssize_t*> np.PyArray_DATA(found)
        else:
            Z = np.PyArray_DATA(found)
        if store.n_rows * self._products <= HELD_PRODUCT:
            status = self._forward(&store, Z, chosen, as_probabilities)
        else:
            with nogil:
                status = self._forward(&store, Z, chosen, as_probabilities)
        if status == NO_MEMORY:
            raise MemoryError
        return None if status == DECLINED else found

    cdef int _forward(self, RowStore* store, void* Z, Py_ssize_t* chosen, bint as_probabilities) noexcept nogil:
        if self._number == np.NPY_FLOAT32:
            return forward(&self._plan.plan, self._table, store, <const float*> self._numbers, self._work_size,
                           self._loss, <float*> Z, chosen, as_probabilities)
        return forward(&self._plan.plan, self._table, store, <const double*> self._numbers, self._work_size,
                       self._loss, <double*> Z, chosen, as_probabilities)
