"""Sums of scaled arrays, for the notation, in one pass where NumPy takes three; a ufunc, so NumPy handles the shapes.

The arguments of a ufunc's loops: https://numpy.org/doc/stable/reference/c-api/ufunc.html
"""

from cython cimport floating
from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, PyUFunc_FromFuncAndData, PyUFunc_None, PyUFuncGenericFunction, import_array, import_ufunc,
    npy_intp)

import_array()
import_ufunc()

cdef enum:
    N_INPUTS = 4
    N_OPERANDS = 5


cdef inline void sum_scaled(const floating* a, const floating* x, const floating* b, const floating* y, floating* out,
                            npy_intp n, const npy_intp* steps) noexcept nogil:
    cdef floating c, d
    cdef npy_intp i
    if steps[0] == steps[2] == 0 and steps[1] == steps[3] == steps[4] == <npy_intp> sizeof(floating):
        c, d = a[0], b[0]
        for i in range(n):
            out[i] = c * x[i] + d * y[i]
        return
    for _ in range(n):
        out[0] = a[0] * x[0] + b[0] * y[0]
        a = <const floating*> (<const char*> a + steps[0])
        x = <const floating*> (<const char*> x + steps[1])
        b = <const floating*> (<const char*> b + steps[2])
        y = <const floating*> (<const char*> y + steps[3])
        out = <floating*> (<char*> out + steps[4])


cdef void loop_float(char** operands, const npy_intp* n, const npy_intp* steps, void* unused) noexcept nogil:
    sum_scaled(<const float*> operands[0], <const float*> operands[1], <const float*> operands[2],
               <const float*> operands[3], <float*> operands[4], n[0], steps)


cdef void loop_double(char** operands, const npy_intp* n, const npy_intp* steps, void* unused) noexcept nogil:
    sum_scaled(<const double*> operands[0], <const double*> operands[1], <const double*> operands[2],
               <const double*> operands[3], <double*> operands[4], n[0], steps)


# Module-level, since NumPy keeps the pointers.
cdef PyUFuncGenericFunction[2] loops = [<PyUFuncGenericFunction> loop_float, <PyUFuncGenericFunction> loop_double]
cdef char[2 * N_OPERANDS] dtypes = [NPY_FLOAT] * N_OPERANDS + [NPY_DOUBLE] * N_OPERANDS

#: The function of (a, x, b, y) that is a * x + b * y.
sum_of_scaled = PyUFunc_FromFuncAndData(loops, NULL, dtypes, 2, N_INPUTS, 1, PyUFunc_None, "sum_of_scaled",
                                        "a * x + b * y in one pass, for float32 and float64", 0)
