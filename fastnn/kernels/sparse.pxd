from cython cimport floating
from libc.stdint cimport int32_t, int64_t

from .rows cimport RowStore

# The non-zeros of some rows, sorted by column or by pair of columns.
cdef struct ColumnStore:
    char* entries           # each n_values values of the network's dtype, one a column, and the row, an int32
    int32_t* starts         # where columns, or pairs, begin, and where the last one ends; one more while sorting
    Py_ssize_t n_columns
    int n_values            # 1, or 2 for pairs

# The same for all rows, row block by row block.
cdef struct BlockStore:
    ColumnStore all             # in pairs; room for (nnz,) entries; starts (n_blocks, n_pairs + 2)
    const int64_t* bounds       # (n_blocks + 1,) first row of each block
    Py_ssize_t n_blocks

cdef BlockStore open_blocks(object blocks, Py_ssize_t n_columns) except *

cdef ColumnStore block_at(const BlockStore* blocks, const RowStore* store, Py_ssize_t first,
                          const floating* number) noexcept nogil

cdef void sparse_forward(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                         const floating* W, Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride,
                         Py_ssize_t n_out) noexcept nogil

cdef void add_sparse_product(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                             const floating* W, Py_ssize_t w_stride, floating* Z, Py_ssize_t z_stride,
                             Py_ssize_t n_out) noexcept nogil

cdef void sparse_backward_weight(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                                 const floating* dZ, Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride,
                                 Py_ssize_t n_out, floating alpha, floating beta) noexcept nogil

cdef void scale_rows(floating* dW, Py_ssize_t w_stride, Py_ssize_t n_in, Py_ssize_t n_out,
                     floating beta) noexcept nogil

cpdef Py_ssize_t column_work_size(Py_ssize_t n_in, Py_ssize_t nonzeros) noexcept nogil

cdef ColumnStore columns_in(floating* work, Py_ssize_t n_in, Py_ssize_t nonzeros) noexcept nogil

cdef void sort_by_column(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                         int32_t row_offset, const ColumnStore* columns, const floating* number) noexcept nogil

cdef void columns_backward_weight(const ColumnStore* columns, const floating* dZ, Py_ssize_t z_stride, floating* dW,
                                  Py_ssize_t w_stride, Py_ssize_t n_out, floating alpha) noexcept nogil
