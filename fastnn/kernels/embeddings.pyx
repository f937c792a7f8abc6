"""Embeddings of categories: each has a row of trained numbers, which are inputs of the first layer.

Forward, a row of data gathers one row of each table; backward, its gradient is added to the same rows.  So a category
costs the width of its table, however many categories there are (C. Guo, F. Berkhahn, "Entity embeddings of categorical
variables", 2016).
"""

from cython cimport floating
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

cdef enum:
    MOST_EMBEDDINGS = 64    # that the functions for Python take at a time


cdef void gather_rows(const Embedding* embeddings, int n_embeddings, const int32_t* codes, const Py_ssize_t* order,
                      Py_ssize_t first, Py_ssize_t n, const floating* parameters, floating* G,
                      Py_ssize_t g_stride) noexcept nogil:
    # G (n, sum of the widths) = the rows of the tables in parameters that n rows of data have, from position first of
    # the order on, by their codes (n_rows, n_embeddings); 0 for the code -1
    cdef Py_ssize_t i, row, width
    cdef const int32_t* own
    cdef floating* g
    cdef int k
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        own, g = codes + row * n_embeddings, G + i * g_stride
        for k in range(n_embeddings):
            width = embeddings[k].width
            if own[k] >= 0:
                memcpy(g, parameters + embeddings[k].place + own[k] * width, width * sizeof(floating))
            else:
                memset(g, 0, width * sizeof(floating))
            g += width


cdef void scatter_rows(const Embedding* embeddings, int n_embeddings, const int32_t* codes, const Py_ssize_t* order,
                       Py_ssize_t first, Py_ssize_t n, const floating* dG, Py_ssize_t g_stride, floating* target,
                       floating alpha) noexcept nogil:
    # The same rows of the tables in target += alpha * dG (n, sum of the widths), one row of data after the other
    cdef Py_ssize_t i, j, row, width
    cdef const int32_t* own
    cdef const floating* g
    cdef floating* goal
    cdef int k
    for i in range(n):
        row = order[first + i] if order != NULL else first + i
        own, g = codes + row * n_embeddings, dG + i * g_stride
        for k in range(n_embeddings):
            width = embeddings[k].width
            goal = target + embeddings[k].place + own[k] * width
            for j in range(width if own[k] >= 0 else 0):
                goal[j] += alpha * g[j]
            g += width


cdef void lay_out(const Py_ssize_t[:, ::1] shapes, Embedding* embeddings) noexcept nogil:
    # Tables of these shapes, one after the other.
    cdef Py_ssize_t k, place = 0
    for k in range(shapes.shape[0]):
        embeddings[k] = Embedding(place, shapes[k, 1])
        place += shapes[k, 0] * shapes[k, 1]


def gather(const int32_t[:, ::1] codes, const floating[::1] tables, const Py_ssize_t[:, ::1] shapes,
           floating[:, ::1] G_out):
    """G_out (n, sum of the widths) = for each row of codes (n, n_tables) those rows of the tables; 0 for -1.

    tables : vector of them, one after the other
    shapes : (n_tables, 2) rows and width of each, of 64 at most
    """
    cdef Embedding[MOST_EMBEDDINGS] embeddings
    if G_out.size:
        with nogil:
            lay_out(shapes, &embeddings[0])
            gather_rows(&embeddings[0], <int> shapes.shape[0], &codes[0, 0], NULL, 0, codes.shape[0], &tables[0],
                        &G_out[0, 0], G_out.shape[1])


def scatter(const int32_t[:, ::1] codes, const floating[:, ::1] dG, const Py_ssize_t[:, ::1] shapes,
            floating[::1] tables_out, double alpha=1.0):
    """Add alpha * dG (n, sum of the widths) to the rows of the tables that codes (n, n_tables) name, as for gather."""
    cdef Embedding[MOST_EMBEDDINGS] embeddings
    if dG.size:
        with nogil:
            lay_out(shapes, &embeddings[0])
            scatter_rows(&embeddings[0], <int> shapes.shape[0], &codes[0, 0], NULL, 0, codes.shape[0], &dG[0, 0],
                         dG.shape[1], &tables_out[0], <floating> alpha)
