from cython cimport floating
from libc.stdint cimport int32_t

# A table with a row of numbers for each category of a column.
cdef struct Embedding:
    Py_ssize_t place        # offset in a vector of parameters
    Py_ssize_t width        # numbers of a row

cdef void gather_rows(const Embedding* embeddings, int n_embeddings, const int32_t* codes, const Py_ssize_t* order,
                      Py_ssize_t first, Py_ssize_t n, const floating* parameters, floating* G,
                      Py_ssize_t g_stride) noexcept nogil

cdef void scatter_rows(const Embedding* embeddings, int n_embeddings, const int32_t* codes, const Py_ssize_t* order,
                       Py_ssize_t first, Py_ssize_t n, const floating* dG, Py_ssize_t g_stride, floating* target,
                       floating alpha) noexcept nogil
