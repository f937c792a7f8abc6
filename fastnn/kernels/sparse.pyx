"""The first layer on sparse rows (CSR): its products touch non-zeros only.

Forward, each row of Z is a combination of rows of W.  Backward there are two ways.  Scattering adds, for each non-zero,
a multiple of a row of dZ to a row of dW.  With a batch's non-zeros sorted by column, each row of dW is a combination of
rows of dZ, and is read and written once.  Sorting pays if the layer is wide and each batch has non-zeros in most
columns, or if it is done once for many epochs: then by pairs of columns, so that each row of dZ is read once for two
rows of dW.
"""

from typing import NamedTuple

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from .affine cimport fill_rows
from .rows cimport LINE_BYTES, RowStore, convert, open_rows, stored

cdef extern from "strips.h" nogil:
    enum:
        ROWS_AT_ONCE
        SPLIT_BYTES
        PART_BYTES
        PART_NONZEROS
    Py_ssize_t strips_of_float(Py_ssize_t width, bint in_pairs)
    Py_ssize_t strips_of_double(Py_ssize_t width, bint in_pairs)
    Py_ssize_t strip_begin_float(Py_ssize_t width, Py_ssize_t p, Py_ssize_t n_strips)
    Py_ssize_t strip_begin_double(Py_ssize_t width, Py_ssize_t p, Py_ssize_t n_strips)
    void combine_float(const float* values, const int32_t* rows, int64_t* begins, const int64_t* ends, Py_ssize_t n,
                       int32_t limit, const float* B, Py_ssize_t stride, float* out, Py_ssize_t out_stride,
                       Py_ssize_t width, int64_t ahead)
    void combine_double(const double* values, const int32_t* rows, int64_t* begins, const int64_t* ends, Py_ssize_t n,
                        int32_t limit, const double* B, Py_ssize_t stride, double* out, Py_ssize_t out_stride,
                        Py_ssize_t width, int64_t ahead)
    void combine_entries_float(const char* entries, const int32_t* starts, int m, Py_ssize_t n_rows, float scale,
                               const float* B, Py_ssize_t stride, float* out, Py_ssize_t out_stride,
                               Py_ssize_t width)
    void combine_entries_double(const char* entries, const int32_t* starts, int m, Py_ssize_t n_rows, double scale,
                                const double* B, Py_ssize_t stride, double* out, Py_ssize_t out_stride,
                                Py_ssize_t width)
    void scatter_float(const float* values, const int32_t* rows, Py_ssize_t n, float scale, const float* d, float* B,
                       Py_ssize_t stride, Py_ssize_t width)
    void scatter_double(const double* values, const int32_t* rows, Py_ssize_t n, double scale, const double* d,
                        double* B, Py_ssize_t stride, Py_ssize_t width)

cdef extern from "vectors.h" nogil:
    void PREFETCH_WRITE(const void* address)

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define lowest_bit(bits) __builtin_ctzll(bits)
    #else
    static int lowest_bit(unsigned long long bits) { int at = 0; while (!(bits >> at & 1)) at++; return at; }
    #endif
    """
    int lowest_bit(uint64_t bits) nogil


class SortedBlocks(NamedTuple):
    """Non-zeros of all rows, sorted by pairs of columns within row blocks; `sort_blocks` makes them."""

    entries: object
    starts: object
    bounds: object


cdef BlockStore open_blocks(object blocks, Py_ssize_t n_columns) except *:
    cdef BlockStore found
    cdef uint8_t[::1] entries = blocks.entries.view("u1")
    cdef int32_t[:, ::1] starts = blocks.starts
    cdef const int64_t[::1] bounds = blocks.bounds
    found.all.entries, found.all.starts = <char*> &entries[0], &starts[0, 0]
    found.all.n_columns, found.all.n_values = n_columns, 2
    found.bounds, found.n_blocks = &bounds[0], bounds.shape[0] - 1
    return found


cdef ColumnStore block_at(const BlockStore* blocks, const RowStore* store, Py_ssize_t first,
                          const floating* number) noexcept nogil:
    # The row block that begins with row first.  The last argument is for its type only.
    cdef Py_ssize_t low = 0, high = blocks.n_blocks, middle
    cdef ColumnStore found = blocks.all
    while high - low > 1:
        middle = (low + high) // 2
        if blocks.bounds[middle] <= first:
            low = middle
        else:
            high = middle
    found.entries += store.row_starts[first] * entry_size(2, number)
    found.starts += low * ((blocks.all.n_columns + 1) // 2 + 2)
    return found


cdef inline Py_ssize_t entry_size(int n_values, const floating* number) noexcept nogil:
    # Bytes of an entry: n_values values and the index of a row.  The last argument is for its type only.
    return n_values * <Py_ssize_t> sizeof(floating) + <Py_ssize_t> sizeof(int32_t)


cdef inline Py_ssize_t strips_of(Py_ssize_t width, bint in_pairs, const floating* number) noexcept nogil:
    # The last argument is for its type only.
    if floating is float:
        return strips_of_float(width, in_pairs)
    else:
        return strips_of_double(width, in_pairs)


cdef inline Py_ssize_t strip_begin(Py_ssize_t width, Py_ssize_t p, Py_ssize_t n_strips,
                                   const floating* number) noexcept nogil:
    if floating is float:
        return strip_begin_float(width, p, n_strips)
    else:
        return strip_begin_double(width, p, n_strips)


cdef inline void combine(const floating* values, const int32_t* rows, int64_t* begins, const int64_t* ends,
                         Py_ssize_t n, Py_ssize_t limit, const floating* B, Py_ssize_t stride, floating* out,
                         Py_ssize_t out_stride, Py_ssize_t width, int64_t ahead) noexcept nogil:
    # out[i] (width,) += sum_k values[k] * B[rows[k]], begins[i] <= k < ends[i], up to the first row not below limit
    if floating is float:
        combine_float(values, rows, begins, ends, n, <int32_t> limit, B, stride, out, out_stride, width, ahead)
    else:
        combine_double(values, rows, begins, ends, n, <int32_t> limit, B, stride, out, out_stride, width, ahead)


cdef inline void combine_columns(const ColumnStore* columns, floating scale, const floating* B, Py_ssize_t stride,
                                 floating* out, Py_ssize_t out_stride, Py_ssize_t width) noexcept nogil:
    # out[j] (width,) += scale * sum_i X[i, j] * B[i] for the columns of X
    if floating is float:
        combine_entries_float(columns.entries, columns.starts, columns.n_values, columns.n_columns, scale, B, stride,
                              out, out_stride, width)
    else:
        combine_entries_double(columns.entries, columns.starts, columns.n_values, columns.n_columns, scale, B, stride,
                               out, out_stride, width)


cdef inline void scatter(const floating* values, const int32_t* rows, Py_ssize_t n, floating scale,
                         const floating* d, floating* B, Py_ssize_t stride, Py_ssize_t width) noexcept nogil:
    # B[rows[k]] (width,) += scale * values[k] * d
    if floating is float:
        scatter_float(values, rows, n, scale, d, B, stride, width)
    else:
        scatter_double(values, rows, n, scale, d, B, stride, width)


cdef void sparse_forward(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                         const floating* W, Py_ssize_t w_stride, const floating* b, floating* Z, Py_ssize_t z_stride,
                         Py_ssize_t n_out) noexcept nogil:
    # Z (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,), for n rows X from position first of the order on
    fill_rows(b, Z, z_stride, n, n_out)
    add_sparse_product(store, order, first, n, W, w_stride, Z, z_stride, n_out)


cdef void add_sparse_product(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                             const floating* W, Py_ssize_t w_stride, floating* Z, Py_ssize_t z_stride,
                             Py_ssize_t n_out) noexcept nogil:
    # Z (n, n_out) += X (n, n_in) @ W (n_in, n_out)
    cdef Py_ssize_t at, p, n_strips = strips_of(n_out, False, W), begin
    # Strip by strip of W, so that each stays in cache while the rows go by.
    for p in range(n_strips):
        begin = strip_begin(n_out, p, n_strips, W)
        at = 0
        while at < n:
            forward_strip(store, order, first + at, min(<Py_ssize_t> ROWS_AT_ONCE, n - at), W + begin, w_stride,
                          Z + at * z_stride + begin, z_stride, strip_begin(n_out, p + 1, n_strips, W) - begin, p == 0)
            at += ROWS_AT_ONCE


cdef void forward_strip(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                        const floating* W, Py_ssize_t w_stride, floating* Z, Py_ssize_t z_stride, Py_ssize_t width,
                        bint is_first) noexcept nogil:
    # Z (n, width) += X (n, n_in) @ W (n_in, width), for a strip of W and at most ROWS_AT_ONCE rows.  A wide strip is
    # taken in parts, so that each part comes from the second-level cache once, not for each row.
    cdef int64_t[ROWS_AT_ONCE] begins
    cdef int64_t[ROWS_AT_ONCE] ends
    cdef Py_ssize_t i, row, part, n_parts, nonzeros = 0, row_bytes = width * <Py_ssize_t> sizeof(floating)
    cdef int64_t ahead
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        begins[i], ends[i] = store.row_starts[row], store.row_starts[row + 1]
        nonzeros += ends[i] - begins[i]
    n_parts = (store.n_columns * row_bytes + PART_BYTES - 1) // PART_BYTES
    if row_bytes < SPLIT_BYTES or nonzeros < PART_NONZEROS * n * n_parts:
        n_parts = 1
    for part in range(n_parts):
        # The processor cannot foresee rows in a random order, nor ever where the next part of a row begins.
        ahead = 0 if n_parts == 1 else nonzeros // (n * n_parts)
        if is_first and part == 0 and order != NULL:
            ahead = store.n_columns
        combine(<const floating*> store.values, store.columns, begins, ends, n,
                store.n_columns * (part + 1) // n_parts, W, w_stride, Z, z_stride, width, ahead)


cdef void sparse_backward_weight(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                                 const floating* dZ, Py_ssize_t z_stride, floating* dW, Py_ssize_t w_stride,
                                 Py_ssize_t n_out, floating alpha, floating beta) noexcept nogil:
    # dW (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW
    cdef Py_ssize_t i, row, p, begin, width, n_strips = strips_of(n_out, False, dZ)
    cdef int64_t at
    cdef const floating* values = <const floating*> store.values
    scale_rows(dW, w_stride, store.n_columns, n_out, beta)
    for p in range(n_strips):
        begin = strip_begin(n_out, p, n_strips, dZ)
        width = strip_begin(n_out, p + 1, n_strips, dZ) - begin
        for i in range(n):
            row = order[first + i] if order != NULL else first + i
            at = store.row_starts[row]
            scatter(values + at, store.columns + at, store.row_starts[row + 1] - at, alpha,
                    dZ + i * z_stride + begin, dW + begin, w_stride, width)


cdef void scale_rows(floating* dW, Py_ssize_t w_stride, Py_ssize_t n_in, Py_ssize_t n_out,
                     floating beta) noexcept nogil:
    # dW (n_in, n_out) = beta * dW, and 0 if beta is 0, even where dW was not finite
    cdef Py_ssize_t i, j
    if beta != 1:
        for i in range(n_in):
            for j in range(n_out):
                dW[i * w_stride + j] = beta * dW[i * w_stride + j] if beta != 0 else <floating> 0.0


cpdef Py_ssize_t column_work_size(Py_ssize_t n_in, Py_ssize_t nonzeros) noexcept nogil:
    """Numbers of work space for sorting non-zeros by column: entries and starts."""
    # An int32 fits into the space of a number.
    return 2 * nonzeros + n_in + 2


cdef ColumnStore columns_in(floating* work, Py_ssize_t n_in, Py_ssize_t nonzeros) noexcept nogil:
    cdef ColumnStore columns
    columns.entries = <char*> work
    columns.starts = <int32_t*> (work + 2 * nonzeros)
    columns.n_columns, columns.n_values = n_in, 1
    return columns


cdef void sort_by_column(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                         int32_t row_offset, const ColumnStore* columns, const floating* number) noexcept nogil:
    # Sorts the non-zeros of n rows by column, then by row; rows are counted from row_offset.  The last argument is for
    # its type only.
    cdef Py_ssize_t i, row
    cdef int64_t at
    cdef int32_t* starts = columns.starts
    cdef int32_t place, counted
    cdef char* entry
    cdef const floating* values = <const floating*> store.values
    memset(starts, 0, (columns.n_columns + 2) * sizeof(int32_t))
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        for at in range(store.row_starts[row], store.row_starts[row + 1]):
            starts[store.columns[at] + 2] += 1
    for i in range(2, columns.n_columns + 1):
        starts[i + 1] += starts[i]
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        counted = row_offset + <int32_t> i
        for at in range(store.row_starts[row], store.row_starts[row + 1]):
            # starts[c + 1] moves from the start of column c to its end, the start of the next.
            place = starts[store.columns[at] + 1]
            starts[store.columns[at] + 1] = place + 1
            # Value and row share a cache line.
            entry = columns.entries + place * entry_size(1, number)
            PREFETCH_WRITE(entry + LINE_BYTES)
            memcpy(entry, values + at, sizeof(floating))
            memcpy(entry + sizeof(floating), &counted, sizeof(counted))


cdef void sort_by_pair(const RowStore* store, Py_ssize_t first, Py_ssize_t n, const ColumnStore* columns,
                       const floating* number) noexcept nogil:
    # Sorts the non-zeros of n rows by pair of columns, then by row; rows are counted from first.  The two columns of a
    # pair share an entry if they follow each other in a row.  The last argument is for its type only.
    cdef Py_ssize_t i, n_pairs = (columns.n_columns + 1) // 2
    cdef int64_t at
    cdef int32_t* starts = columns.starts
    cdef int32_t column, row, before, place, place_before = 0
    cdef bint odd, joins
    cdef floating value, value_before = 0
    cdef floating[2] pair
    cdef char* entry
    cdef const floating* values = <const floating*> store.values
    memset(starts, 0, (n_pairs + 2) * sizeof(int32_t))
    for i in range(first, first + n):
        before = -2
        for at in range(store.row_starts[i], store.row_starts[i + 1]):
            column = store.columns[at]
            starts[column // 2 + 2] += not (column % 2 and column == before + 1)
            before = column
    for i in range(2, n_pairs + 1):
        starts[i + 1] += starts[i]
    for i in range(first, first + n):
        before = -2
        row = <int32_t> (i - first)
        for at in range(store.row_starts[i], store.row_starts[i + 1]):
            column, value = store.columns[at], values[at]
            odd = column % 2
            joins = odd and column == before + 1
            place = place_before if joins else starts[column // 2 + 1]
            starts[column // 2 + 1] = place + 1
            pair[0] = (value_before if joins else <floating> 0.0) if odd else value
            pair[1] = value if odd else <floating> 0.0
            entry = columns.entries + place * entry_size(2, number)
            memcpy(entry, pair, sizeof(pair))
            memcpy(entry + sizeof(pair), &row, sizeof(row))
            before, place_before, value_before = column, place, value


cdef void columns_backward_weight(const ColumnStore* columns, const floating* dZ, Py_ssize_t z_stride, floating* dW,
                                  Py_ssize_t w_stride, Py_ssize_t n_out, floating alpha) noexcept nogil:
    # dW (n_in, n_out) += alpha * X.T (n_in, n) @ dZ (n, n_out); the same bits as `sparse_backward_weight`
    cdef Py_ssize_t p, begin, n_strips = strips_of(n_out, columns.n_values == 2, dZ)
    for p in range(n_strips):
        begin = strip_begin(n_out, p, n_strips, dZ)
        combine_columns(columns, alpha, dZ + begin, z_stride, dW + begin, w_stride,
                        strip_begin(n_out, p + 1, n_strips, dZ) - begin)


def sparse_affine(X, const floating[:, ::1] W, const floating[::1] b, floating[:, ::1] Z_out):
    """Z_out (n, n_out) = X (n, n_in) @ W (n_in, n_out) + b (n_out,) for sparse X (CSRRows)."""
    cdef RowStore store = open_rows(X)
    if Z_out.size:
        with nogil:
            sparse_forward(&store, NULL, 0, store.n_rows, &W[0, 0] if W.shape[0] else NULL, W.shape[1], &b[0],
                           &Z_out[0, 0], W.shape[1], W.shape[1])


def backprop_sparse_weight(X, const floating[:, ::1] dZ, floating[:, ::1] dW_out, double alpha=1.0, double beta=0.0):
    """dW_out (n_in, n_out) = alpha * X.T (n_in, n) @ dZ (n, n_out) + beta * dW_out for sparse X (CSRRows)."""
    cdef RowStore store = open_rows(X)
    if dW_out.size:
        with nogil:
            sparse_backward_weight(&store, NULL, 0, store.n_rows, &dZ[0, 0] if dZ.shape[0] else NULL,
                                   dZ.shape[1], &dW_out[0, 0], dW_out.shape[1], dW_out.shape[1], <floating> alpha,
                                   <floating> beta)


def sort_blocks(X, const int64_t[::1] bounds, entries_out, int32_t[:, ::1] starts_out, int n_threads=1):
    """Sort the non-zeros of each row block of X (CSRRows) by pairs of columns.

    A block's entries begin at the index of its first non-zero.  An entry holds a row's values in a pair of columns, the
    even column first, of which one may be 0; a row has several if its columns are out of order or repeated.

    bounds : (n_blocks + 1,) first row of each block, and the number of rows
    entries_out : (nnz,), each two values and, as int32, the row, counted within its block
    starts_out : (n_blocks, (n_in + 1) // 2 + 2), where each pair of a block begins, counted within the block
    """
    cdef RowStore store = open_rows(X)
    cdef BlockStore blocks = open_blocks(SortedBlocks(entries_out, starts_out.base, bounds.base), store.n_columns)
    cdef bint is_single = X.dtype == "float32"
    cdef Py_ssize_t k
    for k in prange(blocks.n_blocks, nogil=True, num_threads=n_threads, schedule="static"):
        if is_single:
            sort_block(&store, &blocks, k, <const float*> NULL)
        else:
            sort_block(&store, &blocks, k, <const double*> NULL)


cdef void sort_block(const RowStore* store, const BlockStore* blocks, Py_ssize_t k,
                     const floating* number) noexcept nogil:
    cdef ColumnStore columns = block_at(blocks, store, blocks.bounds[k], number)
    sort_by_pair(store, blocks.bounds[k], blocks.bounds[k + 1] - blocks.bounds[k], &columns, number)


def backprop_sparse_weight_by_block(X, blocks, const floating[:, ::1] dZ, floating[:, ::1] dW_out, double alpha=1.0,
                                    double beta=0.0):
    """Same as backprop_sparse_weight, for X sorted into SortedBlocks of one block."""
    cdef RowStore store = open_rows(X)
    cdef BlockStore block_store = open_blocks(blocks, store.n_columns)
    cdef ColumnStore columns = block_at(&block_store, &store, 0, &dZ[0, 0])
    with nogil:
        scale_rows(&dW_out[0, 0], dW_out.shape[1], store.n_columns, dW_out.shape[1], <floating> beta)
        columns_backward_weight(&columns, &dZ[0, 0], dZ.shape[1], &dW_out[0, 0], dW_out.shape[1], dW_out.shape[1],
                                <floating> alpha)


def backprop_sparse_weight_by_column(X, const floating[:, ::1] dZ, floating[:, ::1] dW_out, floating[::1] work,
                                     double alpha=1.0, double beta=0.0):
    """Same as backprop_sparse_weight, by column; work has room for 2 * nnz + n_in + 2 numbers."""
    cdef RowStore store = open_rows(X)
    cdef ColumnStore columns
    if dW_out.size:
        with nogil:
            columns = columns_in(&work[0], store.n_columns, store.row_starts[store.n_rows])
            sort_by_column(&store, NULL, 0, store.n_rows, 0, &columns, &work[0])
            scale_rows(&dW_out[0, 0], dW_out.shape[1], store.n_columns, dW_out.shape[1], <floating> beta)
            columns_backward_weight(&columns, &dZ[0, 0] if dZ.shape[0] else NULL, dZ.shape[1], &dW_out[0, 0],
                                    dW_out.shape[1], dW_out.shape[1], <floating> alpha)


def count_nonzeros(const stored[:, ::1] X, int64_t[::1] indptr_out, int n_threads=1):
    """indptr_out (n + 1,) = where each row of the CSR of X (n, n_in) starts; the last entry is nnz."""
    cdef Py_ssize_t i, n_columns = X.shape[1]
    indptr_out[0] = 0
    for i in prange(X.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        indptr_out[i + 1] = count_in_row(&X[i, 0], n_columns) if n_columns else 0
    with nogil:
        for i in range(X.shape[0]):
            indptr_out[i + 1] += indptr_out[i]


cdef int64_t count_in_row(const stored* row, Py_ssize_t n_columns) noexcept nogil:
    cdef Py_ssize_t j
    cdef int32_t count = 0
    for j in range(n_columns):
        count += row[j] != 0
    return count


def fill_nonzeros(const stored[:, ::1] X, const int64_t[::1] indptr, floating[::1] data_out,
                  int32_t[::1] indices_out, int n_threads=1):
    """data_out, indices_out (nnz,) = the non-zeros of X (n, n_in), uint8 scaled, and their columns."""
    cdef Py_ssize_t i, n_columns = X.shape[1]
    if data_out.shape[0] == 0:
        return
    for i in prange(X.shape[0], nogil=True, num_threads=n_threads, schedule="static"):
        fill_row(&X[i, 0], n_columns, &data_out[0] + indptr[i], &indices_out[0] + indptr[i])


cdef void fill_row(const stored* row, Py_ssize_t n_columns, floating* data, int32_t* indices) noexcept nogil:
    # A bit for each of 64 values says whether it is not zero: no processor could foresee that value by value.
    cdef Py_ssize_t begin, j, at = 0
    cdef uint64_t bits
    for begin in range(0, n_columns, 64):
        bits = 0
        if begin + 64 <= n_columns:
            for j in range(64):
                bits |= <uint64_t> (row[begin + j] != 0) << j
        else:
            for j in range(n_columns - begin):
                bits |= <uint64_t> (row[begin + j] != 0) << j
        while bits:
            j = begin + lowest_bit(bits)
            data[at] = convert(row[j], data[0])
            indices[at] = <int32_t> j
            at += 1
            bits &= bits - 1
