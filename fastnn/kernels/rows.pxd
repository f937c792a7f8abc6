from cython cimport floating
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

# The dtypes in which numbers may be stored.
ctypedef fused stored:
    uint8_t
    float
    double

cdef extern from "vectors.h":
    enum:
        LINE_BYTES      # of the cache

cdef enum:
    PAGE_BYTES = 4096   # of memory, whose address the processor must look up

cdef extern from "vectors.h" nogil:
    ctypedef struct RowsAhead:
        const char* values
        const Py_ssize_t* order
        Py_ssize_t n, bytes
    ctypedef struct Cut:
        Py_ssize_t stride, columns, next
    Cut whole(Py_ssize_t stride)
    Py_ssize_t place_of(const Cut* cut, Py_ssize_t column)

cdef enum StorageKind:
    UINT8
    FLOAT32
    FLOAT64
    CSR

# How images are moved while they are read: at most so many pixels down and across, and perhaps flipped; see augment.py.
cdef struct Movement:
    Py_ssize_t height, width, channels, down, across    # a height of 0: not at all
    bint flips
    uint64_t key                # seed of the epoch's

# The rows of a data set as they are stored; pointers into arrays that the caller keeps alive.
cdef struct RowStore:
    StorageKind kind
    Py_ssize_t n_rows, n_columns
    const void* values          # dense (n_rows, n_columns); CSR: the non-zeros, of the network's dtype
    const int32_t* columns      # CSR only: the column of each non-zero
    const int64_t* row_starts   # CSR only: (n_rows + 1,)
    const int32_t* codes        # CSR only: (n_rows, n_codes) rows of embeddings, see embeddings.pyx
    Py_ssize_t n_codes
    Movement movement           # of dense rows

cdef inline floating convert(stored value, floating target) noexcept nogil:
    # The second argument is for its type only.
    if stored is uint8_t:
        return value * <floating> 0.00390625  # UINT8_SCALE
    else:
        return <floating> value

cdef RowStore open_rows(object X, object motion=*, uint64_t key=*) except *

cdef RowsAhead rows_ahead(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n) noexcept nogil

cdef RowsAhead part_ahead(const RowsAhead* rows, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void prefetch_pages(const RowsAhead* rows) noexcept nogil

cdef bint is_native(const RowStore* store, const floating* number) noexcept nogil

cdef const floating* dense_rows(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                                floating* buffer, const Py_ssize_t** order_out) noexcept nogil
