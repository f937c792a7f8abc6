"""exp, expm1 and tanh as plain arithmetic, so that the compiler vectorises the loops around them.

Method: range reduction x = n ln 2 + r with |r| <= ln(2) / 2, the Taylor polynomial of expm1 at r, and
2**n assembled from bits; tanh(x) = -e / (e + 2) with e = expm1(-2 |x|).  See J.-M. Muller,
"Elementary Functions", 3rd edition, sections 6.2 and 11.  The constants depend on the number format,
so the code branches on dtype here; small ones are cast, since a product with a bare 2 would be in double.
"""

from cython cimport floating

cdef extern from *:
    """
    #include <math.h>
    #include <stdint.h>
    #include <string.h>

    /* 2**n, where shifted = n + 1.5 * 2**(size of the significand) has n in its low bits. */
    static inline float fastnn_pow2f(float shifted) {
        uint32_t bits; float power;
        memcpy(&bits, &shifted, sizeof bits);
        bits = (bits << 23) + 0x3f800000u;
        memcpy(&power, &bits, sizeof power);
        return power;
    }
    static inline double fastnn_pow2(double shifted) {
        uint64_t bits; double power;
        memcpy(&bits, &shifted, sizeof bits);
        bits = (bits << 52) + 0x3ff0000000000000u;
        memcpy(&power, &bits, sizeof power);
        return power;
    }
    """
    float fastnn_pow2f(float shifted) noexcept nogil
    double fastnn_pow2(double shifted) noexcept nogil
    float fabsf(float x) noexcept nogil
    double fabs(double x) noexcept nogil
    float copysignf(float x, float sign) noexcept nogil
    double copysign(double x, double sign) noexcept nogil


cdef inline floating reduced_expm1(floating x, floating* power) noexcept nogil:
    # x = n ln 2 + r: returns expm1(r) and sets power = 2**n.  The caller keeps n within the exponent.
    # ln 2 is split in two so that n * (its upper part) is exact: Cody and Waite (1980); the double
    # pair is fdlibm's, the float pair Cephes's.  The polynomials are 1 / k!, to degree 7 and 13:
    # the first neglected term is below half a unit in the last place.
    cdef floating shifted, n, r, p
    if floating is float:
        shifted = x * <floating> 1.4426950408889634 + <floating> 12582912.0
        n = shifted - <floating> 12582912.0
        power[0] = fastnn_pow2f(shifted)
        r = (x - n * <floating> 0.693359375) - n * <floating> -2.12194440e-4
        p = <floating> (1.0 / 5040.0)
        p = p * r + <floating> (1.0 / 720.0)
    else:
        shifted = x * 1.4426950408889634 + 6755399441055744.0
        n = shifted - 6755399441055744.0
        power[0] = fastnn_pow2(shifted)
        r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
    p = p * r + <floating> (1.0 / 120.0)
    p = p * r + <floating> (1.0 / 24.0)
    p = p * r + <floating> (1.0 / 6.0)
    p = p * r + <floating> 0.5
    return p * (r * r) + r


cdef inline floating lowest(floating x) noexcept nogil:
    # Where exp reaches the smallest normal number.  The argument is for its type only.
    if floating is float:
        return <floating> -87.0
    else:
        return -708.0


cdef inline floating exp_(floating x) noexcept nogil:
    # For x <= 0 only, which is all that a stable softmax or sigmoid needs.  Results below the
    # smallest normal number are 0.  A NaN fails every comparison and passes through.
    cdef floating power, e, low = lowest(x)
    e = reduced_expm1(low if x < low else x, &power)
    return <floating> 0.0 if x < low else power * e + power


cdef inline floating expm1_(floating x) noexcept nogil:
    # For x <= 0 only; a NaN passes through.
    cdef floating power, e, low = lowest(x)
    e = reduced_expm1(low if x < low else x, &power)
    return power * e + (power - <floating> 1.0)


cdef inline floating tanh_(floating x) noexcept nogil:
    # Beyond the limit tanh rounds to 1.
    cdef floating limit, magnitude, power, e
    if floating is float:
        limit = <floating> 10.0
        magnitude = fabsf(x)
    else:
        limit = 20.0
        magnitude = fabs(x)
    magnitude = limit if magnitude > limit else magnitude
    e = reduced_expm1(<floating> -2.0 * magnitude, &power)
    e = power * e + (power - <floating> 1.0)
    e = -e / (e + <floating> 2.0)
    if floating is float:
        return copysignf(e, x)
    else:
        return copysign(e, x)
