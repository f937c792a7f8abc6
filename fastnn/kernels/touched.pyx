"""Very sparse rows: a step moves only the rows of the first weight whose columns its batch touches.

A penalty or momentum would move the other rows too, but by a known linear map: with no gradient but that of
the penalty, a step takes a parameter w and its velocity v to M (w, v), and k steps take them to M**k (w, v).
So a row is brought up to date when a batch next touches it, and all rows at the end; the cost of a step is
proportional to the non-zeros of its batch.  For a penalty without momentum this is the lazy update of
B. Carpenter, "Lazy sparse stochastic gradient descent for regularized multinomial logistic regression" (2008).

One vector, touched (1 + 2 n_in,), keeps the state of the columns: how many the current batch has touched so
far; for each column how many steps its row has taken, or the complement (~) of that number if the current
batch touches it; and the columns that the batch touches.
"""

from cython cimport floating
from libc.stdint cimport int64_t

from .plan cimport Job
from .updates cimport MOMENTUM, NESTEROV, Step, StepStore, open_steps, step_at, update_range


cdef struct Map:
    # M: (w, v) becomes (ww w + wv v, vw w + vv v)
    double ww, wv, vw, vv


cdef inline Map compose(Map a, Map b) noexcept nogil:
    cdef Map c
    c.ww, c.wv = a.ww * b.ww + a.wv * b.vw, a.ww * b.wv + a.wv * b.vv
    c.vw, c.vv = a.vw * b.ww + a.vv * b.vw, a.vw * b.wv + a.vv * b.vv
    return c


cdef Map idle_steps(const Step* step, int64_t n) noexcept nogil:
    # M**n: n steps of a parameter w that has no gradient but the penalty's, -l2 w; see updates.pyx.
    cdef Map one, power
    cdef double shrink = step.hyperparameters[0] * step.l2, momentum
    one.ww, one.wv, one.vw, one.vv = 1 - shrink, 0, 0, 0
    if step.update == MOMENTUM or step.update == NESTEROV:
        momentum = step.hyperparameters[1]
        one.ww, one.wv, one.vw, one.vv = 1 - shrink, momentum, -shrink, momentum
        if step.update == NESTEROV:
            one.ww, one.wv = 1 - shrink - momentum * shrink, momentum * momentum
    power.ww, power.wv, power.vw, power.vv = 1, 0, 0, 1
    while n > 0:
        if n % 2:
            power = compose(power, one)
        one = compose(one, one)
        n //= 2
    return power


cdef void bring_up(const Step* step, floating* W, floating* state, Py_ssize_t begin, Py_ssize_t end,
                   int64_t n_idle) noexcept nogil:
    cdef Map power
    cdef Py_ssize_t i
    cdef floating w
    if n_idle == 0:
        return
    power = idle_steps(step, n_idle)
    for i in range(begin, end):
        w = W[i]
        if state != NULL:
            W[i] = <floating> power.ww * w + <floating> power.wv * state[i]
            state[i] = <floating> power.vw * w + <floating> power.vv * state[i]
        else:
            W[i] = <floating> power.ww * w


cdef void touch_columns(const Job* job, const Step* step, Py_ssize_t first, Py_ssize_t n, floating* dW) noexcept nogil:
    # For the columns that a batch of n rows, from position first on, touches: brings their rows of the first weight up
    # to the step before the batch's, and clears their gradient.  May be called again.
    cdef floating* W = <floating*> job.parameters
    cdef floating* state = <floating*> job.state
    cdef Py_ssize_t n_in = job.store.n_columns, n_out = job.plan.layers[0].n_out, position, row, i, c
    cdef int64_t at, n_steps = first // job.plan.batch_size
    cdef int64_t* touched = job.touched
    cdef int64_t* taken = touched + 1
    cdef int64_t* columns = taken + n_in
    for position in range(first, first + n):
        row = job.order[position] if job.order != NULL else position
        for at in range(job.store.row_starts[row], job.store.row_starts[row + 1]):
            c = job.store.columns[at]
            if taken[c] < 0:
                continue
            bring_up(step, W, state, c * n_out, (c + 1) * n_out, n_steps - taken[c])
            for i in range(c * n_out, (c + 1) * n_out):
                dW[i] = 0
            taken[c] = ~n_steps
            columns[touched[0]] = c
            touched[0] += 1


cdef void step_touched(const Step* step, floating* W, floating* state, floating* dW, Py_ssize_t n_in,
                       Py_ssize_t n_out, int64_t* touched, int64_t n_steps) noexcept nogil:
    # The optimizer's step for the touched rows, which have then taken n_steps + 1 steps.
    cdef int64_t* taken = touched + 1
    cdef int64_t* columns = taken + n_in
    cdef Py_ssize_t k, begin, end
    for k in range(touched[0]):
        begin, end = columns[k] * n_out, (columns[k] + 1) * n_out
        update_range(step, True, W, dW, state, begin, end)
        taken[columns[k]] = n_steps + 1
    touched[0] = 0


def bring_up_to_date(steps, floating[:, ::1] W, floating[:, ::1] state, int64_t[::1] touched, int64_t n_steps):
    """Bring all rows of W (n_in, n_out) to n_steps, the steps of the epoch so far, which must be all alike.

    steps : Steps;  state : (n_slots, n_in * n_out or more), the optimizer's
    touched : (1 + 2 n_in,) as `epoch.train` left it
    """
    cdef Py_ssize_t c, n_out = W.shape[1]
    cdef int64_t taken
    cdef StepStore store = open_steps(steps, state.shape[1])
    cdef Step step = step_at(&store, 0)
    with nogil:
        for c in range(W.shape[0]):
            taken = touched[1 + c]
            if taken >= 0:  # rows of an unfinished batch are up to date
                bring_up(&step, &W[0, 0], &state[0, 0] if state.shape[0] else NULL, c * n_out, (c + 1) * n_out,
                         n_steps - taken)
                touched[1 + c] = n_steps
