"""Convolution and pooling of whole arrays of images (image, channel, row, column), for the notation.

A thread takes a group of images, or a band of its rows, into lanes and zeros around it, calls the kernels on lanes
(``convolution``, ``pooling``), and takes the result out of lanes again; all that stays in the second-level cache.
Few images that would not fill the lanes are cut into strips, which go in lanes of their own.  Groups, bands, strips and
parts follow from shapes alone, so threads do not change the bits.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from .convolution cimport convolve, convolve_backward_input, convolve_backward_weight
from .plan cimport Image, WindowOf, take
from .pooling cimport pool_equal_backward, pool_max, pool_sum, pool_sum_backward

cdef extern from "tiles.h" nogil:
    enum:
        BAND_OF_IMAGES
        FEW_GROUPS
        PARTS_BYTES
        WEIGHT_PARTS
    Py_ssize_t lanes_of(Py_ssize_t number_size)
    void transpose_square_float(const float* A, Py_ssize_t a_stride, float* A_out, Py_ssize_t out_stride)
    void transpose_square_double(const double* A, Py_ssize_t a_stride, double* A_out, Py_ssize_t out_stride)

cdef enum:
    MOST_LANES = 16

cdef enum Kind:
    CONVOLUTION
    WEIGHT
    INPUT
    MAX_POOL
    MAX_POOL_INPUT
    SUM_POOL
    SUM_POOL_INPUT

# What all groups and bands have in common.  x: what the windows of a band see, with what lies around the images; y: a
# band of positions.
cdef struct Task:
    Kind kind
    Py_ssize_t n, height, width             # images, or strips of images
    Py_ssize_t rows, columns                # of positions of each
    Py_ssize_t top, left
    Py_ssize_t n_strips                     # of each image; it divides the lanes
    Py_ssize_t x_channel, y_channel         # numbers of a channel of an image, and of its positions
    bint has_border
    Image x, y
    WindowOf window
    Py_ssize_t lanes, n_groups, band, n_bands, n_items, x_size, y_size
    Py_ssize_t n_parts                      # what threads take: items, or parts of them with a gradient of their own
    const void* images                      # in the order of memory: see each function below
    const void* positions
    const void* others
    void* out


cdef Task task_of(Kind kind, const Py_ssize_t* images, const Py_ssize_t* positions, padding, window,
                  Py_ssize_t number_size):
    # For shapes (n, channels, height, width) of images and positions.
    cdef Task task
    cdef Py_ssize_t top = padding[0], left = padding[1], below = padding[2], right = padding[3], most
    memset(&task, 0, sizeof(task))
    task.kind, task.n, task.height, task.width = kind, images[0], images[2], images[3]
    task.rows, task.columns, task.top, task.left = positions[2], positions[3], top, left
    task.x_channel, task.y_channel = task.height * task.width, task.rows * task.columns
    task.has_border = top or left or below or right
    task.window = WindowOf(window[0], window[1], window[2], window[3], 0, 0)
    task.lanes, task.n_strips = lanes_of(number_size), 1
    if kind in (CONVOLUTION, WEIGHT, INPUT) and top == below == 0:
        task.n_strips = best_strips(task.n, task.rows, task.lanes)
    if task.n_strips > 1:
        task.n, task.rows = task.n * task.n_strips, task.rows // task.n_strips
        task.height, below = (task.rows - 1) * task.window.down + task.window.height, 0
    task.n_groups = (task.n + task.lanes - 1) // task.lanes
    task.x = image_in_lanes(top + task.height + below, left + task.width + right, images[1], task.lanes)
    task.y = image_in_lanes(task.rows, task.columns, positions[1], task.lanes)
    task.band = task.rows
    if kind not in (INPUT, MAX_POOL_INPUT, SUM_POOL_INPUT):  # a number of their result is in several bands
        most = BAND_OF_IMAGES // number_size - (task.window.height - task.window.down) * task.x.row
        task.band = max(<Py_ssize_t> 1, min(task.rows, most // (task.window.down * task.x.row + task.y.row)))
        task.x.height = (task.band - 1) * task.window.down + task.window.height
        task.y.height = task.band
    task.n_bands = (task.rows + task.band - 1) // task.band
    task.n_items = task.n_groups * task.n_bands
    task.n_parts = task.n_items
    if kind == WEIGHT:
        most = PARTS_BYTES // (task.window.height * task.window.width * images[1] * positions[1] * number_size)
        task.n_parts = min(task.n_items, max(<Py_ssize_t> 1, min(most, <Py_ssize_t> WEIGHT_PARTS)))
    task.x_size, task.y_size = task.x.height * task.x.row, task.y.height * task.y.row
    return task


cdef Py_ssize_t best_strips(Py_ssize_t n, Py_ssize_t rows, Py_ssize_t lanes) noexcept:
    # Into how many strips to cut each of n images of so many rows of positions, so that most lanes are in use.
    cdef Py_ssize_t best = 1, n_strips = 2
    while n_strips <= lanes and rows % n_strips == 0:
        if (n * n_strips + lanes - 1) // lanes * best < (n * best + lanes - 1) // lanes * n_strips:
            best = n_strips
        n_strips *= 2
    return best if n < lanes * FEW_GROUPS else 1


cdef Image image_in_lanes(Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels, Py_ssize_t lanes) noexcept:
    return Image(height, width, channels, width * channels * lanes, channels * lanes, lanes)


cdef struct Item:
    Py_ssize_t first, n         # images, or strips
    Py_ssize_t begin, end       # rows of positions
    Py_ssize_t[MOST_LANES] x_places, y_places      # where each of them begins


cdef Item item_of(const Task* task, Py_ssize_t number) noexcept nogil:
    cdef Item item
    cdef Py_ssize_t lane, image, strip
    item.first = number // task.n_bands * task.lanes
    item.n = min(task.lanes, task.n - item.first)
    item.begin = number % task.n_bands * task.band
    item.end = min(task.rows, item.begin + task.band)
    for lane in range(item.n):
        image, strip = (item.first + lane) // task.n_strips, (item.first + lane) % task.n_strips
        item.x_places[lane] = (
            image * task.x.channels * task.x_channel + strip * task.rows * task.window.down * task.width)
        item.y_places[lane] = image * task.y.channels * task.y_channel + strip * task.rows * task.columns
    return item


# --- into lanes and out of them ---------------------------------------------------------------------------------------


cdef inline void transpose_square(const floating* A, Py_ssize_t a_stride, floating* A_out,
                                  Py_ssize_t out_stride) noexcept nogil:
    if floating is float:
        transpose_square_float(A, a_stride, A_out, out_stride)
    else:
        transpose_square_double(A, a_stride, A_out, out_stride)


cdef inline bint is_even(const Task* task, const Item* item, Py_ssize_t n) noexcept nogil:
    # Whether a square can be read or written at once: lanes lie at equal distances, and are all in use.
    return item.n == task.lanes and task.n_strips == 1 and n >= task.lanes and task.lanes > 1


cdef void load_line(const Task* task, const Item* item, const floating* line, const Py_ssize_t* places, Py_ssize_t n,
                    floating* out, Py_ssize_t step) noexcept nogil:
    # out[j * step + lane] = line[places[lane] + j] for n numbers of each image, 0 in the other lanes
    cdef floating[MOST_LANES * MOST_LANES] square, turned
    cdef Py_ssize_t j = 0, lane, k, length, lanes = task.lanes
    if is_even(task, item, n):
        while j < n:
            j = min(j, n - lanes)
            transpose_square(line + places[0] + j, places[1] - places[0], out + j * step, step)
            j += lanes
        return
    memset(&square[0], 0, lanes * lanes * sizeof(floating))
    while j < n:
        length = min(lanes, n - j)
        for lane in range(item.n):
            memcpy(&square[lane * lanes], line + places[lane] + j, length * sizeof(floating))
        transpose_square(&square[0], lanes, &turned[0], lanes)
        for k in range(length):
            memcpy(out + (j + k) * step, &turned[k * lanes], lanes * sizeof(floating))
        j += length


cdef void store_line(const Task* task, const Item* item, const floating* maps, Py_ssize_t step, Py_ssize_t n,
                     floating* line, const Py_ssize_t* places, bint adds) noexcept nogil:
    # line[places[lane] + j] = maps[j * step + lane] for n numbers of each image, or += where strips overlap
    cdef floating[MOST_LANES * MOST_LANES] square, turned
    cdef Py_ssize_t j = 0, lane, k, length, lanes = task.lanes
    if is_even(task, item, n):
        while j < n:
            j = min(j, n - lanes)
            transpose_square(maps + j * step, step, line + places[0] + j, places[1] - places[0])
            j += lanes
        return
    while j < n:
        length = min(lanes, n - j)
        for k in range(length):
            memcpy(&square[k * lanes], maps + (j + k) * step, lanes * sizeof(floating))
        transpose_square(&square[0], lanes, &turned[0], lanes)
        for lane in range(item.n):
            if adds:
                for k in range(length):
                    line[places[lane] + j + k] += turned[lane * lanes + k]
            else:
                memcpy(line + places[lane] + j, &turned[lane * lanes], length * sizeof(floating))
        j += length


cdef void load_seen(const Task* task, const Item* item, const floating* images, floating border,
                    floating* X) noexcept nogil:
    # X in lanes = what the windows of the item see, and around the images the border's number.
    cdef Py_ssize_t begin = item.begin * task.window.down - task.top, end = min(task.height, begin + task.x.height)
    cdef Py_ssize_t y, c, i
    cdef const floating* image
    cdef floating* first = X + task.left * task.x.pixel - begin * task.x.row
    if task.has_border:
        if border == 0:
            memset(X, 0, task.x_size * sizeof(floating))
        else:
            for i in range(task.x_size):
                X[i] = border
    begin = max(<Py_ssize_t> 0, begin)
    for c in range(task.x.channels):
        image = images + c * task.x_channel
        if task.width == task.x.width:
            load_line(task, item, image + begin * task.width, &item.x_places[0],
                      max(<Py_ssize_t> 0, end - begin) * task.width, first + begin * task.x.row + c * task.lanes,
                      task.x.pixel)
            continue
        for y in range(begin, end):
            load_line(task, item, image + y * task.width, &item.x_places[0], task.width,
                      first + y * task.x.row + c * task.lanes, task.x.pixel)


cdef void load_positions(const Task* task, const Item* item, const floating* images, floating* Y) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(task.y.channels):
        load_line(task, item, images + c * task.y_channel + item.begin * task.columns, &item.y_places[0],
                  (item.end - item.begin) * task.columns, Y + c * task.lanes, task.y.pixel)


cdef void store_positions(const Task* task, const Item* item, const floating* Y, floating* images) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(task.y.channels):
        store_line(task, item, Y + c * task.lanes, task.y.pixel, (item.end - item.begin) * task.columns,
                   images + c * task.y_channel + item.begin * task.columns, &item.y_places[0], False)


cdef void store_seen(const Task* task, const Item* item, const floating* X, floating* images) noexcept nogil:
    # The images without what lies around them, of an item that is a whole group.
    cdef Py_ssize_t size = task.x.channels * task.x_channel, y, c
    cdef bint adds = task.n_strips > 1
    cdef const floating* first = X + task.top * task.x.row + task.left * task.x.pixel
    if adds:
        memset(images + item.x_places[0], 0, item.n // task.n_strips * size * sizeof(floating))
    for c in range(task.x.channels):
        if task.width == task.x.width:
            store_line(task, item, first + c * task.lanes, task.x.pixel, task.height * task.width,
                       images + c * task.x_channel, &item.x_places[0], adds)
            continue
        for y in range(task.height):
            store_line(task, item, first + y * task.x.row + c * task.lanes, task.x.pixel, task.width,
                       images + c * task.x_channel + y * task.width, &item.x_places[0], adds)


# --- what is done to an item ------------------------------------------------------------------------------------------


cdef void convolve_item(const Task* task, const Item* item, floating* x, floating* y) noexcept nogil:
    load_seen(task, item, <const floating*> task.images, <floating> 0, x)
    convolve(&task.x, x, &task.window, <const floating*> task.others, <const floating*> NULL, &task.y, y, 0,
             item.end - item.begin)
    store_positions(task, item, y, <floating*> task.out)


cdef void weight_item(const Task* task, const Item* item, floating* x, floating* y, floating* dW,
                      floating beta) noexcept nogil:
    # dW = the gradient from an item + beta * dW
    load_seen(task, item, <const floating*> task.images, <floating> 0, x)
    load_positions(task, item, <const floating*> task.positions, y)
    convolve_backward_weight(&task.x, x, &task.window, y, &task.y, 0, item.end - item.begin, dW, <floating> 1, beta)


cdef void input_item(const Task* task, const Item* item, floating* x, floating* y) noexcept nogil:
    memset(x, 0, task.x_size * sizeof(floating))
    load_positions(task, item, <const floating*> task.positions, y)
    convolve_backward_input(&task.y, y, 0, task.rows, &task.window, <const floating*> task.others, &task.x, x)
    store_seen(task, item, x, <floating*> task.out)


cdef void pool_item(const Task* task, const Item* item, floating* x, floating* y) noexcept nogil:
    load_seen(task, item, <const floating*> task.images, <floating> (-INFINITY if task.kind == MAX_POOL else 0), x)
    if task.kind == MAX_POOL:
        pool_max(&task.x, x, &task.window, &task.y, y, NULL, 0, item.end - item.begin)
    else:
        pool_sum(&task.x, x, &task.window, &task.y, y, 0, item.end - item.begin)
        scale_positions(task, item, <const floating*> task.others, y)
    store_positions(task, item, y, <floating*> task.out)


cdef void pool_input_item(const Task* task, const Item* item, floating* x, floating* y) noexcept nogil:
    cdef floating* dx = y + task.y_size
    cdef floating* largest = dx + task.x_size
    load_positions(task, item, <const floating*> task.positions, y)
    memset(dx, 0, task.x_size * sizeof(floating))
    if task.kind == MAX_POOL_INPUT:
        load_seen(task, item, <const floating*> task.images, <floating> -INFINITY, x)
        load_positions(task, item, <const floating*> task.others, largest)
        pool_equal_backward(&task.y, y, largest, &task.window, &task.x, x, dx, 0, task.rows)
    else:
        scale_positions(task, item, <const floating*> task.others, y)
        pool_sum_backward(&task.y, y, &task.window, &task.x, dx, 0, task.rows)
    store_seen(task, item, dx, <floating*> task.out)


cdef void scale_positions(const Task* task, const Item* item, const floating* shares, floating* y) noexcept nogil:
    # y of one channel, in lanes, times the share of each position (rows, columns)
    cdef Py_ssize_t i, lane
    for i in range((item.end - item.begin) * task.columns):
        for lane in range(task.lanes):
            y[i * task.lanes + lane] *= shares[item.begin * task.columns + i]


# --- all items, in threads --------------------------------------------------------------------------------------------


cdef void take_parts(const Task* task, Py_ssize_t* next_, floating* x, floating* parts) noexcept nogil:
    cdef Py_ssize_t n_parts = task.n_parts, part = take(next_), begin, number
    cdef Py_ssize_t size = task.window.height * task.window.width * task.x.channels * task.y.channels
    cdef floating* y = x + task.x_size
    cdef Item item
    while part < n_parts:
        begin = task.n_items * part // n_parts
        for number in range(begin, task.n_items * (part + 1) // n_parts):
            item = item_of(task, number)
            if task.kind == CONVOLUTION:
                convolve_item(task, &item, x, y)
            elif task.kind == WEIGHT:
                weight_item(task, &item, x, y, parts + part * size, <floating> (number > begin))
            elif task.kind == INPUT:
                input_item(task, &item, x, y)
            elif task.kind in (MAX_POOL, SUM_POOL):
                pool_item(task, &item, x, y)
            else:
                pool_input_item(task, &item, x, y)
        part = take(next_)


cdef int go(const Task* task, int n_threads, floating* dW) except -1:
    # dW: NULL, but for the gradient by the weight
    cdef Py_ssize_t work_size = 2 * (task.x_size + task.y_size), n_parts = task.n_parts, next_ = 0, i, part
    cdef Py_ssize_t size = 0 if dW == NULL else (
        task.window.height * task.window.width * task.x.channels * task.y.channels)
    cdef int thread
    cdef floating* work
    n_threads = max(1, <int> min(<Py_ssize_t> n_threads, n_parts))
    work = <floating*> malloc((n_threads * work_size + n_parts * size + 1) * sizeof(floating))
    if work == NULL:
        raise MemoryError
    if n_threads == 1:
        with nogil:
            take_parts(task, &next_, work, work + work_size)
    else:
        for thread in prange(n_threads, nogil=True, num_threads=n_threads, schedule="static", chunksize=1):
            take_parts(task, &next_, work + thread * work_size, work + n_threads * work_size)
    for i in range(size):
        dW[i] = 0
        for part in range(n_parts):
            dW[i] += work[n_threads * work_size + part * size + i]
    free(work)
    return 0


def convolve_images(const floating[:, :, :, ::1] X, const floating[:, :, :, ::1] W, padding, window,
                    floating[:, :, :, ::1] Z_out, int n_threads=1):
    """Z_out (n, filters, rows, columns) = the convolution of X (n, channels, height, width) with W.

    W : (window's height, window's width, channels, filters)
    padding : zeros above X, to its left, below it, and to its right
    window : height, width, and the strides down and across
    """
    cdef Task task = task_of(CONVOLUTION, X.shape, Z_out.shape, padding, window, sizeof(floating))
    task.images, task.others, task.out = &X[0, 0, 0, 0], &W[0, 0, 0, 0], &Z_out[0, 0, 0, 0]
    go(&task, n_threads, <floating*> NULL)


def backprop_convolve_images_weight(const floating[:, :, :, ::1] X, const floating[:, :, :, ::1] dZ, padding, window,
                                    floating[:, :, :, ::1] dW_out, int n_threads=1):
    """dW_out = the gradient by the weight; as in convolve_images."""
    cdef Task task = task_of(WEIGHT, X.shape, dZ.shape, padding, window, sizeof(floating))
    task.images, task.positions = &X[0, 0, 0, 0], &dZ[0, 0, 0, 0]
    go(&task, n_threads, &dW_out[0, 0, 0, 0])


def backprop_convolve_images_input(const floating[:, :, :, ::1] dZ, const floating[:, :, :, ::1] W, padding, window,
                                   floating[:, :, :, ::1] dX_out, int n_threads=1):
    """dX_out = the gradient by X; as in convolve_images."""
    cdef Task task = task_of(INPUT, dX_out.shape, dZ.shape, padding, window, sizeof(floating))
    task.positions, task.others, task.out = &dZ[0, 0, 0, 0], &W[0, 0, 0, 0], &dX_out[0, 0, 0, 0]
    go(&task, n_threads, <floating*> NULL)


def max_pool_images(const floating[:, :, :, ::1] X, padding, window, floating[:, :, :, ::1] Y_out, int n_threads=1):
    """Y_out (n, 1, rows, columns) = the largest number of each window of X (n, 1, height, width), or NaN.

    padding : what lies above X, to its left, below it, and to its right, and is never the largest
    window : height, width, and the strides down and across
    """
    cdef Task task = task_of(MAX_POOL, X.shape, Y_out.shape, padding, window, sizeof(floating))
    task.images, task.out = &X[0, 0, 0, 0], &Y_out[0, 0, 0, 0]
    go(&task, n_threads, <floating*> NULL)


def backprop_max_pool_images(const floating[:, :, :, ::1] X, const floating[:, :, :, ::1] Y,
                             const floating[:, :, :, ::1] dY, padding, window, floating[:, :, :, ::1] dX_out,
                             int n_threads=1):
    """dX_out, which may be X = the gradient by X: all of dY for each number of a window that is equal to Y."""
    cdef Task task = task_of(MAX_POOL_INPUT, dX_out.shape, dY.shape, padding, window, sizeof(floating))
    task.images, task.others, task.positions, task.out = (
        &X[0, 0, 0, 0], &Y[0, 0, 0, 0], &dY[0, 0, 0, 0], &dX_out[0, 0, 0, 0])
    go(&task, n_threads, <floating*> NULL)


def sum_pool_images(const floating[:, :, :, ::1] X, const floating[:, ::1] shares, padding, window,
                    floating[:, :, :, ::1] Y_out, int n_threads=1):
    """Y_out = the sum of each window, zeros around X, times the share of its position (rows, columns)."""
    cdef Task task = task_of(SUM_POOL, X.shape, Y_out.shape, padding, window, sizeof(floating))
    task.images, task.others, task.out = &X[0, 0, 0, 0], &shares[0, 0], &Y_out[0, 0, 0, 0]
    go(&task, n_threads, <floating*> NULL)


def backprop_sum_pool_images(const floating[:, :, :, ::1] dY, const floating[:, ::1] shares, padding, window,
                             floating[:, :, :, ::1] dX_out, int n_threads=1):
    """dX_out = the gradient by X: for each number the sum of dY, times its share, over the windows that see it."""
    cdef Task task = task_of(SUM_POOL_INPUT, dX_out.shape, dY.shape, padding, window, sizeof(floating))
    task.positions, task.others, task.out = &dY[0, 0, 0, 0], &shares[0, 0], &dX_out[0, 0, 0, 0]
    go(&task, n_threads, <floating*> NULL)
