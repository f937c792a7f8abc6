"""Uniform random numbers of MRG31k3p from many streams, for the notation.

P. L'Ecuyer and R. Touzin, "Fast combined multiple recursive generators with multipliers of the form a = ±2^q ±2^r",
Winter Simulation Conference 2000.  All arithmetic is modulo 2^32, and a number beyond a modulus is reduced at once.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy

cdef enum:
    #: Streams that go on together, in vectors.
    LANES = 64

# The moduli of the two recurrences, and their difference from 2^31.
cdef uint32_t M1 = 2147483647
cdef uint32_t M2 = 2147462579
cdef uint32_t M2_GAP = 21069


cdef struct States:
    uint32_t[LANES] x1, x2, x3  # the last three numbers of the first recurrence, the latest first
    uint32_t[LANES] y1, y2, y3  # and of the second


cdef inline uint32_t reduced(uint32_t number, uint32_t modulus) noexcept nogil:
    return number - modulus if number >= modulus else number


cdef inline uint32_t times_2_15(uint32_t y) noexcept nogil:
    # 2^15 y modulo M2, as 2^31 is M2_GAP
    return reduced(((y & 65535) << 15) + M2_GAP * (y >> 16), M2)


cdef inline void advance(States* s, floating* out, Py_ssize_t n, floating norm) noexcept nogil:
    # The next number of each of n streams.
    cdef uint32_t x, y
    cdef Py_ssize_t i
    for i in range(n):
        # x = 2^22 x2 + (2^7 + 1) x3 modulo M1 = 2^31 - 1, where a product with a power of 2 is a rotation of 31 bits
        x = ((s.x2[i] & 511) << 22) + (s.x2[i] >> 9) + ((s.x3[i] & 16777215) << 7) + (s.x3[i] >> 24)
        x = reduced(reduced(x, M1) + s.x3[i], M1)
        # y = 2^15 y1 + (2^15 + 1) y3 modulo M2
        y = reduced(reduced(times_2_15(s.y3[i]) + s.y3[i], M2) + times_2_15(s.y1[i]), M2)
        s.x3[i], s.x2[i], s.x1[i] = s.x2[i], s.x1[i], x
        s.y3[i], s.y2[i], s.y1[i] = s.y2[i], s.y1[i], y
        out[i] = <floating> <int32_t> (x - y + (M1 if x <= y else 0)) * norm


cdef void draw_lanes(const int32_t* states, int32_t* states_out, floating* out, Py_ssize_t n, Py_ssize_t n_streams,
                     Py_ssize_t first, floating norm) noexcept nogil:
    # All numbers of at most LANES streams, from the first one on.
    cdef States s
    cdef Py_ssize_t i, j, width = min(<Py_ssize_t> LANES, n_streams - first)
    cdef uint32_t* numbers = &s.x1[0]
    if first >= n:
        memcpy(states_out + first * 6, states + first * 6, width * 6 * sizeof(int32_t))
        return
    for i in range(width):
        for j in range(6):
            numbers[j * LANES + i] = <uint32_t> states[(first + i) * 6 + j]
    i = first
    while i < n:
        if n - i >= LANES and width == LANES:
            advance(&s, out + i, LANES, norm)
        else:
            advance(&s, out + i, min(width, n - i), norm)
        i += n_streams
    for i in range(width):
        for j in range(6):
            states_out[(first + i) * 6 + j] = <int32_t> numbers[j * LANES + i]


def mrg31k3p(const int32_t[:, ::1] states, int32_t[:, ::1] states_out, floating[::1] out, double norm,
             int n_threads=1):
    """Uniform numbers in (0, 1) from streams in turn: the i-th number of out (n,) is from stream i % n_streams.

    states (n_streams, 6), before and after : of each stream the last three numbers of both recurrences, latest first
    norm : the scale, 2^-31, or just below it in float32, in which large integers round up
    """
    cdef Py_ssize_t n_streams = states.shape[0], block
    if not n_streams:
        return
    for block in prange((n_streams + LANES - 1) // LANES, nogil=True, num_threads=n_threads, schedule="static"):
        draw_lanes(&states[0, 0], &states_out[0, 0], &out[0] if out.shape[0] else NULL, out.shape[0], n_streams,
                   block * LANES, <floating> norm)
