from cython cimport floating

# One code an activation; activations.pyx gives them their names.
cdef enum:
    IDENTITY
    TANH
    SIGMOID
    RELU

cdef void activate(int activation, floating* Z, Py_ssize_t n) noexcept nogil

cdef void backprop_activation(int activation, const floating* Y, floating* dY, Py_ssize_t n) noexcept nogil
