"""Activations of hidden layers, in place, and their backward passes from the output.

Each backward pass needs the layer's output Y alone: the pre-activation was overwritten by it.
One pointer is written, so that the compiler sees that nothing overlaps and vectorises the loop.
"""

from cython cimport floating

from ._math cimport exp_, tanh_

#: Code of each activation, by the name that users give.
ACTIVATIONS = {"identity": IDENTITY, "tanh": TANH, "sigmoid": SIGMOID, "relu": RELU}


cdef void activate(int activation, floating* Z, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating e
    if activation == TANH:
        for i in range(n):
            Z[i] = tanh_(Z[i])
    elif activation == SIGMOID:
        # 1 / (1 + exp(-z)), without exp of a positive number.
        for i in range(n):
            e = exp_(-Z[i] if Z[i] > 0 else Z[i])
            Z[i] = (e if Z[i] < 0 else <floating> 1.0) / (1 + e)
    elif activation == RELU:
        # Written so that a NaN passes through: divergence must not look like a dead unit.
        for i in range(n):
            Z[i] = <floating> 0.0 if Z[i] < 0 else Z[i]


cdef void backprop_activation(int activation, const floating* Y, floating* dY, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if activation == TANH:
        for i in range(n):
            dY[i] = dY[i] * (1 - Y[i] * Y[i])
    elif activation == SIGMOID:
        for i in range(n):
            dY[i] = dY[i] * (Y[i] * (1 - Y[i]))
    elif activation == RELU:
        for i in range(n):
            dY[i] = dY[i] if Y[i] > 0 else <floating> 0.0


def inplace_activation(int activation, floating[:, ::1] Z):
    """Z (n, width) becomes Y = activation(Z)."""
    if Z.size:
        with nogil:
            activate(activation, &Z[0, 0], Z.shape[0] * Z.shape[1])


def inplace_backprop_activation(int activation, const floating[:, ::1] Y, floating[:, ::1] dY):
    """dY (n, width), a gradient by the output Y, becomes the gradient by the pre-activation."""
    if Y.size:
        with nogil:
            backprop_activation(activation, &Y[0, 0], &dY[0, 0], Y.shape[0] * Y.shape[1])
