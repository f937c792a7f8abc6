from cython cimport floating

from .plan cimport Image, WindowOf

# Maps in lanes, see Image: X of input x, Z of output z.  Pointers are to position (0, 0), behind the border's zeros.

cdef void convolve(const Image* x, const floating* X, const WindowOf* window, const floating* W, const floating* b,
                   const Image* z, floating* Z, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef void convolve_backward_weight(const Image* x, const floating* X, const WindowOf* window, const floating* dZ,
                                   const Image* z, Py_ssize_t begin, Py_ssize_t end, floating* dW, floating alpha,
                                   floating beta) noexcept nogil

cdef void convolve_backward_bias(const Image* z, const floating* dZ, Py_ssize_t begin, Py_ssize_t end, floating* db,
                                 floating alpha, floating beta) noexcept nogil

cdef void convolve_backward_input(const Image* z, const floating* dZ, Py_ssize_t begin, Py_ssize_t end,
                                  const WindowOf* window, const floating* W, const Image* x,
                                  floating* dX) noexcept nogil

cdef Image image_of(const Py_ssize_t* shape) noexcept

cdef WindowOf window_of(window)
