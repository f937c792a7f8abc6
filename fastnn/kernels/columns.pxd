from cython cimport floating
from libc.stdint cimport int32_t

# A column of a table and its features, of which the first is the number or the first category.
cdef struct Column:
    bint is_number, marks_missing
    bint is_embedded        # it has a code and no features
    Py_ssize_t first        # place of its first feature
    Py_ssize_t n            # knots, or categories
    double center, scale
    const double* knots

# The columns of a table: how many, how many features they have, how many of these a row stores at most, and codes.
cdef struct Table:
    Column* columns
    Py_ssize_t n_columns, n_features, most_active, n_codes

ctypedef fused raw:
    float
    double

cdef class Encoder:
    cdef Table table
    cdef readonly tuple facts
    cdef object _knots      # keeps the numbers alive

cdef Py_ssize_t encode_row(const Table* table, const raw* x, int32_t* indices, floating* values,
                           int32_t* codes) noexcept nogil
