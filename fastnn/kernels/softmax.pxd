from cython cimport floating

cdef void softmax_rows(floating* Z, Py_ssize_t n, Py_ssize_t n_classes) noexcept nogil

cdef double cross_entropy_rows(floating* Z, const Py_ssize_t* y, Py_ssize_t n, Py_ssize_t n_classes,
                               double scale) noexcept nogil
