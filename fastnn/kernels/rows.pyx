"""Rows of a data set, from their stored dtype to the network's.

Dense rows of the network's dtype are used in place, in any order if the first layer can take an order; otherwise a row
block is gathered, converted and scaled into a small buffer, so there is never a converted or shuffled copy of the data.
Sparse rows are a CSR of three arrays and never become dense.  This module also prefetches rows and draws orders.
"""

from typing import NamedTuple

from cpython.pycapsule cimport PyCapsule_GetPointer
from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from numpy.random cimport bitgen_t

from ._math cimport mixed

cdef extern from "vectors.h" nogil:
    void PREFETCH_NEAR(const void* address)
    const char* row_ahead(const RowsAhead* rows, Py_ssize_t i)

#: Bytes of a cache line.
CACHE_LINE = LINE_BYTES

#: uint8 values are pixels: each is multiplied by this.
UINT8_SCALE = 1.0 / 256


class CSRRows(NamedTuple):
    """Sparse rows: data (nnz,) floating, indices (nnz,) int32, indptr (n + 1,) int64, and the width.

    codes : (n, n_embeddings) int32, of each row which row of each embedding it has beside, -1 for none; None: there are
        no embeddings
    """

    data: object
    indices: object
    indptr: object
    n_columns: int
    codes: object = None

    @property
    def shape(self):
        """(n, n_columns)"""
        return len(self.indptr) - 1, self.n_columns

    @property
    def dtype(self):
        """dtype of the non-zeros"""
        return self.data.dtype


class Motion(NamedTuple):
    """How images (height, width, channels) are moved while they are read.

    down, across : pixels, at most;  flips : whether every second one is flipped from left to right
    """

    height: int
    width: int
    channels: int
    down: int
    across: int
    flips: bool


cdef RowStore open_rows(object X, object motion=None, uint64_t key=0) except *:
    # Takes a checked C-contiguous array or CSRRows; the caller keeps X alive.  motion: a Motion, drawn by the key.
    cdef RowStore store
    cdef const uint8_t[:, ::1] pixels
    cdef const float[:, ::1] singles
    cdef const double[:, ::1] doubles
    cdef const float[::1] single_values
    cdef const double[::1] double_values
    cdef const int32_t[::1] columns
    cdef const int64_t[::1] row_starts
    cdef const int32_t[:, ::1] codes
    store.n_rows, store.n_columns = X.shape
    store.values = store.columns = store.row_starts = store.codes = NULL
    store.n_codes = 0
    store.movement = Movement(0, 0, 0, 0, 0, False, key)
    if motion is not None:
        store.movement = Movement(motion.height, motion.width, motion.channels, motion.down, motion.across,
                                  motion.flips, key)
    if isinstance(X, CSRRows):
        store.kind = CSR
        columns, row_starts = X.indices, X.indptr
        store.row_starts = &row_starts[0]
        if X.codes is not None:
            codes = X.codes
            store.codes, store.n_codes = &codes[0, 0] if codes.size else NULL, codes.shape[1]
        if columns.shape[0]:
            store.columns = &columns[0]
            if X.dtype == "float32":
                single_values = X.data
                store.values = &single_values[0]
            else:
                double_values = X.data
                store.values = &double_values[0]
    elif X.dtype == "uint8":
        store.kind = UINT8
        pixels = X
        store.values = &pixels[0, 0] if X.size else NULL
    elif X.dtype == "float32":
        store.kind = FLOAT32
        singles = X
        store.values = &singles[0, 0] if X.size else NULL
    else:
        store.kind = FLOAT64
        doubles = X
        store.values = &doubles[0, 0] if X.size else NULL
    return store


cdef RowsAhead rows_ahead(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first,
                          Py_ssize_t n) noexcept nogil:
    # n dense rows, at positions first, first + 1, ... of the order (NULL: as stored).
    cdef Py_ssize_t number_size = 8 if store.kind == FLOAT64 else 4 if store.kind == FLOAT32 else 1
    cdef RowsAhead all_rows = RowsAhead(<const char*> store.values, order, store.n_rows, store.n_columns * number_size)
    return part_ahead(&all_rows, first, first + n)


cdef RowsAhead part_ahead(const RowsAhead* rows, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # Rows begin to end of rows.
    cdef RowsAhead part = rows[0]
    if rows.order != NULL:
        part.order += begin
    else:
        part.values += begin * rows.bytes
    part.n = end - begin
    return part


cdef void prefetch_pages(const RowsAhead* rows) noexcept nogil:
    # Prefetches a line of each page of the rows, and their ends, so that the processor looks up many pages at once and
    # begins to foresee the rest.  Otherwise it would wait for the look-up of one page after the other.
    cdef Py_ssize_t i, at
    for i in range(rows.n):
        at = 0
        while at < rows.bytes:
            PREFETCH_NEAR(row_ahead(rows, i) + at)
            at += PAGE_BYTES
        PREFETCH_NEAR(row_ahead(rows, i) + rows.bytes - 1)


cdef void copy_pixels(const stored* row, Py_ssize_t n, floating* out) noexcept nogil:
    cdef Py_ssize_t j
    if stored is floating:
        memcpy(out, row, n * sizeof(floating))
    else:
        for j in range(n):
            out[j] = convert(row[j], out[0])


cdef void flip_rows(floating* image, Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels) noexcept nogil:
    # Exchanges left and right.
    cdef Py_ssize_t y, x, k, left, right
    for y in range(height):
        for x in range(width // 2):
            for k in range(channels):
                left = (y * width + x) * channels + k
                right = (y * width + width - 1 - x) * channels + k
                image[left], image[right] = image[right], image[left]


cdef void copy_moved(const stored* image, const Movement* movement, Py_ssize_t position, floating* out) noexcept nogil:
    # The image at a position of the epoch, flipped and shifted as the key says: pixel (y, x) is that at (y + down,
    # x + across) of the image, or 0 outside.
    cdef uint64_t hashed = mixed(mixed(movement.key) + <uint64_t> position * <uint64_t> 0x9e3779b97f4a7c15)
    cdef uint64_t high = hashed >> 32, low = <uint32_t> hashed
    cdef Py_ssize_t down = <Py_ssize_t> ((high * <uint64_t> (2 * movement.down + 1)) >> 32) - movement.down
    cdef Py_ssize_t across = <Py_ssize_t> ((low * <uint64_t> (2 * movement.across + 1)) >> 32) - movement.across
    cdef bint flips = movement.flips and mixed(hashed) >> 63
    cdef Py_ssize_t c = movement.channels, row = movement.width * c, n = movement.height * row
    cdef Py_ssize_t y, begin, end, shift, margin
    if max(down, -down) >= movement.height or max(across, -across) >= movement.width:
        memset(out, 0, n * sizeof(floating))
        return
    if flips:  # afterwards
        across = -across
    # The rows are shifted in one piece; what came from the end of a neighbouring row is then set to 0.
    shift, margin = down * row + across * c, max(across, -across) * c
    begin, end = max(<Py_ssize_t> 0, -shift), min(n, n - shift)
    memset(out, 0, begin * sizeof(floating))
    copy_pixels(image + begin + shift, end - begin, out + begin)
    memset(out + end, 0, (n - end) * sizeof(floating))
    for y in range(movement.height if margin else 0):
        memset(out + y * row + (row - margin if across > 0 else 0), 0, margin * sizeof(floating))
    if flips:
        flip_rows(out, movement.height, movement.width, c)


cdef void copy_rows(const stored* values, const RowStore* store, const Py_ssize_t* order, Py_ssize_t first,
                    Py_ssize_t n, floating* buffer) noexcept nogil:
    cdef Py_ssize_t i, j, n_columns = store.n_columns
    cdef const stored* row
    for i in range(n):
        if order != NULL and i + 1 < n:  # the processor cannot foresee the next row
            row = values + order[first + i + 1] * n_columns
            for j in range((n_columns * <Py_ssize_t> sizeof(stored) + LINE_BYTES - 1) // LINE_BYTES):
                PREFETCH_NEAR(<const char*> row + j * LINE_BYTES)
        row = values + (order[first + i] if order != NULL else first + i) * n_columns
        if store.movement.height:
            copy_moved(row, &store.movement, first + i, buffer + i * n_columns)
        else:
            copy_pixels(row, n_columns, buffer + i * n_columns)


cdef bint is_native(const RowStore* store, const floating* number) noexcept nogil:
    # Whether dense rows are of the network's dtype, and so used in place.  The last argument is for its type only.
    return store.kind == (FLOAT32 if sizeof(floating) == sizeof(float) else FLOAT64)


cdef const floating* dense_rows(const RowStore* store, const Py_ssize_t* order, Py_ssize_t first, Py_ssize_t n,
                                floating* buffer, const Py_ssize_t** order_out) noexcept nogil:
    # The n rows at positions first, first + 1, ... of the order (NULL: as stored).  A caller that can take rows in an
    # order passes order_out: row i is then row order_out[0][i] of the result (NULL: row i), with no copy.
    if order_out != NULL:
        order_out[0] = NULL
    if is_native(store, buffer) and not store.movement.height:
        if order == NULL:
            return <const floating*> store.values + first * store.n_columns
        if order_out != NULL:
            order_out[0] = order + first
            return <const floating*> store.values
    if store.kind == UINT8:
        copy_rows[uint8_t, floating](<const uint8_t*> store.values, store, order, first, n, buffer)
    elif store.kind == FLOAT32:
        copy_rows[float, floating](<const float*> store.values, store, order, first, n, buffer)
    else:
        copy_rows[double, floating](<const double*> store.values, store, order, first, n, buffer)
    return buffer


def draw_order(bit_generator, Py_ssize_t[::1] order_out):
    """order_out (n,) = a permutation of 0 to n - 1, the same that permutation(n) of NumPy's generators draws.

    This is Fisher and Yates's shuffle.  A number up to i is drawn as random bits, as many as i has, until it is not
    above i.  That is no branch here, since the processor could not foresee it: a number above i changes nothing.
    """
    cdef bitgen_t* random = <bitgen_t*> PyCapsule_GetPointer(bit_generator.capsule, "BitGenerator")
    cdef Py_ssize_t n = order_out.shape[0], i, drawn
    cdef uint64_t mask = 1, bits
    cdef bint fits
    with bit_generator.lock, nogil:
        for i in range(n):
            order_out[i] = i
        while mask < <uint64_t> n:
            mask = 2 * mask + 1
        i = n - 1
        while i > 0:
            while mask >> 1 >= <uint64_t> i:
                mask >>= 1
            bits = random.next_uint64(random.state) if mask >> 32 else random.next_uint32(random.state)
            bits &= mask
            fits = bits <= <uint64_t> i
            drawn = <Py_ssize_t> bits if fits else i
            order_out[i], order_out[drawn] = order_out[drawn], order_out[i]
            i -= fits


ctypedef fused bits:
    uint32_t
    uint64_t

cdef enum:
    LOOKED_THROUGH = 4096  # numbers that a thread checks at a time


def all_finite(const bits[::1] values, int n_threads=1):
    """Whether float32 or float64 numbers, given as their bits (n,), are neither infinite nor NaN."""
    cdef Py_ssize_t i, n = values.shape[0], n_parts = (n + LOOKED_THROUGH - 1) // LOOKED_THROUGH
    cdef Py_ssize_t found = 0
    for i in prange(n_parts, nogil=True, num_threads=n_threads, schedule="static"):
        found += count_not_finite(&values[i * LOOKED_THROUGH], min(<Py_ssize_t> LOOKED_THROUGH, n - i * LOOKED_THROUGH))
    return found == 0


cdef Py_ssize_t count_not_finite(const bits* values, Py_ssize_t n) noexcept nogil:
    # In an infinity or NaN all bits of the exponent are set.
    cdef Py_ssize_t i
    cdef bits mask = <bits> 0x7f800000 if bits is uint32_t else <bits> 0x7ff0000000000000
    cdef bits count = 0
    for i in range(n):
        count += (values[i] & mask) == mask
    return <Py_ssize_t> count
