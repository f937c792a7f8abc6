"""A layer on a group of images: convolution, batch normalisation, pooling, activation and dropout, and back.

The maps of a group lie in lanes, one image a lane: see `Image` in plan.pxd.  A convolution that is pooled at once goes
in bands of rows, whose maps stay in the cache and are not kept.  A layer with batch normalisation goes in two halves,
since all groups' sums come between.
"""

from cython cimport floating
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from .activations cimport activate, backprop_activation
from .convolution cimport (
    convolve, convolve_backward_bias, convolve_backward_input, convolve_backward_weight)
from .dropout cimport drop_lanes
from .normalisation cimport backprop_lanes, group_moments, group_sums, normalise_lanes, scale_lanes
from .plan cimport Image, Layer
from .pooling cimport pool_max, pool_max_backward, pool_mean, pool_mean_backward


cdef void clear_borders(floating* maps, Py_ssize_t height, Py_ssize_t width, Py_ssize_t row, Py_ssize_t origin,
                        Py_ssize_t size) noexcept nogil:
    # Sets what lies around rows of so many numbers each to 0.
    cdef Py_ssize_t i, at = 0
    for i in range(height if size > height * width else 0):
        memset(maps + at, 0, (origin + i * row - at) * sizeof(floating))
        at = origin + i * row + width
    if at:
        memset(maps + at, 0, (size - at) * sizeof(floating))


cdef inline uint8_t* places_of(const Layer* layer, const Group* group) noexcept nogil:
    return <uint8_t*> group.kept + layer.places if layer.places >= 0 else NULL


# --- forward --------------------------------------------------------------------------------------------------------


cdef void forward_product(const Layer* layer, const Group* group, const floating* X, const floating* parameters,
                          double* moments) noexcept nogil:
    # The first half of a layer with batch normalisation: its convolution, without the bias, and the group's moments.
    cdef floating* Z = <floating*> group.kept + layer.x_hat
    convolve(&layer.x, X, &layer.convolution, parameters + layer.weight, <const floating*> NULL, &layer.middle, Z, 0,
             layer.middle.height)
    group_moments(&layer.middle, Z, group.lanes, group.n, moments)


cdef void forward_maps(const Layer* layer, const Group* group, const floating* X, const floating* parameters,
                       const floating* mean, uint64_t key) noexcept nogil:
    # All of a layer, or its second half, if it is normalised: mean is that of the batch, its variance behind it.
    cdef floating* kept = <floating*> group.kept
    cdef floating* Y = kept + layer.output + layer.y_origin
    cdef floating* band
    cdef Py_ssize_t begin = 0, end, above, width = layer.y.width * layer.y.pixel
    if layer.normalises:
        normalise_lanes(&layer.middle, kept + layer.x_hat, group.lanes, mean, mean + layer.units)
    clear_borders(kept + layer.output, layer.y.height, width, layer.y.row, layer.y_origin, layer.y_size)
    while begin < layer.y.height:
        end = min(begin + layer.band, layer.y.height)
        if not layer.pooling.height:
            forward_rows(layer, group, X, parameters, &layer.y, Y, begin, end)
        elif not layer.convolution.height:
            pool(layer, group, X, Y, begin, end)
        else:
            above = begin * layer.pooling.down
            band = <floating*> group.band - above * layer.middle.row
            forward_rows(layer, group, X, parameters, &layer.middle, band, above,
                         (end - 1) * layer.pooling.down + layer.pooling.height)
            pool(layer, group, band, Y, begin, end)
        begin = end
    activate_maps(layer, group, Y, width, key)


cdef void forward_rows(const Layer* layer, const Group* group, const floating* X, const floating* parameters,
                       const Image* z, floating* Z, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # Rows begin to end of Z, before pooling and activation
    if layer.normalises:
        scale_lanes(&layer.middle, <floating*> group.kept + layer.x_hat, group.lanes, parameters + layer.norm,
                    parameters + layer.bias, z, Z, begin, end)
    else:
        convolve(&layer.x, X, &layer.convolution, parameters + layer.weight, parameters + layer.bias, z, Z, begin, end)


cdef void pool(const Layer* layer, const Group* group, const floating* Z, floating* Y, Py_ssize_t begin,
               Py_ssize_t end) noexcept nogil:
    if layer.takes_mean:
        pool_mean(&layer.middle, Z, &layer.pooling, &layer.y, Y, begin, end)
    else:
        pool_max(&layer.middle, Z, &layer.pooling, &layer.y, Y, places_of(layer, group), begin, end)


cdef void activate_maps(const Layer* layer, const Group* group, floating* Y, Py_ssize_t width,
                        uint64_t key) noexcept nogil:
    cdef floating* slopes = <floating*> group.kept + layer.slopes + layer.y_origin if layer.keeps_slopes else NULL
    cdef Py_ssize_t i
    for i in range(layer.y.height):
        activate(layer.activation, Y + i * layer.y.row, slopes + i * layer.y.row if slopes != NULL else slopes, width)
    if slopes != NULL and layer.dropout > 0:
        drop_lanes(Y, slopes, &layer.y, group.lanes, layer.dropout, key, layer.index, group.first)


# --- backward -------------------------------------------------------------------------------------------------------


cdef void backward_activation(const Layer* layer, const Group* group, floating* dY) noexcept nogil:
    # dY becomes the gradient before activation and dropout
    cdef const floating* Y = <floating*> group.kept + layer.output + layer.y_origin
    cdef const floating* slopes = <floating*> group.kept + layer.slopes + layer.y_origin if layer.keeps_slopes else NULL
    cdef Py_ssize_t i, at
    for i in range(layer.y.height):
        at = i * layer.y.row
        backprop_activation(layer.activation, Y + at, slopes + at if slopes != NULL else slopes, dY + at,
                            layer.y.width * layer.y.pixel)


cdef void unpool(const Layer* layer, const Group* group, const floating* dY, floating* dZ, Py_ssize_t begin,
                 Py_ssize_t end) noexcept nogil:
    # dZ += the gradient before pooling, from rows begin to end of dY
    if layer.takes_mean:
        pool_mean_backward(&layer.y, dY, &layer.pooling, &layer.middle, dZ, begin, end)
    else:
        pool_max_backward(&layer.y, dY, places_of(layer, group), &layer.pooling, &layer.middle, dZ, begin, end)


cdef void backward_normalised(const Layer* layer, const Group* group, const floating* dY,
                              double* sums) noexcept nogil:
    # Back to the normalised maps, and the group's sums: the first half of the way.
    cdef floating* dZ = <floating*> group.kept + layer.delta
    cdef Py_ssize_t i, width = layer.middle.width * layer.middle.pixel
    if layer.pooling.height:
        memset(dZ, 0, layer.middle.height * layer.middle.row * sizeof(floating))
        unpool(layer, group, dY, dZ, 0, layer.y.height)
    else:
        for i in range(layer.middle.height):
            memcpy(dZ + i * layer.middle.row, dY + i * layer.y.row, width * sizeof(floating))
    group_sums(&layer.middle, dZ, <floating*> group.kept + layer.x_hat, group.lanes, group.n, sums)


cdef void backward_maps(const Layer* layer, const Group* group, const floating* X, const floating* dY, floating* dX,
                        const floating* parameters, const double* sums, Py_ssize_t n_groups, floating* gradient,
                        floating beta) noexcept nogil:
    # gradient = that of the group + beta * gradient, and dX, from the gradient before activation; all of a layer, or
    # the second half of a normalised one, with the sums of the batch.
    cdef floating* dZ = <floating*> group.kept + layer.delta
    cdef Py_ssize_t begin = 0, end, above, below
    if layer.normalises:
        backprop_lanes(&layer.middle, dZ, <const floating*> group.kept + layer.x_hat, group.lanes, group.n, sums,
                       n_groups)
        backward_product(layer, X, &layer.middle, dZ, 0, layer.middle.height, dX, parameters, gradient, beta)
    elif not layer.convolution.height:
        if dX != NULL:
            unpool(layer, group, dY, dX, 0, layer.y.height)
    elif not layer.pooling.height:
        backward_product(layer, X, &layer.y, dY, 0, layer.y.height, dX, parameters, gradient, beta)
    else:
        while begin < layer.y.height:
            end = min(begin + layer.band, layer.y.height)
            above, below = begin * layer.pooling.down, (end - 1) * layer.pooling.down + layer.pooling.height
            memset(group.band, 0, (below - above) * layer.middle.row * sizeof(floating))
            dZ = <floating*> group.band - above * layer.middle.row
            unpool(layer, group, dY, dZ, begin, end)
            backward_product(layer, X, &layer.middle, dZ, above, below, dX, parameters, gradient, beta)
            begin, beta = end, 1


cdef void backward_product(const Layer* layer, const floating* X, const Image* z, const floating* dZ, Py_ssize_t begin,
                           Py_ssize_t end, floating* dX, const floating* parameters, floating* gradient,
                           floating beta) noexcept nogil:
    # From rows begin to end of dZ; the bias of a normalised layer has its gradient from the sums.
    convolve_backward_weight(&layer.x, X, &layer.convolution, dZ, z, begin, end, gradient + layer.weight, 1, beta)
    if not layer.normalises:
        convolve_backward_bias(z, dZ, begin, end, gradient + layer.bias, 1, beta)
    if dX != NULL:
        convolve_backward_input(z, dZ, begin, end, &layer.convolution, parameters + layer.weight, &layer.x, dX)
