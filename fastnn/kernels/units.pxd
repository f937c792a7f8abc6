from cython cimport floating

from .model cimport Batch, Model
from .updates cimport StepStore

cdef Py_ssize_t units_work_size(const Model* model, Py_ssize_t batch_size) noexcept nogil

cdef void climb_by_units(const Model* model, const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                         const StepStore* steps, floating* parameters, floating* state, floating* gradient,
                         floating* work, Py_ssize_t* position, double* log_likelihood, double* penalties,
                         double deadline, int n_threads) noexcept nogil
