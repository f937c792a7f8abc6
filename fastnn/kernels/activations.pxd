from cython cimport floating

# The code of each activation; activations.pyx has the names.
cdef enum:
    IDENTITY
    TANH
    SIGMOID
    RELU
    LEAKY_RELU
    ELU
    SOFTPLUS
    GELU
    SILU


cdef inline bint wants_slopes(int activation) noexcept nogil:
    # Whether the output alone does not give the derivative.
    return activation == GELU or activation == SILU


cdef void activate(int activation, floating* Z, floating* slopes, Py_ssize_t n) noexcept nogil
cdef void backprop_activation(int activation, const floating* Y, const floating* slopes, floating* dY,
                              Py_ssize_t n) noexcept nogil
