from cython cimport floating
from libc.stdint cimport int64_t

from .plan cimport Job
from .updates cimport Step

cdef void touch_columns(const Job* job, const Step* step, Py_ssize_t first, Py_ssize_t n, floating* dW) noexcept nogil

cdef void step_touched(const Step* step, floating* W, floating* state, floating* dW, Py_ssize_t n_in,
                       Py_ssize_t n_out, int64_t* touched, int64_t n_steps) noexcept nogil
