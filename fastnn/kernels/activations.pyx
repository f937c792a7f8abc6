"""Activations of hidden layers, in place, and their backward passes.

Most backward passes need only the layer's output Y, which has overwritten the pre-activation.  If the output does not
determine the derivative (GELU, SiLU), or with dropout, the forward pass also stores the derivatives: the slopes.
Loops write through a single pointer where possible, so that the compiler sees no overlap and vectorises them.

GELU: D. Hendrycks, K. Gimpel, "Gaussian error linear units" (2016), in its exact form; SiLU: S. Elfwing, E. Uchibe,
K. Doya, "Sigmoid-weighted linear units" (2017); ELU: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate
deep network learning by exponential linear units" (2015); leaky ReLU: A. Maas, A. Hannun, A. Ng, "Rectifier
nonlinearities improve neural network acoustic models" (2013).
"""

from cython cimport floating
from libc.math cimport erf, log1p

from ._math cimport exp_, expm1_, tanh_

#: Code of each activation, by the name that users give.
ACTIVATIONS = {
    "identity": IDENTITY,
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "elu": ELU,
    "softplus": SOFTPLUS,
    "gelu": GELU,
    "silu": SILU,
}

#: Names of the activations whose derivative the output alone does not give.
SLOPED = frozenset(name for name, code in ACTIVATIONS.items() if wants_slopes(code))

#: Slope of the leaky ReLU below 0.
LEAKY_SLOPE = 0.01

cdef double LEAK = LEAKY_SLOPE
cdef double HALF_ROOT = 0.7071067811865476      # sqrt(1 / 2)
cdef double DENSITY_AT_0 = 0.3989422804014327   # 1 / sqrt(2 pi)


cdef inline floating sigmoid_(floating z) noexcept nogil:
    # 1 / (1 + exp(-z)), without exp of a positive number.
    cdef floating e = exp_(-z if z > 0 else z)
    return (e if z < 0 else <floating> 1.0) / (<floating> 1.0 + e)


cdef inline floating gelu_(floating z, floating* slope) noexcept nogil:
    # z times the normal distribution function; value and slope tend to 0 at minus infinity.
    cdef double share = 0.5 + 0.5 * erf(HALF_ROOT * z)
    if z < -40:
        slope[0] = 0
        return 0
    slope[0] = <floating> (share + z * DENSITY_AT_0 * exp_(-0.5 * <double> z * z) if z < 40 else share)
    return <floating> (z * share)


cdef inline floating silu_(floating z, floating* slope) noexcept nogil:
    cdef floating s = sigmoid_(z)
    if z < -1000:
        slope[0] = 0
        return 0
    slope[0] = s * (<floating> 1.0 + z * (<floating> 1.0 - s)) if z < 1000 else s
    return z * s


cdef void activate(int activation, floating* Z, floating* slopes, Py_ssize_t n) noexcept nogil:
    # Z (n,) becomes activation(Z); slopes (n,), unless NULL, the derivative by Z.
    cdef Py_ssize_t i
    cdef floating slope
    if activation == TANH:
        for i in range(n):
            Z[i] = tanh_(Z[i])
    elif activation == SIGMOID:
        for i in range(n):
            Z[i] = sigmoid_(Z[i])
    elif activation == RELU:
        # Written so that a NaN passes through: divergence must not look like a dead unit.
        for i in range(n):
            Z[i] = <floating> 0.0 if Z[i] < 0 else Z[i]
    elif activation == LEAKY_RELU:
        for i in range(n):
            Z[i] = <floating> LEAK * Z[i] if Z[i] < 0 else Z[i]
    elif activation == ELU:
        for i in range(n):
            Z[i] = expm1_(Z[i]) if Z[i] < 0 else Z[i]
    elif activation == SOFTPLUS:
        for i in range(n):
            Z[i] = (<floating> 0.0 if Z[i] < 0 else Z[i]) + <floating> log1p(exp_(-Z[i] if Z[i] > 0 else Z[i]))
    elif activation == GELU:
        for i in range(n):
            Z[i] = gelu_(Z[i], &slopes[i] if slopes != NULL else &slope)
    elif activation == SILU:
        for i in range(n):
            Z[i] = silu_(Z[i], &slopes[i] if slopes != NULL else &slope)
    if slopes != NULL and not wants_slopes(activation):
        for i in range(n):
            slopes[i] = 1
        backprop_activation(activation, Z, NULL, slopes, n)


cdef void backprop_activation(int activation, const floating* Y, const floating* slopes, floating* dY,
                              Py_ssize_t n) noexcept nogil:
    # dY (n,) becomes dY * activation'(Z), from slopes unless they are NULL, otherwise from the output Y.
    cdef Py_ssize_t i
    if slopes != NULL:
        for i in range(n):
            dY[i] = dY[i] * slopes[i]
    elif activation == TANH:
        for i in range(n):
            dY[i] = dY[i] * (<floating> 1.0 - Y[i] * Y[i])
    elif activation == SIGMOID:
        for i in range(n):
            dY[i] = dY[i] * (Y[i] * (<floating> 1.0 - Y[i]))
    elif activation == RELU:
        for i in range(n):
            dY[i] = dY[i] if Y[i] > 0 else <floating> 0.0
    elif activation == LEAKY_RELU:
        for i in range(n):
            dY[i] = dY[i] if Y[i] > 0 else <floating> LEAK * dY[i]
    elif activation == ELU:
        for i in range(n):
            dY[i] = dY[i] * (Y[i] + <floating> 1.0) if Y[i] < 0 else dY[i]
    elif activation == SOFTPLUS:
        # 1 - exp(-softplus(z)) = sigmoid(z)
        for i in range(n):
            dY[i] = dY[i] * -expm1_(-Y[i])


def inplace_activation(int activation, floating[:, ::1] Z):
    """Z (n, width) becomes Y = activation(Z)."""
    if Z.size:
        with nogil:
            activate(activation, &Z[0, 0], <floating*> NULL, Z.shape[0] * Z.shape[1])


def inplace_activation_and_slopes(int activation, floating[:, ::1] Z, floating[:, ::1] slopes_out):
    """Z (n, width) becomes Y = activation(Z), slopes_out its derivative by Z."""
    if Z.size:
        with nogil:
            activate(activation, &Z[0, 0], &slopes_out[0, 0], Z.shape[0] * Z.shape[1])


def inplace_backprop_activation(int activation, const floating[:, ::1] Y, floating[:, ::1] dY):
    """dY (n, width), a gradient by the output Y, becomes the gradient by the pre-activation.

    Not for GELU and SiLU, whose derivative needs more than Y.
    """
    if Y.size:
        with nogil:
            backprop_activation(activation, &Y[0, 0], <const floating*> NULL, &dY[0, 0], Y.shape[0] * Y.shape[1])
