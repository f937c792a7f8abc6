from cython cimport floating

from .model cimport Batch, Model
from .updates cimport StepStore

cdef enum:
    N_SLICES = 4    # the most slices of a layer, and so the most threads that can help
    MANY_UNITS = 200    # of a layer that has so many slices
    SLICE_UNITS = 10    # a narrower slice loses more in its products than a thread gains
    ALIGNED_UNITS = 8   # slices of wide layers begin at multiples of this

# How the weights stand while training.  But for the first case, that of the output layer, if it is long, is transposed.
cdef enum:
    STORED          # all of them as (n_in, n_out)
    TRANSPOSED      # the first one as (n_out, n_in)
    PANELS          # the first one in panels: see affine.pyx
    SLICES          # the first one as (n_in, n_units) for each slice of units, where a row begins a line of the cache

cpdef bint transposes_output(const Py_ssize_t[::1] sizes) noexcept

cdef int slices_at_most(const Model* model) noexcept nogil

cdef inline int slice_bits(Py_ssize_t width) noexcept nogil:
    # A layer has 2 ** slice_bits slices.
    if width >= MANY_UNITS:
        return 2
    return 1 if width >= 2 * SLICE_UNITS else 0


cdef inline int slices_of(Py_ssize_t width) noexcept nogil:
    return 1 << slice_bits(width)


cdef inline Py_ssize_t slice_begin(Py_ssize_t width, int index) noexcept nogil:
    cdef Py_ssize_t begin = (width * index) >> slice_bits(width)
    return (begin + ALIGNED_UNITS // 2) // ALIGNED_UNITS * ALIGNED_UNITS if begin < width and width >= 64 else begin


cdef void slices_forward(const Model* model, int first, int end, const floating* X, const floating* W,
                         const floating* b, floating* Z, Py_ssize_t z_stride, Py_ssize_t n) noexcept nogil

cdef void slices_backward(const Model* model, int first, int end, const floating* X, const floating* dZ,
                          Py_ssize_t z_stride, floating* dW, Py_ssize_t n, floating alpha,
                          floating beta) noexcept nogil

cdef void limit_panels(const Model* model, int first, int end, double limit, floating* parameters,
                       floating* scratch) noexcept nogil

cdef void arrange(Model* model, Py_ssize_t number_size) noexcept nogil

cdef Py_ssize_t units_work_size(const Model* model, Py_ssize_t batch_size) noexcept nogil

cdef void climb_by_units(const Model* model, const Batch* run, Py_ssize_t batch_size, Py_ssize_t block_rows,
                         const StepStore* steps, floating* parameters, floating* state, floating* gradient,
                         floating* work, Py_ssize_t* position, double* log_likelihood, double* penalties,
                         double deadline, int n_threads) noexcept nogil
