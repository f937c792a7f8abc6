from cython cimport floating

# One code an optimizer; updates.pyx gives them their names.
cdef enum:
    NO_UPDATE
    SGD
    MOMENTUM
    NESTEROV

cdef void update_range(int update, const double* hyperparameters, floating* parameters, const floating* gradient,
                       floating* state, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
