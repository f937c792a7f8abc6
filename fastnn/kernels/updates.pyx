"""The optimizers' updates for gradient ascent, element by element.

Momentum as in I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013: the
velocity holds the learning rate.  RMSprop: T. Tieleman, G. Hinton, lecture 6.5 of "Neural networks for machine
learning" (2012).  Adagrad: J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods", JMLR 12 (2011).  Adam: D. P.
Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015; its bias corrections are numbers of each step,
so nothing here counts steps.  Decoupled decay, as in AdamW: I. Loshchilov, F. Hutter, "Decoupled weight decay
regularization", ICLR 2019.  Clipping: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent
neural networks", ICML 2013.  Max-norm: N. Srebro, J. Rennie, T. Jaakkola, "Maximum-margin matrix factorization" (2004).
"""

from typing import NamedTuple

from cython cimport floating
from libc.math cimport sqrt

from ._math cimport fabs

cdef extern from "<math.h>" nogil:
    float sqrtf(float x) noexcept

#: Code of each update, by name; NO_UPDATE leaves the gradient to the caller.
UPDATES = {
    "none": NO_UPDATE,
    "sgd": SGD,
    "momentum": MOMENTUM,
    "nesterov": NESTEROV,
    "rmsprop": RMSPROP,
    "adagrad": ADAGRAD,
    "adam": ADAM,
}

cdef enum:
    PENALTIES = 3   # numbers of a step before those of its update


class Steps(NamedTuple):
    """How gradients become steps.

    update : code of UPDATES
    table : (n_batches, 3 + n) float64, for the step of each batch: l2 and l1 of the penalties l2 / 2 sum w^2 and
        l1 sum |w|; the share by which weights decay first; and the update's own numbers (see `inplace_update`)
    clip_norm : a longer gradient, of all parameters together, is shortened to this norm; 0: never
    max_norm : longer weights into a hidden unit are shortened to this norm; 0: never
    """

    update: int
    table: object
    clip_norm: float = 0.0
    max_norm: float = 0.0


cdef StepStore open_steps(object steps, Py_ssize_t state_size) except *:
    # The caller keeps steps alive.
    cdef StepStore store
    cdef const double[:, ::1] table = steps.table
    cdef Py_ssize_t i
    store.update, store.clip_norm, store.max_norm = steps.update, steps.clip_norm, steps.max_norm
    store.table = &table[0, 0] if table.shape[0] else NULL
    store.n_columns, store.state_size = table.shape[1], state_size
    store.penalised = False
    for i in range(table.shape[0]):
        store.penalised = store.penalised or table[i, 0] != 0 or table[i, 1] != 0
    return store


cdef Step step_at(const StepStore* steps, Py_ssize_t batch) noexcept nogil:
    cdef Step step
    cdef const double* numbers = steps.table + batch * steps.n_columns
    step.update, step.state_size, step.scale = steps.update, steps.state_size, 1
    step.l2, step.l1, step.decay = numbers[0], numbers[1], numbers[2]
    step.hyperparameters = numbers + PENALTIES
    return step


cdef double dot(const floating* a, const floating* b, Py_ssize_t n) noexcept nogil:
    # Eight sums side by side, so that an addition need not wait for the one before.
    cdef double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0
    cdef Py_ssize_t i = 0
    while i + 8 <= n:
        s0 += <double> a[i] * b[i]
        s1 += <double> a[i + 1] * b[i + 1]
        s2 += <double> a[i + 2] * b[i + 2]
        s3 += <double> a[i + 3] * b[i + 3]
        s4 += <double> a[i + 4] * b[i + 4]
        s5 += <double> a[i + 5] * b[i + 5]
        s6 += <double> a[i + 6] * b[i + 6]
        s7 += <double> a[i + 7] * b[i + 7]
        i += 8
    while i < n:
        s0 += <double> a[i] * b[i]
        i += 1
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


cdef double sum_of_squares(const floating* values, Py_ssize_t n) noexcept nogil:
    return dot(values, values, n)


cdef void add(floating* sum_, const floating* other, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(begin, end):
        sum_[i] += other[i]


cdef void add_up(Py_ssize_t n_shards, Py_ssize_t first, Py_ssize_t last, Py_ssize_t distance, Py_ssize_t begin,
                 Py_ssize_t end, floating* gradients) noexcept nogil:
    # Adds up numbers begin to end of the shards' gradients, or of other parts, which lie at a distance: neighbours in
    # pairs, then these sums in pairs, and so on; of all pairs, those that lie within shards first to last.
    cdef Py_ssize_t width = 1, shard
    while width < n_shards:
        shard = 0
        while shard + width < n_shards:
            if first <= shard and min(shard + 2 * width, n_shards) <= last:
                add(gradients + shard * distance, gradients + (shard + width) * distance, begin, end)
            shard += 2 * width
        width *= 2


cdef double penalty(const Step* step, const floating* weights, Py_ssize_t n) noexcept nogil:
    # What the penalties subtract from the objective for these weights.
    cdef double total = step.l2 / 2 * sum_of_squares(weights, n) if step.l2 != 0 else 0.0
    cdef double sum_ = 0
    cdef Py_ssize_t i
    if step.l1 != 0:
        for i in range(n):
            sum_ += fabs(weights[i])
    return total + step.l1 * sum_


cdef double clipped(double norm_squared, double limit) noexcept nogil:
    # The factor that shortens a gradient; 1e-6 keeps the quotient finite.
    cdef double factor = limit / (sqrt(norm_squared) + 1e-6)
    return factor if factor < 1 else 1.0


cdef void limit_norms(floating* W, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t n_columns, bint by_rows,
                      floating* scratch, double limit) noexcept nogil:
    # The weights into a hidden unit are a column of W, or a row if W is transposed.  scratch has room for n_columns
    # numbers.
    cdef Py_ssize_t i, j
    cdef double norm
    cdef floating factor
    if by_rows:
        for i in range(n_rows):
            norm = sqrt(sum_of_squares(W + i * stride, n_columns))
            if norm > limit:
                factor = <floating> (limit / norm)
                for j in range(n_columns):
                    W[i * stride + j] *= factor
        return
    for j in range(n_columns):
        scratch[j] = 0
    for i in range(n_rows):
        for j in range(n_columns):
            scratch[j] += W[i * stride + j] * W[i * stride + j]
    for j in range(n_columns):
        norm = sqrt(scratch[j])
        scratch[j] = <floating> (limit / norm if norm > limit else 1.0)
    for i in range(n_rows):
        for j in range(n_columns):
            W[i * stride + j] *= scratch[j]


cdef inline floating root(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef void subtract_l1(floating scale, floating l1, const floating* parameters, floating* gradient, Py_ssize_t begin,
                      Py_ssize_t end) noexcept nogil:
    # Scales the gradient and subtracts that of the penalty l1.
    cdef Py_ssize_t i
    for i in range(begin, end):
        gradient[i] = scale * gradient[i] - (l1 if parameters[i] > 0 else -l1 if parameters[i] < 0 else <floating> 0.0)


cdef void update_range(const Step* step, bint is_weight, floating* parameters, floating* gradient, floating* state,
                       Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # One step of parameters begin to end; may overwrite the gradient.  Each loop goes over memory once, with the scale,
    # l2 and decay in it; l1 has a pass of its own, since the choice by sign would slow all loops.  What a loop writes
    # and uses again is in a local variable: Adam took 2.7 times as long where it read back what it had just written,
    # and vectors straddled cache lines.  The penalty's product is added, not subtracted: NEON has no a * b - c, so of
    # two products GCC would fuse one in vectors and the other in what is left over.
    cdef Py_ssize_t i
    cdef const double* numbers = step.hyperparameters
    cdef floating scale = <floating> step.scale, minus_l2 = -0.0, kept = 1
    cdef floating rate, momentum, carried, fresh, rho, rho_fresh, epsilon, correction, g, m, v
    cdef floating* square = state + step.state_size  # Adam's second slot
    if is_weight:
        minus_l2, kept = <floating> -step.l2, <floating> (1 - step.decay)
        if step.l1 != 0:
            subtract_l1(scale, <floating> step.l1, parameters, gradient, begin, end)
            scale = 1
    if step.update == NO_UPDATE:
        for i in range(begin, end):
            gradient[i] = scale * gradient[i] + minus_l2 * parameters[i]
        return
    rate = <floating> numbers[0]
    if step.update == SGD:
        for i in range(begin, end):
            g = scale * gradient[i] + minus_l2 * parameters[i]
            parameters[i] = rate * g + kept * parameters[i]
    elif step.update == MOMENTUM or step.update == NESTEROV:
        momentum = <floating> numbers[1]
        carried, fresh = (momentum, rate) if step.update == NESTEROV else (<floating> 1.0, <floating> 0.0)
        for i in range(begin, end):
            g = scale * gradient[i] + minus_l2 * parameters[i]
            v = momentum * state[i] + rate * g
            state[i] = v
            parameters[i] = kept * parameters[i] + (carried * v + fresh * g)
    elif step.update == RMSPROP:
        rho, rho_fresh, epsilon = <floating> numbers[1], <floating> (1 - numbers[1]), <floating> numbers[2]
        for i in range(begin, end):
            g = scale * gradient[i] + minus_l2 * parameters[i]
            v = rho * state[i] + rho_fresh * (g * g)
            state[i] = v
            parameters[i] = kept * parameters[i] + rate * g / (root(v) + epsilon)
    elif step.update == ADAGRAD:
        epsilon = <floating> numbers[1]
        for i in range(begin, end):
            g = scale * gradient[i] + minus_l2 * parameters[i]
            v = state[i] + g * g
            state[i] = v
            parameters[i] = kept * parameters[i] + rate * g / (root(v) + epsilon)
    elif step.update == ADAM:
        momentum, fresh = <floating> numbers[1], <floating> (1 - numbers[1])
        rho, rho_fresh = <floating> numbers[2], <floating> (1 - numbers[2])
        correction, epsilon = <floating> numbers[3], <floating> numbers[4]
        for i in range(begin, end):
            g = scale * gradient[i] + minus_l2 * parameters[i]
            m = momentum * state[i] + fresh * g
            v = rho * square[i] + rho_fresh * (g * g)
            state[i], square[i] = m, v
            parameters[i] = kept * parameters[i] + rate * m / (correction * root(v) + epsilon)


def inplace_update(int update, const double[::1] numbers, floating[::1] parameters, floating[::1] gradient,
                   floating[:, ::1] state, double scale=1.0, bint is_weight=True):
    """One step: parameters (n,) move along gradient (n,); state (n_slots, n) is the optimizer's.

    The gradient is scaled, and the penalties' gradient is subtracted if the parameters are weights, which also decay;
    "none" puts that into gradient, and leaves the parameters alone; the others may overwrite gradient.

    numbers : a row of `Steps.table`: l2, l1, decay, and then for "sgd" the learning rate; "momentum" and "nesterov":
        learning rate, momentum; "rmsprop": learning rate, rho, epsilon; "adagrad": learning rate, epsilon; "adam":
        learning rate / (1 - beta_1**t), beta_1, beta_2, 1 / sqrt(1 - beta_2**t), epsilon
    """
    cdef Step step
    step.update, step.state_size, step.scale = update, state.shape[1], scale
    step.l2, step.l1, step.decay = numbers[0], numbers[1], numbers[2]
    step.hyperparameters = &numbers[0] + PENALTIES
    if parameters.shape[0]:
        with nogil:
            update_range(&step, is_weight, &parameters[0], &gradient[0], &state[0, 0] if state.shape[0] else NULL, 0,
                         parameters.shape[0])


def inplace_max_norm(floating[:, ::1] W, double limit, bint by_rows=False):
    """Shorten each column of W (n_in, n_out), or each row, that is longer than limit to that norm."""
    cdef floating[:, ::1] scratch
    if not W.size:
        return
    scratch = W[:1].copy()
    with nogil:
        limit_norms(&W[0, 0], W.shape[1], W.shape[0], W.shape[1], by_rows, &scratch[0, 0], limit)
