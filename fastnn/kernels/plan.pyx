"""The plan in the kernels' form: numbers in structs."""

from libc.stdlib cimport calloc, free

from .activations import ACTIVATIONS

#: The most slices of a layer, and so the most threads that can own one each.
MOST_SLICES = N_SLICES

#: The most shards of a batch, and so the most threads that can work on one each.
MOST_SHARDS = N_SHARDS

FORM_CODES = {"stored": STORED, "transposed": TRANSPOSED, "panels": PANELS, "sparse": SPARSE, "sparse slices": SPARSE}


cdef class CompiledPlan:
    """The numbers of source, a fastnn.plan.Plan, in structs, for `epoch.train` and `epoch.forward`."""

    def __cinit__(self, plan):
        cdef Plan* own = &self.plan
        cdef int k
        self.source = plan
        own.n_layers = len(plan.layers)
        own.layers = <Layer*> calloc(own.n_layers, sizeof(Layer))
        if own.layers == NULL:
            raise MemoryError
        for k in range(own.n_layers):
            read_layer(&own.layers[k], k, plan.layers[k])
            own.normalises |= own.layers[k].normalises
        own.layers[own.n_layers - 1].is_output = True
        own.is_sparse = own.layers[0].form == SPARSE
        own.by_units, own.touches = plan.driver == "units", plan.touches
        own.sorts, own.nonzeros = plan.sorting == "each batch", plan.nonzeros
        own.gathers, own.prefetches = plan.gathers, plan.prefetches
        own.n_parameters, own.batch_size, own.block_rows = plan.n_parameters, plan.batch_size, plan.block_rows
        own.n_shards, own.shard_rows, own.fold_rows = plan.n_shards, plan.shard_rows, plan.fold_rows
        own.rows_size, own.spare = plan.rows_size, plan.spare
        own.columns, own.parts, own.squares = plan.columns, plan.parts, plan.squares
        own.most_slices = plan.most_slices
        if plan.trunk is not None:
            read_trunk(&own.trunk, plan.trunk)

    def __dealloc__(self):
        if self.plan.layers != NULL:
            free(self.plan.layers[0].embeddings)
        free(self.plan.layers)


cdef int read_layer(Layer* layer, int index, planned) except -1:
    cdef int s
    shape = planned.facts
    layer.index, layer.form = index, FORM_CODES[planned.form]
    layer.n_in, layer.n_out = shape.n_in, shape.n_out
    layer.units, layer.positions = shape.weight_shape[1], shape.positions
    layer.activation = ACTIVATIONS[shape.activation or "identity"]
    layer.normalises, layer.dropout = shape.batch_norm, shape.dropout
    layer.by_inputs, layer.keeps_slopes, layer.shared_from = \
        planned.by_inputs, planned.keeps_slopes, planned.shared_from
    layer.weight, layer.weight_size = planned.weight, planned.weight_size
    layer.bias, layer.norm = planned.bias, planned.norm
    layer.output, layer.delta, layer.slopes = planned.output, planned.delta, planned.slopes
    layer.x_hat, layer.statistics = planned.x_hat, planned.statistics
    layer.cut.stride, layer.cut.columns, layer.cut.next = planned.cut
    layer.n_slices, layer.n_groups = len(planned.slices), planned.groups
    if shape.embeddings:
        read_embeddings(layer, planned)
    for s in range(layer.n_slices):
        layer.slices[s].begin, layer.slices[s].end, layer.slices[s].weight = planned.slices[s][:3]
        layer.slices[s].stride, layer.slices[s].n_rows, layer.slices[s].n_columns = planned.slices[s][3:]
    if planned.images:
        x, middle, y = planned.images
        layer.x, layer.middle, layer.y = read_image(x), read_image(middle), read_image(y)
        layer.x_origin, layer.y_origin, layer.y_size = x.origin, y.origin, y.size
        layer.convolution, layer.pooling = read_window(shape.maps.convolution), read_window(shape.maps.pooling)
        layer.takes_mean = shape.maps.pools == "mean"
        layer.band, layer.places, layer.moments = planned.band, planned.places, planned.moments
    return 0


cdef int read_embeddings(Layer* layer, planned) except -1:
    cdef int k
    layer.n_embeddings, layer.n_embedded = len(planned.embeddings), planned.facts.n_embedded
    layer.embeddings_size = planned.facts.embeddings_size
    layer.embeddings = <Embedding*> calloc(layer.n_embeddings, sizeof(Embedding))
    if layer.embeddings == NULL:
        raise MemoryError
    for k in range(layer.n_embeddings):
        layer.embeddings[k] = Embedding(planned.embeddings[k], planned.facts.embeddings[k][1])
    return 0


cdef Image read_image(image) except *:
    return Image(image.height, image.width, image.channels, image.row, image.pixel, image.lanes)


cdef WindowOf read_window(window) except *:
    if window is None:
        return WindowOf(0, 0, 0, 0, 0, 0)
    return WindowOf(window.size[0], window.size[1], window.stride[0], window.stride[1], window.padding[0],
                    window.padding[1])


cdef int read_trunk(Trunk* own, trunk) except -1:
    own.n_layers, own.lanes, own.n_parts, own.size = trunk.n_layers, trunk.lanes, trunk.n_parts, trunk.size
    own.input, own.input_origin, own.input_size = read_image(trunk.input), trunk.input.origin, trunk.input.size
    own.groups, own.group_size, own.threads, own.thread_size = \
        trunk.groups, trunk.group_size, trunk.threads, trunk.thread_size
    own.band, own.deltas, own.delta_size = trunk.band, trunk.deltas, trunk.delta_size
    own.gradients, own.delta = trunk.gradients, trunk.delta
    return 0
