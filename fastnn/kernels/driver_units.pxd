from cython cimport floating

from .plan cimport Job

cdef void train_by_units(const Job* job, floating* work) noexcept nogil
