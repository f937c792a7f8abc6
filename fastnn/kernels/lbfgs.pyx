"""The vectors of L-BFGS: the point, the gradient there, and the memory of steps and changes of the gradient.

The two-loop recursion is Algorithm 7.4 of J. Nocedal, S. J. Wright, "Numerical optimization" (2006).  Its vectors are
sums of those in memory, so it works on coefficients and on products of two vectors, as in W. Chen, Z. Wang, J. Zhou,
"Large-scale L-BFGS using MapReduce", NIPS 2014.  An iteration then reads the memory twice: once for products, once for
the direction.  The objective is ascended: f is minus the objective, g the gradient of the objective.

Vectors are taken in blocks, whose sums are double and are added in order: threads do not change the bits.
"""

from typing import NamedTuple

from cython cimport floating
from cython.parallel cimport prange

from .updates cimport dot

cdef enum:
    BLOCK = 4096        # numbers of each vector that are taken at a time
    BLOCKS_A_THREAD = 8     # at least, since a thread takes some microseconds to begin

#: Numbers of a vector whose products are added up before those of others.
BLOCK_SIZE = BLOCK


class Memory(NamedTuple):
    """The state of L-BFGS.

    x : (n,), the point
    g : (n,), gradient of the objective at x
    d : (n,), direction of ascent from x
    pairs : (2, m, n), of the last m iterations, each in a place of its own: steps s; changes y of the gradient of f
    products : (2, m, m + 1) float64, of each s and y with each y and, last, with g; s_i y_j only if i is not newer
    sums : (n_blocks, 2, m, 2) float64, work space: the blocks' shares of products
    coefficients : (3, m) float64, work space
    """

    x: object
    g: object
    d: object
    pairs: object
    products: object
    sums: object
    coefficients: object


cdef inline Py_ssize_t n_useful(Py_ssize_t n_blocks, int n_threads) noexcept nogil:
    # Threads that are worth their start.
    return max(<Py_ssize_t> 1, min(<Py_ssize_t> n_threads, n_blocks // BLOCKS_A_THREAD))


cdef double first_sums(const double[:, :, :, ::1] sums) noexcept nogil:
    cdef Py_ssize_t block
    cdef double total = 0
    for block in range(sums.shape[0]):
        total += sums[block, 0, 0, 0]
    return total


def slope(const floating[::1] gradient, memory, int n_threads):
    """Return the product of the gradient and the direction."""
    cdef const floating[::1] d = memory.d
    cdef double[:, :, :, ::1] sums = memory.sums
    cdef Py_ssize_t block, begin, n = gradient.shape[0], n_blocks = sums.shape[0]
    for block in prange(n_blocks, nogil=True, num_threads=n_useful(n_blocks, n_threads), schedule="static"):
        begin = block * BLOCK
        sums[block, 0, 0, 0] = dot(&gradient[begin], &d[begin], min(<Py_ssize_t> BLOCK, n - begin))
    return first_sums(sums)


def move(floating[::1] parameters_out, memory, double step, int n_threads):
    """parameters_out = x + step d."""
    cdef const floating[::1] x = memory.x, d = memory.d
    cdef floating factor = <floating> step
    cdef Py_ssize_t block, i, n = x.shape[0], n_blocks = memory.sums.shape[0]
    for block in prange(n_blocks, nogil=True, num_threads=n_useful(n_blocks, n_threads), schedule="static"):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, n)):
            parameters_out[i] = x[i] + factor * d[i]


cdef void remember_block(const floating* parameters, const floating* gradient, floating* x, floating* g,
                         floating* pairs, double* sums, Py_ssize_t m, Py_ssize_t slot, Py_ssize_t size,
                         Py_ssize_t n) noexcept nogil:
    # The numbers of a block, and its share of the products; pairs is at the block, its vectors n numbers apart.
    cdef floating* s = pairs + slot * n
    cdef floating* y = pairs + (m + slot) * n
    cdef Py_ssize_t i
    for i in range(size):
        s[i], y[i] = parameters[i] - x[i], g[i] - gradient[i]
        x[i], g[i] = parameters[i], gradient[i]
    for i in range(2 * m):
        sums[2 * i] = dot(pairs + i * n, y, size)
        sums[2 * i + 1] = dot(pairs + i * n, g, size)


def remember(const floating[::1] parameters, const floating[::1] gradient, memory, Py_ssize_t slot, int n_threads):
    """Take the parameters as x and the gradient as g, with a new pair: s = change of x, y = minus that of g.

    slot : place of the new pair
    """
    cdef floating[::1] x = memory.x, g = memory.g
    cdef floating[:, :, ::1] pairs = memory.pairs
    cdef double[:, :, ::1] products = memory.products
    cdef double[:, :, :, ::1] sums = memory.sums
    cdef Py_ssize_t block, begin, i, j, n = x.shape[0], m = pairs.shape[1], n_blocks = sums.shape[0]
    for block in prange(n_blocks, nogil=True, num_threads=n_useful(n_blocks, n_threads), schedule="static"):
        begin = block * BLOCK
        remember_block(&parameters[begin], &gradient[begin], &x[begin], &g[begin], &pairs[0, 0, begin],
                       &sums[block, 0, 0, 0], m, slot, min(<Py_ssize_t> BLOCK, n - begin), n)
    for i in range(2):
        for j in range(m):
            products[i, j, slot] = products[i, j, m] = 0
            for block in range(n_blocks):
                products[i, j, slot] += sums[block, i, j, 0]
                products[i, j, m] += sums[block, i, j, 1]
    for j in range(m):
        products[1, slot, j] = products[1, j, slot]


cdef double recursion(const double* products, double* a, double* c_s, double* c_y, Py_ssize_t m, Py_ssize_t newest,
                      Py_ssize_t n_pairs) noexcept nogil:
    # The direction is c_g g + sum c_s s + sum c_y y; returns c_g.
    cdef const double* sy = products                # row i: s_i y_0, ..., s_i y_(m-1), s_i g
    cdef const double* yy = products + m * (m + 1)  # row i: y_i y_0, ..., y_i y_(m-1), y_i g
    cdef Py_ssize_t i, j, k
    cdef double product, c_g
    for i in range(m):
        c_s[i] = c_y[i] = 0
    if n_pairs == 0:
        return 1
    for k in range(n_pairs):  # from the newest pair: a_i = s_i q / s_i y_i, q -= a_i y_i; at first q = g
        i = (newest + m - k) % m
        product = sy[i * (m + 1) + m]
        for j in range(m):
            product += c_y[j] * sy[i * (m + 1) + j]
        a[i] = product / sy[i * (m + 1) + i]
        c_y[i] = -a[i]
    # r = H0 q, where H0 = s y / y y of the newest pair, times the identity
    c_g = sy[newest * (m + 1) + newest] / yy[newest * (m + 1) + newest]
    for i in range(m):
        c_y[i] *= c_g
    for k in range(n_pairs):  # from the oldest pair: r += (a_i - y_i r / s_i y_i) s_i
        i = (newest + m - n_pairs + 1 + k) % m
        product = c_g * yy[i * (m + 1) + m]
        for j in range(m):
            product += c_y[j] * yy[i * (m + 1) + j] + c_s[j] * sy[j * (m + 1) + i]
        c_s[i] = a[i] - product / sy[i * (m + 1) + i]
    return c_g


cdef double combine_block(const floating* g, const floating* pairs, floating* d, const double* coefficients,
                          double c_g, Py_ssize_t n_vectors, Py_ssize_t size, Py_ssize_t n) noexcept nogil:
    # The direction's numbers of a block; returns its share of the slope.
    cdef const floating* vector
    cdef floating c = <floating> c_g
    cdef Py_ssize_t i, j
    for i in range(size):
        d[i] = c * g[i]
    for j in range(n_vectors):
        if coefficients[j] != 0:
            vector, c = pairs + j * n, <floating> coefficients[j]
            for i in range(size):
                d[i] += c * vector[i]
    return dot(g, d, size)


def point(memory, const floating[::1] g, Py_ssize_t newest, Py_ssize_t n_pairs, int n_threads):
    """Set d = H g, where H approximates the inverse of f's Hessian matrix by the newest n_pairs pairs; return g d.

    g : memory.g
    newest : place of the newest pair
    """
    cdef floating[::1] d = memory.d
    cdef const floating[:, :, ::1] pairs = memory.pairs
    cdef const double[:, :, ::1] products = memory.products
    cdef double[:, ::1] coefficients = memory.coefficients
    cdef double[:, :, :, ::1] sums = memory.sums
    cdef Py_ssize_t block, begin, n = g.shape[0], m = pairs.shape[1], n_blocks = sums.shape[0]
    cdef double c_g = recursion(&products[0, 0, 0], &coefficients[2, 0], &coefficients[0, 0], &coefficients[1, 0], m,
                                newest, n_pairs)
    for block in prange(n_blocks, nogil=True, num_threads=n_useful(n_blocks, n_threads), schedule="static"):
        begin = block * BLOCK
        sums[block, 0, 0, 0] = combine_block(&g[begin], &pairs[0, 0, begin], &d[begin], &coefficients[0, 0], c_g, 2 * m,
                                             min(<Py_ssize_t> BLOCK, n - begin), n)
    return first_sums(sums)
