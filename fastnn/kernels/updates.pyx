"""Updates of the parameters from a gradient that is to be ascended, element by element.

Momentum as in I. Sutskever et al., "On the importance of initialization and momentum in deep
learning", ICML 2013: the velocity holds the learning rate.
"""

from cython cimport floating

#: Code of each update, by name; NO_UPDATE leaves the gradient to the caller.
UPDATES = {"none": NO_UPDATE, "sgd": SGD, "momentum": MOMENTUM, "nesterov": NESTEROV}


cdef void update_range(int update, const double* hyperparameters, floating* parameters, const floating* gradient,
                       floating* state, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating learning_rate, momentum
    if update == SGD:
        learning_rate = <floating> hyperparameters[0]
        for i in range(begin, end):
            parameters[i] += learning_rate * gradient[i]
    elif update == MOMENTUM or update == NESTEROV:
        learning_rate = <floating> hyperparameters[0]
        momentum = <floating> hyperparameters[1]
        for i in range(begin, end):
            state[i] = momentum * state[i] + learning_rate * gradient[i]
        if update == MOMENTUM:
            for i in range(begin, end):
                parameters[i] += state[i]
        else:
            for i in range(begin, end):
                parameters[i] += momentum * state[i] + learning_rate * gradient[i]


def inplace_update(int update, const double[::1] hyperparameters, floating[::1] parameters,
                   const floating[::1] gradient, floating[:, ::1] state):
    """One step: parameters (n,) move along gradient (n,); state (n_slots, n) is the optimizer's own.

    hyperparameters: "sgd" (learning_rate,); "momentum" and "nesterov" (learning_rate, momentum).
    """
    if parameters.shape[0]:
        with nogil:
            update_range(update, &hyperparameters[0] if hyperparameters.shape[0] else NULL, &parameters[0],
                         &gradient[0], &state[0, 0] if state.shape[0] else NULL, 0, parameters.shape[0])
