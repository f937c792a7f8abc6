from cython cimport floating

from .model cimport Batch, Model
from .updates cimport StepStore

cdef enum:
    N_SLICES = 4    # the most slices of a layer, and so the most threads that can help

# How the weights stand while training.  But for the first case, that of the output layer, if it is long, is transposed.
cdef enum:
    STORED          # all of them as (n_in, n_out)
    TRANSPOSED      # the first one as (n_out, n_in)
    LINES           # the first one as (n_in, n_out), where each row begins a line of the cache
    SLICES          # the first one so for each slice of units, one after the other

cpdef bint transposes_output(const Py_ssize_t[::1] sizes) noexcept

cdef int slices_at_most(const Model* model) noexcept nogil

cdef void arrange(Model* model, Py_ssize_t number_size) noexcept nogil

cdef Py_ssize_t units_work_size(const Model* model, Py_ssize_t batch_size) noexcept nogil

cdef void climb_by_units(const Model* model, const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                         const StepStore* steps, floating* parameters, floating* state, floating* gradient,
                         floating* work, Py_ssize_t* position, double* log_likelihood, double* penalties,
                         double deadline, int n_threads) noexcept nogil
