from cython cimport floating

from .affine cimport panels_size
from .model cimport Model, weight_size
from .rows cimport LINE_BYTES, RowsAhead

cdef enum:
    N_SLICES = 4    # the most slices of a layer, and so the most threads that can help
    MANY_UNITS = 200    # of a layer that has so many slices
    SLICE_UNITS = 10    # a narrower slice loses more in its products than a thread gains
    ALIGNED_UNITS = 8   # slices of wide layers begin at multiples of this
    PANEL_LINES = 8     # of a row of weights, that are multiplied at once with sparse rows

# How the weights stand while training.  But for the first case, that of the output layer, if it is long, is transposed.
cdef enum:
    STORED          # all of them as (n_in, n_out)
    TRANSPOSED      # the first one as (n_out, n_in)
    PANELS          # the first one in panels: see affine.pyx
    SLICES          # the first one as (n_in, n_units) for each slice of units, where a row begins a line of the cache

# Parameters that belong to one slice of units: a block of a weight, or of a bias.
cdef struct Block:
    bint is_weight
    bint by_units       # a row for each unit
    Py_ssize_t begin, stride, n_rows, n_columns


cdef inline int slice_bits(Py_ssize_t width) noexcept nogil:
    # A layer has 2 ** slice_bits slices.
    if width >= MANY_UNITS:
        return 2
    return 1 if width >= 2 * SLICE_UNITS else 0


cdef inline int slices_of(Py_ssize_t width) noexcept nogil:
    return 1 << slice_bits(width)


cdef inline Py_ssize_t slice_begin(Py_ssize_t width, int index) noexcept nogil:
    cdef Py_ssize_t begin = (width * index) >> slice_bits(width)
    return (begin + ALIGNED_UNITS // 2) // ALIGNED_UNITS * ALIGNED_UNITS if begin < width and width >= 64 else begin


cdef inline Py_ssize_t to_lines(Py_ssize_t n, Py_ssize_t number_size) noexcept nogil:
    # So many numbers in whole lines of the cache.
    cdef Py_ssize_t line = LINE_BYTES // number_size
    return (n + line - 1) // line * line


cdef inline Py_ssize_t sliced_row(Py_ssize_t width, int s, Py_ssize_t number_size) noexcept nogil:
    # Distance of two rows of the first weight within slice s: whole lines of the cache, or halves of a line where a row
    # has less than two, so that more rows stay in the first cache.  Where a row is taken in several panels, the lines
    # of one panel should not all want the same places in the cache, as they do at powers of two.
    cdef Py_ssize_t units = slice_begin(width, s + 1) - slice_begin(width, s)
    cdef Py_ssize_t row = to_lines(units, number_size), line = LINE_BYTES // number_size, half = line // 2
    if row <= 2 * line:
        return (units + half - 1) // half * half
    return row + line if row > PANEL_LINES * line and row // line % 2 == 0 else row


cdef inline Py_ssize_t sliced_begin(Py_ssize_t n_in, Py_ssize_t width, int s, int layout,
                                    Py_ssize_t number_size) noexcept nogil:
    # Where slice s of the first weight begins, in a layout by slices.
    cdef Py_ssize_t total = 0
    cdef int t
    for t in range(s):
        if layout == PANELS:
            total += panels_size(n_in, slice_begin(width, t + 1) - slice_begin(width, t), number_size)
        else:
            total += to_lines(n_in * sliced_row(width, t, number_size), number_size)
    return total


cdef inline Py_ssize_t layer_begin(const Model* model, Py_ssize_t k) noexcept nogil:
    # Where the parameters of layer k begin.
    cdef Py_ssize_t i, begin = 0
    for i in range(k):
        begin += weight_size(model, i) + model.sizes[i + 1]
    return begin


cdef inline Py_ssize_t bias_begin(const Model* model, Py_ssize_t k) noexcept nogil:
    return layer_begin(model, k) + weight_size(model, k)


cdef Block block_of(const Model* model, Py_ssize_t k, int s, bint is_weight, const floating* number) noexcept nogil

cpdef bint transposes_output(const Py_ssize_t[::1] sizes) noexcept

cdef int slices_at_most(const Model* model) noexcept nogil

cdef void arrange(Model* model, Py_ssize_t number_size) noexcept nogil

cdef void slices_forward(const Model* model, int first, int end, const floating* X, const floating* W,
                         const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n,
                         const RowsAhead* ahead) noexcept nogil

cdef void slices_backward(const Model* model, int first, int end, const floating* X, const floating* dZ,
                          Py_ssize_t z_stride, floating* dW, Py_ssize_t n, floating alpha,
                          floating beta) noexcept nogil

cdef void limit_panels(const Model* model, int first, int end, double limit, floating* parameters,
                       floating* scratch) noexcept nogil
