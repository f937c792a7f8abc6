"""Activations of hidden layers, in place, and their backward passes.

Most backward passes need only the layer's output Y, which has overwritten the pre-activation.  If the output does not
determine the derivative (GELU, SiLU), or with dropout, the forward pass also stores the derivatives: the slopes.
All loops vectorise, so that an epoch takes about as long with any activation: they call no function, and choose
between values only, not between ways.

GELU: D. Hendrycks, K. Gimpel, "Gaussian error linear units" (2016), in its exact form; SiLU: S. Elfwing, E. Uchibe,
K. Doya, "Sigmoid-weighted linear units" (2017); ELU: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate
deep network learning by exponential linear units" (2015); leaky ReLU: A. Maas, A. Hannun, A. Ng, "Rectifier
nonlinearities improve neural network acoustic models" (2013).
"""

from cython cimport floating

from ._math cimport exp_, expm1_, normal_tail, sigmoid_, softplus_, tanh_

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
cdef double DENSITY_AT_0 = 0.3989422804014327  # 1 / sqrt(2 pi)

# |z| from which exp counts as 0 in both dtypes: what is multiplied by it must be finite.
cdef enum:
    GELU_END = 38
    SILU_END = 1000


cdef inline floating gelu_(floating z, floating* slope) noexcept nogil:
    # z F(z) = max(z, 0) - x F(-x), where F is the normal distribution function and x = |z|
    cdef floating tail, scale, slope_below, x = -z if z < 0 else z
    x = <floating> GELU_END if x > GELU_END else x
    tail = normal_tail(x, &scale)
    slope_below = scale * (tail - x * <floating> DENSITY_AT_0)
    slope[0] = slope_below if z < 0 else <floating> 1.0 - slope_below
    return (<floating> 0.0 if z < 0 else z) - scale * (x * tail)


cdef inline floating silu_(floating z, floating* slope) noexcept nogil:
    # z sigmoid(z) = max(z, 0) - x sigmoid(-x), where x = |z|
    cdef floating e, tail, slope_below, x = -z if z < 0 else z
    x = <floating> SILU_END if x > SILU_END else x
    e = exp_(-x)
    tail = e / (<floating> 1.0 + e)
    slope_below = tail * (<floating> 1.0 - x / (<floating> 1.0 + e))
    slope[0] = slope_below if z < 0 else <floating> 1.0 - slope_below
    return (<floating> 0.0 if z < 0 else z) - x * tail


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
            Z[i] = softplus_(Z[i])
    elif activation == GELU and slopes == NULL:
        for i in range(n):
            Z[i] = gelu_(Z[i], &slope)
    elif activation == GELU:
        for i in range(n):
            Z[i] = gelu_(Z[i], &slopes[i])
    elif activation == SILU and slopes == NULL:
        for i in range(n):
            Z[i] = silu_(Z[i], &slope)
    elif activation == SILU:
        for i in range(n):
            Z[i] = silu_(Z[i], &slopes[i])
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
