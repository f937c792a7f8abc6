"""Elementwise expressions of arrays in one pass, however many operations they have.

An expression is a list of steps, each an operation on values: arrays that are given, numbered first, and results of
earlier steps.  All steps run on one block of numbers after another, so that what lies between stays in the first-level
cache, as in numexpr.  Arrays are broadcast as NumPy does, and converted to the dtype of the expression block by block.
Truth is 1, and anything but 0.

Steps never write where they read, so that their loops vectorise.  Results are written when a block is done: they may
go where a given array is, if their elements lie alike.  Every number is computed from its own operands in the same way,
so the bits depend neither on blocks nor on threads.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport pow, sqrt
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from numpy cimport (
    NPY_BOOL, NPY_DOUBLE, NPY_FLOAT, PyArray_DATA, PyArray_DIMS, PyArray_EMPTY, PyArray_ISALIGNED, PyArray_ISNOTSWAPPED,
    PyArray_ISWRITEABLE, PyArray_ITEMSIZE, PyArray_NDIM, PyArray_STRIDES, PyArray_TYPE, PyTypeNum_ISBOOL,
    PyTypeNum_ISINTEGER, PyTypeNum_ISSIGNED, PyTypeNum_ISUNSIGNED, import_array, ndarray, npy_intp)

import numpy as np

from ._math cimport any_log1p, exp_, exp_less, log1p_, log_, sigmoid_, softplus_, tanh_

import_array()

cdef extern from "<math.h>" nogil:
    float powf(float x, float y)
    float sqrtf(float x)

cdef enum:
    BLOCK_BYTES = 4096      # of a value: eight of them fill a first-level cache
    LINE = 64               # bytes, of a cache line
    SMALL = 2048            # bytes of work space that the stack holds
    AXES = 8                # of an array, at most
    OPERANDS = 48           # arrays that are given or written, at most
    STEPS = 160             # at most
    VALUES = 208            # OPERANDS + STEPS
    GIL_WORK = 8192         # numbers times steps from which others may run meanwhile

cdef enum Code:
    COPY, ADD, SUB, MUL, DIV, NEG, ABS, SQR, SQRT, EXP, EXPM1, LOG, LOG1P, LOGADDEXP, POWER, TANH, TANH_SLOPE, SIGMOID,
    SIGMOID_SLOPE, SOFTPLUS, RELU, HEAVISIDE, SGN, MAXIMUM, MINIMUM, CLIP, SWITCH, EQ, NEQ, LT, LE, GT, GE

#: Codes of operations, by name.
CODES = {
    "cast": COPY,
    "add": ADD,
    "sub": SUB,
    "mul": MUL,
    "true_div": DIV,
    "neg": NEG,
    "abs": ABS,
    "sqr": SQR,
    "sqrt": SQRT,
    "exp": EXP,
    "expm1": EXPM1,
    "log": LOG,
    "log1p": LOG1P,
    "logaddexp": LOGADDEXP,
    "pow": POWER,
    "tanh": TANH,
    "tanh_slope": TANH_SLOPE,
    "sigmoid": SIGMOID,
    "sigmoid_slope": SIGMOID_SLOPE,
    "softplus": SOFTPLUS,
    "relu": RELU,
    "heaviside": HEAVISIDE,
    "sgn": SGN,
    "maximum": MAXIMUM,
    "minimum": MINIMUM,
    "clip": CLIP,
    "switch": SWITCH,
    "eq": EQ,
    "neq": NEQ,
    "lt": LT,
    "le": LE,
    "gt": GT,
    "ge": GE,
}

#: The largest expression.
MOST_AXES, MOST_OPERANDS, MOST_STEPS = AXES, OPERANDS, STEPS

cdef struct Step:
    Code code
    int x, y, z         # values; those that the operation does not have are 0
    int buffer          # of the result

# How a given array gets to a block, or a block to an array of results.
cdef enum Way:
    DIRECT      # the block is a part of the array
    ONCE        # all blocks are alike: copied before the first
    BY_BLOCK    # copied

cdef enum Sort:
    FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64

ctypedef fused number:
    float
    double
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t

cdef struct Operand:
    char* data
    Way way
    Sort sort
    int value
    int buffer
    Py_ssize_t[AXES] strides

# Rows are of the last axis.  A block is of whole rows, or a part of one row.
cdef struct Layout:
    int n_inputs, n_operands, n_steps, n_buffers
    Operand[OPERANDS] operands
    int n_axes
    Py_ssize_t[AXES] lengths
    Py_ssize_t n_rows, n_columns, rows_at_once, columns_at_once, blocks_a_row, n_blocks


cdef inline floating maximum_(floating x, floating y) noexcept nogil:
    # NaN if one is.
    return x if x >= y or x != x else y


cdef inline floating minimum_(floating x, floating y) noexcept nogil:
    return x if x <= y or x != x else y


cdef inline floating power_(floating x, floating y) noexcept nogil:
    if floating is float:
        return powf(x, y)
    else:
        return pow(x, y)


cdef inline floating sqrt_(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline floating sign_(floating x) noexcept nogil:
    return <floating> 1.0 if x > 0 else <floating> -1.0 if x < 0 else x if x != x else <floating> 0.0


cdef inline floating log_add_exp(floating x, floating y) noexcept nogil:
    # Equal numbers may be infinite.
    cdef floating d = <floating> 0.0 if x == y else x - y
    return maximum_(x, y) + log1p_(exp_(-d if d > 0 else d))


cdef void arithmetic(Code code, const floating* x, const floating* y, floating* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if code == ADD:
        for i in range(n):
            out[i] = x[i] + y[i]
    elif code == SUB:
        for i in range(n):
            out[i] = x[i] - y[i]
    elif code == MUL:
        for i in range(n):
            out[i] = x[i] * y[i]
    elif code == DIV:
        for i in range(n):
            out[i] = x[i] / y[i]
    elif code == NEG:
        for i in range(n):
            out[i] = -x[i]
    elif code == ABS:
        for i in range(n):
            out[i] = abs(x[i])
    elif code == SQR:
        for i in range(n):
            out[i] = x[i] * x[i]
    elif code == SQRT:
        for i in range(n):
            out[i] = sqrt_(x[i])
    else:
        memcpy(out, x, n * sizeof(floating))


cdef void function(Code code, const floating* x, const floating* y, floating* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if code == EXP:
        for i in range(n):
            out[i] = exp_less(x[i], <floating> 0.0)
    elif code == EXPM1:
        for i in range(n):
            out[i] = exp_less(x[i], <floating> 1.0)
    elif code == LOG:
        for i in range(n):
            out[i] = log_(x[i])
    elif code == LOG1P:
        for i in range(n):
            out[i] = any_log1p(x[i])
    elif code == LOGADDEXP:
        for i in range(n):
            out[i] = log_add_exp(x[i], y[i])
    elif code == POWER:
        for i in range(n):
            out[i] = power_(x[i], y[i])
    elif code == TANH:
        for i in range(n):
            out[i] = tanh_(x[i])
    elif code == TANH_SLOPE:
        for i in range(n):
            out[i] = y[i] * (<floating> 1.0 - x[i] * x[i])
    elif code == SIGMOID:
        for i in range(n):
            out[i] = sigmoid_(x[i])
    elif code == SIGMOID_SLOPE:
        for i in range(n):
            out[i] = y[i] * (x[i] * (<floating> 1.0 - x[i]))
    elif code == SOFTPLUS:
        for i in range(n):
            out[i] = softplus_(x[i])


cdef void choice(Code code, const floating* x, const floating* y, const floating* z, floating* out,
                 Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if code == RELU:
        for i in range(n):
            out[i] = <floating> 0.0 if x[i] < 0 else x[i]
    elif code == HEAVISIDE:
        for i in range(n):
            out[i] = <floating> 1.0 if x[i] > 0 else <floating> 0.0 if x[i] < 0 else y[i] if x[i] == 0 else x[i]
    elif code == SGN:
        for i in range(n):
            out[i] = sign_(x[i])
    elif code == MAXIMUM:
        for i in range(n):
            out[i] = maximum_(x[i], y[i])
    elif code == MINIMUM:
        for i in range(n):
            out[i] = minimum_(x[i], y[i])
    elif code == CLIP:
        for i in range(n):
            out[i] = y[i] if x[i] < y[i] else z[i] if x[i] > z[i] else x[i]
    elif code == SWITCH:
        for i in range(n):
            out[i] = y[i] if x[i] != 0 else z[i]


cdef void comparison(Code code, const floating* x, const floating* y, floating* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating true = 1, false = 0
    if code == EQ:
        for i in range(n):
            out[i] = true if x[i] == y[i] else false
    elif code == NEQ:
        for i in range(n):
            out[i] = true if x[i] != y[i] else false
    elif code == LT:
        for i in range(n):
            out[i] = true if x[i] < y[i] else false
    elif code == LE:
        for i in range(n):
            out[i] = true if x[i] <= y[i] else false
    elif code == GT:
        for i in range(n):
            out[i] = true if x[i] > y[i] else false
    elif code == GE:
        for i in range(n):
            out[i] = true if x[i] >= y[i] else false


cdef inline void take_step(Code code, const floating* x, const floating* y, const floating* z, floating* out,
                           Py_ssize_t n) noexcept nogil:
    if code <= SQRT:
        arithmetic(code, x, y, out, n)
    elif code <= SOFTPLUS:
        function(code, x, y, out, n)
    elif code <= SWITCH:
        choice(code, x, y, z, out, n)
    else:
        comparison(code, x, y, out, n)


cdef void convert(const number* source, Py_ssize_t stride, floating* target, Py_ssize_t n) noexcept nogil:
    # The stride is in bytes.
    cdef Py_ssize_t i
    cdef floating x
    if stride == 0:
        x = <floating> source[0]
        for i in range(n):
            target[i] = x
    elif stride == <Py_ssize_t> sizeof(number):
        for i in range(n):
            target[i] = <floating> source[i]
    else:
        for i in range(n):
            target[i] = <floating> (<const number*> (<const char*> source + i * stride))[0]


cdef void load(Sort sort, const char* source, Py_ssize_t stride, floating* target, Py_ssize_t n) noexcept nogil:
    if sort == FLOAT32:
        convert(<const float*> source, stride, target, n)
    elif sort == FLOAT64:
        convert(<const double*> source, stride, target, n)
    elif sort == INT8:
        convert(<const int8_t*> source, stride, target, n)
    elif sort == INT16:
        convert(<const int16_t*> source, stride, target, n)
    elif sort == INT32:
        convert(<const int32_t*> source, stride, target, n)
    elif sort == INT64:
        convert(<const int64_t*> source, stride, target, n)
    elif sort == UINT8:
        convert(<const uint8_t*> source, stride, target, n)
    elif sort == UINT16:
        convert(<const uint16_t*> source, stride, target, n)
    elif sort == UINT32:
        convert(<const uint32_t*> source, stride, target, n)
    else:
        convert(<const uint64_t*> source, stride, target, n)


cdef void store(Sort sort, const floating* source, char* target, Py_ssize_t stride, Py_ssize_t n) noexcept nogil:
    # Numbers of the expression's dtype, or truth.
    cdef Py_ssize_t i
    if sort == UINT8:
        for i in range(n):
            target[i * stride] = source[i] != 0
    elif stride == <Py_ssize_t> sizeof(floating):
        memcpy(target, source, n * sizeof(floating))
    else:
        for i in range(n):
            (<floating*> (target + i * stride))[0] = source[i]


cdef inline char* row_of(const Layout* layout, const Operand* operand, Py_ssize_t row) noexcept nogil:
    cdef char* found = operand.data
    cdef int axis
    for axis in range(layout.n_axes - 2, 0, -1):
        found += row % layout.lengths[axis] * operand.strides[axis]
        row //= layout.lengths[axis]
    return found + row * operand.strides[0] if layout.n_axes > 1 else found


cdef void copy_block(const Layout* layout, const Operand* operand, Py_ssize_t row, Py_ssize_t column,
                     Py_ssize_t n_rows, Py_ssize_t n_columns, floating* block, bint out) noexcept nogil:
    # From an array to a block, or back.
    cdef Py_ssize_t i, stride = operand.strides[layout.n_axes - 1]
    cdef char* place
    for i in range(n_rows):
        place = row_of(layout, operand, row + i) + column * stride
        if out:
            store(operand.sort, block + i * n_columns, place, stride, n_columns)
        else:
            load(operand.sort, place, stride, block + i * n_columns, n_columns)


cdef void run_blocks(const Layout* layout, const Step* steps, floating* work, Py_ssize_t buffer_size,
                     Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef floating* values[VALUES]
    cdef const Operand* operand
    cdef const Step* step
    cdef Py_ssize_t block, row, column, n_rows, n_columns
    cdef int i, n_inputs = layout.n_inputs
    for i in range(layout.n_steps):
        values[n_inputs + i] = work + steps[i].buffer * buffer_size
    for block in range(begin, end):
        row = block // layout.blocks_a_row * layout.rows_at_once
        column = block % layout.blocks_a_row * layout.columns_at_once
        n_rows = min(layout.rows_at_once, layout.n_rows - row)
        n_columns = min(layout.columns_at_once, layout.n_columns - column)
        for i in range(layout.n_operands):
            operand = &layout.operands[i]
            if operand.way == DIRECT:
                values[operand.value] = <floating*> row_of(layout, operand, row) + column
            elif i < n_inputs and (operand.way == BY_BLOCK or block == begin):
                values[i] = work + operand.buffer * buffer_size
                copy_block(layout, operand, row, column, n_rows, n_columns, values[i], False)
        for i in range(layout.n_steps):
            step = &steps[i]
            take_step(step.code, values[step.x], values[step.y], values[step.z], values[n_inputs + i],
                      n_rows * n_columns)
        for i in range(n_inputs, layout.n_operands):
            operand = &layout.operands[i]
            if operand.way != DIRECT:
                copy_block(layout, operand, row, column, n_rows, n_columns, values[operand.value], True)


cdef int run_part(const Layout* layout, const Step* steps, floating* of_type, Py_ssize_t part,
                  Py_ssize_t n_parts) noexcept nogil:
    # Returns 0 if memory is lacking.
    cdef char[SMALL] small
    cdef Py_ssize_t n = layout.rows_at_once * layout.columns_at_once * sizeof(floating)
    # An odd number of lines, so that buffers do not begin at the same place of a page.
    cdef Py_ssize_t buffer_size = ((n + LINE - 1) // LINE | 1) * LINE
    cdef Py_ssize_t size = layout.n_buffers * buffer_size + LINE
    cdef void* work = <void*> small
    cdef uintptr_t begin
    if size > <Py_ssize_t> sizeof(small):
        work = malloc(size)
    if work == NULL:
        return 0
    begin = (<uintptr_t> work + LINE - 1) // LINE * LINE
    run_blocks(layout, steps, <floating*> begin, buffer_size // sizeof(floating),
               layout.n_blocks * part // n_parts, layout.n_blocks * (part + 1) // n_parts)
    if work != <void*> small:
        free(work)
    return 1


cdef int run(const Layout* layout, const Step* steps, bint single, int n_threads) noexcept nogil:
    cdef Py_ssize_t part, n_parts = min(<Py_ssize_t> n_threads, layout.n_blocks)
    cdef int done = 0
    if n_parts <= 1:
        return run_part(layout, steps, <float*> NULL, 0, 1) if single else run_part(layout, steps, <double*> NULL, 0, 1)
    for part in prange(n_parts, num_threads=n_parts, schedule="static", chunksize=1):
        if single:
            done += run_part(layout, steps, <float*> NULL, part, n_parts)
        else:
            done += run_part(layout, steps, <double*> NULL, part, n_parts)
    return done == n_parts


cdef int sort_of(ndarray array) except -1:
    # Of bool as of uint8.
    cdef int size = PyArray_ITEMSIZE(array), at = 0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3
    cdef int kind = PyArray_TYPE(array)
    if PyArray_ISNOTSWAPPED(array):
        if kind == NPY_FLOAT or kind == NPY_DOUBLE:
            return FLOAT32 if size == 4 else FLOAT64
        if PyTypeNum_ISSIGNED(kind) and PyTypeNum_ISINTEGER(kind):
            return INT8 + at
        if PyTypeNum_ISUNSIGNED(kind) or PyTypeNum_ISBOOL(kind):
            return UINT8 + at
    raise TypeError(f"there is no conversion from {array.dtype}")


cdef class Expression:
    """Steps, for arrays of any shapes.

    Parameters
    ----------
    n_inputs : int
        Number of arrays that are given.
    steps : tuple of tuple of int
        Each is the code of an operation and the values that it takes.  Value i is the i-th array, value n_inputs + k
        the result of step k.
    outputs : tuple of int
        The values that are results.
    single : bool
        Whether to compute in float32, instead of float64.
    truths : tuple of bool, default ()
        For which results a call makes bool arrays; () for none.
    """

    cdef readonly int n_inputs
    cdef readonly tuple steps, outputs, truths
    cdef readonly bint single
    cdef int n_buffers
    cdef Step* c_steps

    def __cinit__(self, int n_inputs, tuple steps, tuple outputs, bint single, tuple truths=()):
        cdef int n_operands = n_inputs + len(outputs)
        if n_operands > OPERANDS or len(steps) > STEPS:
            raise ValueError("the expression is too large")
        self.n_inputs, self.steps, self.outputs = n_inputs, steps, outputs
        self.single, self.truths = single, truths or (False,) * len(outputs)
        self.c_steps = <Step*> PyMem_Malloc(max(1, len(steps)) * sizeof(Step))
        if self.c_steps == NULL:
            raise MemoryError()
        self.assign_buffers()

    def __dealloc__(self):
        PyMem_Free(self.c_steps)

    def __reduce__(self):
        return Expression, (self.n_inputs, self.steps, self.outputs, self.single, self.truths)

    cdef assign_buffers(self):
        # A buffer is free again after the last step that reads it, never for the result of that step.
        cdef int i, k, n = len(self.steps)
        cdef list last = list(range(self.n_inputs + n)), unused = []
        cdef dict ending = {}
        for k in range(n):
            for i in self.steps[k][1:]:
                last[i] = self.n_inputs + k
        for i in self.outputs:
            last[i] = self.n_inputs + n
        self.n_buffers = 0
        for k in range(n):
            code, *operands = self.steps[k]
            operands += [0] * (3 - len(operands))
            self.c_steps[k].code = code
            self.c_steps[k].x, self.c_steps[k].y, self.c_steps[k].z = operands
            if unused:
                self.c_steps[k].buffer = unused.pop()
            else:
                self.c_steps[k].buffer = self.n_buffers
                self.n_buffers += 1
            ending.setdefault(last[self.n_inputs + k], []).append(self.c_steps[k].buffer)
            unused += ending.pop(self.n_inputs + k, [])

    def __call__(self, *arrays, out=None):
        """Return the result, in out if that is given; of several results and outs, lists."""
        cdef npy_intp[AXES] lengths
        cdef int n_axes, kind = NPY_FLOAT if self.single else NPY_DOUBLE
        cdef bint several = len(self.outputs) > 1
        cdef tuple outs, given = tuple([each if isinstance(each, ndarray) else np.asarray(each) for each in arrays])
        if out is None:
            n_axes = broadcast(given, lengths)
            outs = tuple([PyArray_EMPTY(n_axes, lengths, NPY_BOOL if truth else kind, 0) for truth in self.truths])
        else:
            outs = tuple(out) if several else (out,)
        Call(self, given, outs, True)()
        return list(outs) if several else outs[0]


cdef int broadcast(tuple arrays, npy_intp* lengths) except -1:
    # Sets the lengths of the axes of the arrays' common shape; returns how many there are.
    cdef int axis, at, n_axes = 0
    cdef npy_intp length
    cdef ndarray array
    for array in arrays:
        n_axes = max(n_axes, PyArray_NDIM(array))
    if n_axes > AXES:
        raise ValueError(f"an array has {n_axes} dimensions, more than {AXES}")
    for axis in range(n_axes):
        lengths[axis] = 1
    for array in arrays:
        for axis in range(PyArray_NDIM(array)):
            at = axis + n_axes - PyArray_NDIM(array)
            length = PyArray_DIMS(array)[axis]
            if length != 1 and lengths[at] == 1:
                lengths[at] = length
            elif length not in (1, lengths[at]):
                raise ValueError(f"shapes {', '.join([str(each.shape) for each in arrays])} do not fit together")
    return n_axes


cdef void extent(ndarray array, uintptr_t* begin, uintptr_t* end):
    # The bytes between which the array is.
    cdef int axis
    cdef npy_intp reach
    begin[0] = end[0] = <uintptr_t> PyArray_DATA(array)
    for axis in range(PyArray_NDIM(array)):
        if PyArray_DIMS(array)[axis] == 0:
            return
    end[0] += PyArray_ITEMSIZE(array)
    for axis in range(PyArray_NDIM(array)):
        reach = (PyArray_DIMS(array)[axis] - 1) * PyArray_STRIDES(array)[axis]
        if reach > 0:
            end[0] += reach
        else:
            begin[0] += reach


cdef bint overlap(ndarray first, ndarray second):
    cdef uintptr_t begin, end, other_begin, other_end
    extent(first, &begin, &end)
    extent(second, &other_begin, &other_end)
    return begin < other_end and other_begin < end


cdef class Call:
    """An expression with arrays to read and arrays for its results, all of them aligned.

    Parameters
    ----------
    expression : Expression
    arrays, outs : tuple of ndarray
        outs have the shape of all arrays broadcast, and the dtype of the expression; or bool, for truth.
    copies : bool, default False
        Whether arrays may be copied where that is necessary; it is an error otherwise.  Then a call later, when the
        arrays have changed, would give a wrong result.

    Raises
    ------
    ValueError
        If shapes do not fit together; or if an array is not aligned, or is in the memory of a result in another order.
    """

    cdef Expression expression
    cdef readonly tuple arrays, outs
    cdef Layout layout
    #: Numbers of the results' shape times steps.
    cdef readonly Py_ssize_t work

    def __cinit__(self, Expression expression, tuple arrays, tuple outs, bint copies=False):
        cdef Layout* layout = &self.layout
        cdef int i, n = len(arrays)
        if n != expression.n_inputs or len(outs) != len(expression.outputs):
            raise ValueError(f"{n} arrays and {len(outs)} results are not those of the expression")
        self.expression, self.outs = expression, outs
        self.arrays = tuple([self.fitting(each, copies) for each in arrays])
        layout.n_inputs, layout.n_operands, layout.n_steps = n, n + len(outs), len(expression.steps)
        layout.n_buffers = expression.n_buffers
        self.set_strides(PyArray_NDIM(<ndarray?> outs[0]), PyArray_DIMS(<ndarray> outs[0]))
        self.join_axes()
        self.cut_into_blocks()
        for i in range(layout.n_operands):
            self.choose_way(i)
        self.work = layout.n_rows * layout.n_columns * (1 + layout.n_steps)

    cdef fitting(self, ndarray array, bint copies):
        cdef ndarray out
        cdef bint fits = PyArray_ISALIGNED(array)
        for out in self.outs:
            if not PyArray_ISALIGNED(out) or not PyArray_ISWRITEABLE(out):
                raise ValueError("an array for results is not aligned, or not writeable")
            fits = fits and (not overlap(array, out) or alike(array, out))
        if not fits and not copies:
            raise ValueError("an array is not aligned, or is in the memory of a result in another order")
        return array if fits else array.copy()

    cdef set_strides(self, int n_axes, const npy_intp* lengths):
        cdef Layout* layout = &self.layout
        cdef Operand* operand
        cdef ndarray array
        cdef int i, axis, at
        if n_axes > AXES:
            raise ValueError(f"an array has {n_axes} dimensions, more than {AXES}")
        layout.n_axes = n_axes
        for axis in range(n_axes):
            layout.lengths[axis] = lengths[axis]
        for i, array in enumerate(self.arrays + self.outs):
            operand = &layout.operands[i]
            operand.data, operand.sort = <char*> PyArray_DATA(array), <Sort> sort_of(array)
            operand.value = i if i < layout.n_inputs else self.expression.outputs[i - layout.n_inputs]
            for axis in range(n_axes):
                operand.strides[axis] = 0
                at = axis - n_axes + PyArray_NDIM(array)
                if at >= 0 and PyArray_DIMS(array)[at] == lengths[axis]:
                    operand.strides[axis] = PyArray_STRIDES(array)[at] if lengths[axis] > 1 else 0
                elif i >= layout.n_inputs or (at >= 0 and PyArray_DIMS(array)[at] != 1):
                    self.refuse(array)
            if PyArray_NDIM(array) > n_axes:
                self.refuse(array)

    cdef refuse(self, object array):
        raise ValueError(f"the shape {array.shape} does not fit to {self.outs[0].shape}")

    cdef join_axes(self):
        # Leave out axes of length 1, and join those along which all operands go on evenly.
        cdef Layout* layout = &self.layout
        cdef int i, axis, n = 0
        cdef bint even
        for axis in range(layout.n_axes):
            if layout.lengths[axis] == 1:
                continue
            even = n > 0
            for i in range(layout.n_operands if n else 0):
                even = even and (layout.operands[i].strides[n - 1]
                                 == layout.operands[i].strides[axis] * layout.lengths[axis])
            n += not even
            layout.lengths[n - 1] = layout.lengths[axis] * (layout.lengths[n - 1] if even else 1)
            for i in range(layout.n_operands):
                layout.operands[i].strides[n - 1] = layout.operands[i].strides[axis]
        if n == 0:
            layout.lengths[0] = n = 1
            for i in range(layout.n_operands):
                layout.operands[i].strides[0] = 0
        layout.n_axes = n

    cdef cut_into_blocks(self):
        cdef Layout* layout = &self.layout
        cdef Py_ssize_t block = BLOCK_BYTES // (sizeof(float) if self.expression.single else sizeof(double))
        cdef int axis
        layout.n_rows, layout.n_columns = 1, layout.lengths[layout.n_axes - 1]
        for axis in range(layout.n_axes - 1):
            layout.n_rows *= layout.lengths[axis]
        layout.columns_at_once = min(layout.n_columns, block)
        layout.rows_at_once = max(<Py_ssize_t> 1, min(layout.n_rows, block // max(<Py_ssize_t> 1, layout.n_columns)))
        layout.blocks_a_row = (layout.n_columns + block - 1) // block
        layout.n_blocks = ((layout.n_rows + layout.rows_at_once - 1) // layout.rows_at_once) * layout.blocks_a_row

    cdef choose_way(self, int i):
        cdef Layout* layout = &self.layout
        cdef Operand* operand = &layout.operands[i]
        cdef Py_ssize_t expected = sizeof(float) if self.expression.single else sizeof(double)
        cdef bint contiguous = operand.sort == (FLOAT32 if self.expression.single else FLOAT64)
        cdef bint constant = True
        cdef int axis
        for axis in range(layout.n_axes - 1, -1, -1):
            # Within a block of one row, only the last axis matters.
            if axis == layout.n_axes - 1 or layout.rows_at_once > 1:
                contiguous = contiguous and (layout.lengths[axis] == 1 or operand.strides[axis] == expected)
            expected *= layout.lengths[axis]
            if axis < layout.n_axes - 1 or layout.blocks_a_row > 1:
                constant = constant and operand.strides[axis] == 0
        if i >= layout.n_inputs:
            contiguous = contiguous and self.may_be_written_at_once(i)
        operand.way = DIRECT if contiguous else ONCE if constant else BY_BLOCK
        if i < layout.n_inputs and not contiguous:
            operand.buffer = layout.n_buffers
            layout.n_buffers += 1

    cdef bint may_be_written_at_once(self, int i):
        # Whether the step that computes a result may write it where it belongs.
        cdef int k, n = self.layout.n_inputs
        for k in range(n, i):
            if self.layout.operands[k].value == self.layout.operands[i].value:
                return False
        for array in self.arrays:
            if overlap(array, self.outs[i - n]):
                return False
        return self.layout.operands[i].value >= n

    def __call__(self, int n_threads=1):
        """Compute the results."""
        cdef bint single = self.expression.single
        cdef int done
        if self.work < GIL_WORK:
            done = run(&self.layout, self.expression.c_steps, single, 1)
        else:
            with nogil:
                done = run(&self.layout, self.expression.c_steps, single, n_threads)
        if not done:
            raise MemoryError()


cdef bint alike(ndarray array, ndarray out):
    # Whether the elements are at the same places.
    cdef int axis
    if PyArray_DATA(array) != PyArray_DATA(out) or PyArray_NDIM(array) != PyArray_NDIM(out):
        return False
    for axis in range(PyArray_NDIM(array)):
        if PyArray_DIMS(array)[axis] != PyArray_DIMS(out)[axis]:
            return False
        if PyArray_STRIDES(array)[axis] != PyArray_STRIDES(out)[axis] and PyArray_DIMS(array)[axis] > 1:
            return False
    return PyArray_ITEMSIZE(array) == PyArray_ITEMSIZE(out)
