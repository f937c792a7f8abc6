"""Rows of a table, with numbers, codes of categories and missing values, as sparse rows of features.

What is done to a column is fixed before training.  A number is scaled and clipped smoothly (D. Holzmueller,
L. Grinsztajn, I. Steinwart, "Better by default", NeurIPS 2024); with knots it also has a piecewise-linear embedding
(Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep learning", NeurIPS 2022),
of which a row has two non-zeros: each unit of the layer after it is then a linear spline of the number.  A category has
a feature for each value, and a row has one of them, so the layer after it gathers a row of its weight.  One that has an
embedding has no features here but a code, the row of the embedding: see embeddings.pyx.
"""

from array import array
from typing import NamedTuple

from cython.parallel cimport prange
from cython cimport auto_pickle, floating
from libc.math cimport fmax, fmin, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free

cdef enum:
    ROWS_AT_ONCE = 256      # of a thread

# What scaled numbers are clipped to, smoothly; and beyond which they are all alike: its square is finite.
NUMBER_LIMIT, LARGEST_NUMBER = 3.0, 1e100

cdef double CLIP = NUMBER_LIMIT, LARGEST = LARGEST_NUMBER


class ColumnFacts(NamedTuple):
    """What becomes of a column.

    is_number : else it holds codes of categories, from 0
    n : number of categories;  marks_missing : whether NaN has a feature;  center, scale, knots : of a number
    width : of a category's embedding; 0: it has none
    """

    is_number: bool
    marks_missing: bool
    n: int = 0
    center: float = 0.0
    scale: float = 1.0
    knots: object = ()
    width: int = 0


@auto_pickle(False)
cdef class Encoder:
    """What becomes of the columns of a table: a sequence of ColumnFacts."""

    def __cinit__(self, facts):
        cdef const double[::1] knots
        cdef Py_ssize_t k, at = 0
        cdef Column* column
        self.table = Table(<Column*> calloc(max(1, len(facts)), sizeof(Column)), len(facts), 0, 0, 0)
        if self.table.columns == NULL:
            raise MemoryError
        self.facts = tuple(facts)
        knots = self._knots = array("d", [knot for fact in facts for knot in fact.knots])
        for k, fact in enumerate(facts):
            column = &self.table.columns[k]
            column.is_number, column.marks_missing = fact.is_number, fact.marks_missing
            column.center, column.scale, column.first = fact.center, fact.scale, self.table.n_features
            column.n = len(fact.knots) if fact.is_number else fact.n
            if fact.width:
                column.is_embedded = True
                self.table.n_codes += 1
                continue
            if column.is_number and column.n:
                column.knots = &knots[at]
                at += column.n
            self.table.n_features += column.n + column.is_number + column.marks_missing
            self.table.most_active += 3 if column.is_number and column.n else 1

    def __dealloc__(self):
        free(self.table.columns)

    @property
    def n_features(self):
        """Number of features of all columns."""
        return self.table.n_features

    @property
    def most_active(self):
        """Features of a row that are stored, at most."""
        return self.table.most_active

    @property
    def n_codes(self):
        """Number of columns with an embedding."""
        return self.table.n_codes


cdef inline bint is_code(const Column* column, double x) noexcept nogil:
    # Whether x is a category that was seen.
    return 0 <= x < column.n and x == <double> <Py_ssize_t> x


cdef inline Py_ssize_t n_entries(const Column* column, double x) noexcept nogil:
    # Features of x that are stored.
    if column.is_embedded:
        return 0
    if x != x:
        return column.marks_missing
    if column.is_number:
        return 1 if column.n == 0 else 3 if column.knots[0] < x < column.knots[column.n - 1] else 2
    return is_code(column, x)


cdef inline int32_t code_of(const Column* column, double x) noexcept nogil:
    # The row of an embedding: its last one is for a missing category, and an unseen one has none.
    if x != x:
        return <int32_t> column.n if column.marks_missing else -1
    return <int32_t> x if is_code(column, x) else -1


cdef inline Py_ssize_t interval_of(const double* knots, Py_ssize_t n, double x) noexcept nogil:
    # The last knot that is not above x, but at least the first and at most the last but one.
    cdef Py_ssize_t low = 0, high = n - 1, middle
    while high - low > 1:
        middle = (low + high) // 2
        if knots[middle] <= x:
            low = middle
        else:
            high = middle
    return low


cdef inline Py_ssize_t encode_number(const Column* column, double x, int32_t* indices, floating* values) noexcept nogil:
    # s / sqrt(1 + (s / CLIP)**2), and the hat functions of the two neighbouring knots
    cdef double s = fmax(-LARGEST, fmin(LARGEST, (x - column.center) * column.scale)), t
    cdef Py_ssize_t first = column.first + 1 + column.marks_missing, i
    indices[0], values[0] = <int32_t> column.first, <floating> (s / sqrt(1 + (s / CLIP) * (s / CLIP)))
    if column.n == 0:
        return 1
    if not column.knots[0] < x < column.knots[column.n - 1]:
        indices[1] = <int32_t> (first if x <= column.knots[0] else first + column.n - 1)
        values[1] = 1
        return 2
    i = interval_of(column.knots, column.n, x)
    t = (x - column.knots[i]) / (column.knots[i + 1] - column.knots[i])
    indices[1], values[1] = <int32_t> (first + i), <floating> (1 - t)
    indices[2], values[2] = <int32_t> (first + i + 1), <floating> t
    return 3


cdef Py_ssize_t encode_row(const Table* table, const raw* x, int32_t* indices, floating* values,
                           int32_t* codes) noexcept nogil:
    # Writes the features of x (n_columns,) that are stored, and returns how many; codes receives those of embeddings.
    cdef Py_ssize_t k, n = 0, n_codes = 0
    cdef const Column* column
    for k in range(table.n_columns):
        column = &table.columns[k]
        if column.is_embedded:
            codes[n_codes] = code_of(column, x[k])
            n_codes += 1
            continue
        if n_entries(column, x[k]) == 0:
            continue
        if x[k] != x[k]:
            indices[n] = <int32_t> (column.first + (1 if column.is_number else column.n))
        elif column.is_number:
            n += encode_number(column, x[k], indices + n, values + n)
            continue
        else:
            indices[n] = <int32_t> (column.first + <Py_ssize_t> x[k])
        values[n] = 1
        n += 1
    return n


cdef void count_rows(const Table* table, const raw* X, Py_ssize_t n, int64_t* counts) noexcept nogil:
    cdef Py_ssize_t i, k
    for i in range(n):
        counts[i] = 0
        for k in range(table.n_columns):
            counts[i] += n_entries(&table.columns[k], X[i * table.n_columns + k])


cdef void encode_rows(const Table* table, const raw* X, Py_ssize_t n, const int64_t* starts, int32_t* indices,
                      floating* values, int32_t* codes) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        encode_row(table, X + i * table.n_columns, indices + starts[i], values + starts[i], codes + i * table.n_codes)


def count_active(Encoder encoder, const raw[:, ::1] X, int64_t[::1] counts_out, int n_threads=1):
    """counts_out (n,) = number of features that are stored of each row of X (n, n_columns)."""
    cdef Py_ssize_t n = X.shape[0], part
    if not X.size:
        counts_out[:] = 0
        return
    for part in prange((n + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE, nogil=True, num_threads=n_threads, schedule="static"):
        count_rows(&encoder.table, &X[part * ROWS_AT_ONCE, 0], min(<Py_ssize_t> ROWS_AT_ONCE, n - part * ROWS_AT_ONCE),
                   &counts_out[part * ROWS_AT_ONCE])


def encode(Encoder encoder, const raw[:, ::1] X, const int64_t[::1] indptr, floating[::1] data_out,
           int32_t[::1] indices_out, int32_t[:, ::1] codes_out, int n_threads=1):
    """data_out, indices_out (nnz,) = the features of X (n, n_columns) as a CSR with this indptr (n + 1,).

    NaN is a missing value.  A number other than a category's code is a category that was not seen, without a feature.

    codes_out : (n, n_codes), of categories with an embedding the row of it, the last for NaN; -1 if it has none
    """
    cdef Py_ssize_t n = X.shape[0], n_codes = codes_out.shape[1], part
    cdef floating* values = &data_out[0] if data_out.shape[0] else NULL
    cdef int32_t* indices = &indices_out[0] if data_out.shape[0] else NULL
    cdef int32_t* codes = &codes_out[0, 0] if codes_out.size else NULL
    for part in prange((n + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE, nogil=True, num_threads=n_threads, schedule="static"):
        encode_rows(&encoder.table, &X[part * ROWS_AT_ONCE, 0], min(<Py_ssize_t> ROWS_AT_ONCE, n - part * ROWS_AT_ONCE),
                    &indptr[part * ROWS_AT_ONCE], indices, values, codes + part * ROWS_AT_ONCE * n_codes)
