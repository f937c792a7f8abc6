from cython cimport floating
from libc.stdint cimport uint64_t

from .plan cimport PANELS, SPARSE, TRANSPOSED, Layer
from .rows cimport Cut, RowsAhead, RowStore
from .sparse cimport ColumnStore

# A layer's input: n rows.
cdef struct Inputs:
    Py_ssize_t first            # position of the first in the epoch
    Py_ssize_t n
    const void* X               # dense rows, of the network's dtype, or what sparse ones have of embeddings; NULL: none
    Cut cut                     # how the columns of X are cut
    const Py_ssize_t* order     # row i is row order[i] of X; NULL: row i
    RowsAhead ahead             # rows to prefetch meanwhile
    const RowStore* store       # sparse rows
    const Py_ssize_t* store_order
    const ColumnStore* columns  # non-zeros of sparse rows by column, in n_columns parts
    int n_columns


cdef inline int first_of_group(const Layer* layer, int group) noexcept nogil:
    # The first slice of a group.
    return layer.n_slices * group // layer.n_groups


cdef inline bint merges_slices(const Layer* layer) noexcept nogil:
    # Whether one product may take several slices: in this form they do not change each other's sums.
    return layer.form == PANELS


cdef inline bint takes_any_order(const Layer* layer) noexcept nogil:
    # Whether the first layer reads dense rows in place in any order.
    return layer.index == 0 and layer.form == TRANSPOSED


cdef inline bint takes_all_rows(const Layer* layer) noexcept nogil:
    # Whether a product takes all rows of a row block at a time.
    return layer.form == SPARSE


cdef inline bint shares_input_gradient(const Layer* layer) noexcept nogil:
    # Whether threads may share the gradient by the layer's input, each for some of the inputs.
    return layer.form != TRANSPOSED


cdef void layer_forward(const Layer* layer, const Inputs* rows, int s, int end, const floating* parameters,
                        const floating* b, floating* Z, const Cut* z) noexcept nogil

cdef void layer_backward_weight(const Layer* layer, const Inputs* rows, int s, int end, const floating* dZ,
                                const Cut* z, floating* target, floating alpha, floating beta) noexcept nogil

cdef void layer_backward_input(const Layer* layer, const floating* dZ, const Cut* z, const floating* parameters,
                               Py_ssize_t begin, Py_ssize_t end, floating* dX, const Cut* x, Py_ssize_t n,
                               floating* spare) noexcept nogil

cdef void group_backward_input(const Layer* layer, int group, const floating* dZ, const Cut* z,
                               const floating* parameters, Py_ssize_t begin, Py_ssize_t end, floating* dX, const Cut* x,
                               Py_ssize_t n) noexcept nogil

cdef void activate_units(const Layer* layer, floating* Z, floating* slopes, Py_ssize_t stride, Py_ssize_t first,
                         Py_ssize_t n, Py_ssize_t begin, Py_ssize_t end, bint is_whole, uint64_t key) noexcept nogil

cdef void backprop_units(const Layer* layer, const floating* Y, const floating* slopes, floating* dY,
                         Py_ssize_t stride, Py_ssize_t n, Py_ssize_t n_units, bint is_whole) noexcept nogil

cdef void limit_slice(const Layer* layer, int s, double limit, floating* parameters, floating* scratch) noexcept nogil
