from cython cimport floating


cdef inline floating row_max(const floating* z, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating largest = z[0]
    for j in range(1, n_classes):
        largest = z[j] if z[j] > largest else largest
    return largest


cdef void softmax_rows(floating* Z, Py_ssize_t n, Py_ssize_t n_classes) noexcept nogil

cdef double cross_entropy_rows(floating* Z, const Py_ssize_t* y, Py_ssize_t n, Py_ssize_t n_classes,
                               double scale) noexcept nogil
