from cython cimport floating
from libc.stdint cimport uint64_t

from .plan cimport Layer

# A group: images in lanes, with what the layers keep of them.
cdef struct Group:
    Py_ssize_t number       # in its row block
    Py_ssize_t first        # position of the first image in the epoch
    Py_ssize_t n, lanes     # images, at most one a lane
    void* kept              # its space
    void* band              # a thread's space, for maps that are pooled at once

# For all: X is the layer's input, dX the gradient by it; NULL: the first layer needs none.


cdef inline floating* input_of(const Layer* layers, int k, const Group* group, const floating* number) noexcept nogil:
    # Where a layer's input begins, behind the zeros around it.  The last argument is for its type only.
    return <floating*> group.kept + (layers[k - 1].output if k > 0 else 0) + layers[k].x_origin


cdef void clear_borders(floating* maps, Py_ssize_t height, Py_ssize_t width, Py_ssize_t row, Py_ssize_t origin,
                        Py_ssize_t size) noexcept nogil

cdef void forward_product(const Layer* layer, const Group* group, const floating* X, const floating* parameters,
                          double* moments) noexcept nogil

cdef void forward_maps(const Layer* layer, const Group* group, const floating* X, const floating* parameters,
                       const floating* mean, uint64_t key) noexcept nogil

cdef void backward_activation(const Layer* layer, const Group* group, floating* dY) noexcept nogil

cdef void backward_normalised(const Layer* layer, const Group* group, const floating* dY,
                              double* sums) noexcept nogil

cdef void backward_maps(const Layer* layer, const Group* group, const floating* X, const floating* dY, floating* dX,
                        const floating* parameters, const double* sums, Py_ssize_t n_groups, floating* gradient,
                        floating beta) noexcept nogil
