from cython cimport floating

# The code of each update; updates.pyx has the names.
cdef enum:
    NO_UPDATE
    SGD
    MOMENTUM
    NESTEROV
    RMSPROP
    ADAGRAD
    ADAM

# How gradients become steps, batch after batch.
cdef struct StepStore:
    int update
    const double* table         # (n_batches, n_columns): the numbers of each batch's step
    Py_ssize_t n_columns
    Py_ssize_t state_size       # distance between two vectors of an optimizer's state
    double clip_norm            # greatest norm of a gradient; 0: any
    double max_norm             # greatest norm of the weights into a hidden unit; 0: any
    bint penalised              # whether a step has a penalty

# One batch's step.
cdef struct Step:
    int update
    const double* hyperparameters
    Py_ssize_t state_size
    double l2, l1
    double decay                # share by which weights decay first
    double scale                # of the gradient

cdef StepStore open_steps(object steps, Py_ssize_t state_size) except *
cdef Step step_at(const StepStore* steps, Py_ssize_t batch) noexcept nogil
cdef void add(floating* sum_, const floating* other, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void add_up(Py_ssize_t n_shards, Py_ssize_t first, Py_ssize_t last, Py_ssize_t distance, Py_ssize_t begin,
                 Py_ssize_t end, floating* gradients) noexcept nogil
cdef double dot(const floating* a, const floating* b, Py_ssize_t n) noexcept nogil
cdef double sum_of_squares(const floating* values, Py_ssize_t n) noexcept nogil
cdef double penalty(const Step* step, const floating* weights, Py_ssize_t n) noexcept nogil
cdef double clipped(double norm_squared, double limit) noexcept nogil
cdef void limit_norms(floating* W, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t n_columns, bint by_rows,
                      floating* scratch, double limit) noexcept nogil
cdef void update_range(const Step* step, bint is_weight, floating* parameters, floating* gradient, floating* state,
                       Py_ssize_t begin, Py_ssize_t end) noexcept nogil
