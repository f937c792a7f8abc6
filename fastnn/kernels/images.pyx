"""Convolution and pooling of whole arrays of images (image, channel, row, column), for the notation.

A thread takes a group of images, or a band of its rows, into lanes and zeros around it, calls the kernels on lanes
(``convolution``, ``pooling``), and takes the result out of lanes again; all that stays in the second-level cache.
Groups, bands and parts follow from shapes alone, so threads do not change the bits.
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
    Py_ssize_t n, height, width             # images, as they are in memory
    Py_ssize_t rows, columns                # of positions
    Py_ssize_t top, left
    bint has_border
    Image x, y
    WindowOf window
    Py_ssize_t lanes, n_groups, band, n_bands, n_items, x_size, y_size
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
    task.has_border = top or left or below or right
    task.window = WindowOf(window[0], window[1], window[2], window[3], 0, 0)
    task.lanes = lanes_of(number_size)
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
    task.x_size, task.y_size = task.x.height * task.x.row, task.y.height * task.y.row
    return task


cdef Image image_in_lanes(Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels, Py_ssize_t lanes) noexcept:
    return Image(height, width, channels, width * channels * lanes, channels * lanes, lanes)


cdef struct Item:
    Py_ssize_t first, n         # images
    Py_ssize_t begin, end       # rows of positions


cdef Item item_of(const Task* task, Py_ssize_t number) noexcept nogil:
    cdef Py_ssize_t first = number // task.n_bands * task.lanes, begin = number % task.n_bands * task.band
    return Item(first, min(task.lanes, task.n - first), begin, min(task.rows, begin + task.band))


# --- into lanes and out of them ---------------------------------------------------------------------------------------


cdef inline void transpose_square(const floating* A, Py_ssize_t a_stride, floating* A_out,
                                  Py_ssize_t out_stride) noexcept nogil:
    if floating is float:
        transpose_square_float(A, a_stride, A_out, out_stride)
    else:
        transpose_square_double(A, a_stride, A_out, out_stride)


cdef void load_line(const floating* line, Py_ssize_t n_images, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t lanes,
                    floating* out, Py_ssize_t step) noexcept nogil:
    # out[j * step + lane] = line[lane * stride + j] for n numbers of each image, 0 in the other lanes
    cdef floating[MOST_LANES * MOST_LANES] square, turned
    cdef Py_ssize_t j = 0, lane, k, length
    if n_images == lanes and n >= lanes:
        while j < n:
            j = min(j, n - lanes)
            transpose_square(line + j, stride, out + j * step, step)
            j += lanes
        return
    memset(&square[0], 0, lanes * lanes * sizeof(floating))
    while j < n:
        length = min(lanes, n - j)
        for lane in range(n_images):
            memcpy(&square[lane * lanes], line + lane * stride + j, length * sizeof(floating))
        transpose_square(&square[0], lanes, &turned[0], lanes)
        for k in range(length):
            memcpy(out + (j + k) * step, &turned[k * lanes], lanes * sizeof(floating))
        j += length


cdef void store_line(const floating* maps, Py_ssize_t step, Py_ssize_t lanes, Py_ssize_t n, floating* line,
                     Py_ssize_t n_images, Py_ssize_t stride) noexcept nogil:
    # line[lane * stride + j] = maps[j * step + lane] for n numbers of each image
    cdef floating[MOST_LANES * MOST_LANES] square, turned
    cdef Py_ssize_t j = 0, lane, k, length
    if n_images == lanes and n >= lanes:
        while j < n:
            j = min(j, n - lanes)
            transpose_square(maps + j * step, step, line + j, stride)
            j += lanes
        return
    while j < n:
        length = min(lanes, n - j)
        for k in range(length):
            memcpy(&square[k * lanes], maps + (j + k) * step, lanes * sizeof(floating))
        transpose_square(&square[0], lanes, &turned[0], lanes)
        for lane in range(n_images):
            memcpy(line + lane * stride + j, &turned[lane * lanes], length * sizeof(floating))
        j += length


cdef void load_seen(const Task* task, const Item* item, const floating* images, floating border,
                    floating* X) noexcept nogil:
    # X in lanes = what the windows of the item see, and around the images the border's number.
    cdef Py_ssize_t size = task.height * task.width, begin = item.begin * task.window.down - task.top, end, y, c, i
    cdef Py_ssize_t stride = task.x.channels * size
    cdef const floating* image = images + item.first * stride
    cdef floating* first = X + task.left * task.x.pixel - begin * task.x.row
    end = min(task.height, begin + task.x.height)
    if task.has_border:
        if border == 0:
            memset(X, 0, task.x_size * sizeof(floating))
        else:
            for i in range(task.x_size):
                X[i] = border
    begin = max(<Py_ssize_t> 0, begin)
    for c in range(task.x.channels):
        if task.width == task.x.width:
            load_line(image + c * size + begin * task.width, item.n, stride,
                      max(<Py_ssize_t> 0, end - begin) * task.width,
                      task.lanes, first + begin * task.x.row + c * task.lanes, task.x.pixel)
            continue
        for y in range(begin, end):
            load_line(image + c * size + y * task.width, item.n, stride, task.width, task.lanes,
                      first + y * task.x.row + c * task.lanes, task.x.pixel)


cdef void load_positions(const Task* task, const Item* item, const floating* images, floating* Y) noexcept nogil:
    cdef Py_ssize_t size = task.rows * task.columns, stride = task.y.channels * size, c
    cdef const floating* image = images + item.first * stride + item.begin * task.columns
    for c in range(task.y.channels):
        load_line(image + c * size, item.n, stride, (item.end - item.begin) * task.columns, task.lanes,
                  Y + c * task.lanes, task.y.pixel)


cdef void store_positions(const Task* task, const Item* item, const floating* Y, floating* images) noexcept nogil:
    cdef Py_ssize_t size = task.rows * task.columns, stride = task.y.channels * size, c
    cdef floating* image = images + item.first * stride + item.begin * task.columns
    for c in range(task.y.channels):
        store_line(Y + c * task.lanes, task.y.pixel, task.lanes, (item.end - item.begin) * task.columns,
                   image + c * size, item.n, stride)


cdef void store_seen(const Task* task, const Item* item, const floating* X, floating* images) noexcept nogil:
    # The images without what lies around them, of an item that is a whole group.
    cdef Py_ssize_t size = task.height * task.width, stride = task.x.channels * size, y, c
    cdef floating* image = images + item.first * stride
    cdef const floating* first = X + task.top * task.x.row + task.left * task.x.pixel
    for c in range(task.x.channels):
        if task.width == task.x.width:
            store_line(first + c * task.lanes, task.x.pixel, task.lanes, size, image + c * size, item.n, stride)
            continue
        for y in range(task.height):
            store_line(first + y * task.x.row + c * task.lanes, task.x.pixel, task.lanes, task.width,
                       image + c * size + y * task.width, item.n, stride)


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


cdef Py_ssize_t n_parts_of(const Task* task) noexcept nogil:
    # What threads take at a time: items, or parts of them with a gradient of their own.
    return min(task.n_items, <Py_ssize_t> WEIGHT_PARTS) if task.kind == WEIGHT else task.n_items


cdef void take_parts(const Task* task, Py_ssize_t* next_, floating* x, floating* parts) noexcept nogil:
    cdef Py_ssize_t n_parts = n_parts_of(task), part = take(next_), begin, number
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
    cdef Py_ssize_t work_size = 2 * (task.x_size + task.y_size), n_parts = n_parts_of(task), next_ = 0, i, part
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
