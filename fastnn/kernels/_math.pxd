"""exp, expm1, log, log1p, tanh and the normal distribution as plain arithmetic, so that loops around them vectorise.

Method: range reduction x = n ln 2 + r with |r| <= ln(2) / 2, the Taylor polynomial of expm1 at r, and
2**n assembled from bits; tanh(x) = -e / (e + 2) with e = expm1(-2 |x|); log1p(x) = 2 artanh(x / (x + 2));
log(x) = n ln 2 + 2 artanh((m - 1) / (m + 1)) with x = 2**n m, and sqrt(1 / 2) <= m < sqrt(2).
See J.-M. Muller, "Elementary Functions", 3rd edition, sections 6.2 and 11.  The tail of the normal distribution
is exp(-x**2 / 2) times a rational function, as in W. J. Cody, "Rational Chebyshev approximations for the
error function", Mathematics of Computation 23 (1969).  The constants depend on the number format, so the
code branches on dtype here; small ones are cast, since a product with a bare 2 would be in double.
"""

from cython cimport floating
from libc.stdint cimport uint64_t

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
    /* x = 2**n m with sqrt(1 / 2) <= m < sqrt(2), for positive normal numbers: returns m.  Adding the distance from
       the bits of sqrt(1 / 2) to those of 1 makes the exponent n; a number with n as its last bits is made of it. */
    static inline float fastnn_splitf(float x, float* n) {
        uint32_t bits, low; float m;
        memcpy(&bits, &x, sizeof bits);
        bits += 0x3f800000u - 0x3f3504f3u;
        low = (bits >> 23) | 0x4b000000u;
        memcpy(&m, &low, sizeof m);
        *n = m - (8388608.0f + 127.0f);
        bits = (bits & 0x007fffffu) + 0x3f3504f3u;
        memcpy(&m, &bits, sizeof m);
        return m;
    }
    static inline double fastnn_split(double x, double* n) {
        uint64_t bits, low; double m;
        memcpy(&bits, &x, sizeof bits);
        bits += 0x3ff0000000000000u - 0x3fe6a09e667f3bcdu;
        low = (bits >> 52) | 0x4330000000000000u;
        memcpy(&m, &low, sizeof m);
        *n = m - (4503599627370496.0 + 1023.0);
        bits = (bits & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu;
        memcpy(&m, &bits, sizeof m);
        return m;
    }
    """
    float fastnn_pow2f(float shifted) noexcept nogil
    double fastnn_pow2(double shifted) noexcept nogil
    float fastnn_splitf(float x, float* n) noexcept nogil
    double fastnn_split(double x, double* n) noexcept nogil
    float INFINITY
    float NAN
    float fabsf(float x) noexcept nogil
    double fabs(double x) noexcept nogil
    float copysignf(float x, float sign) noexcept nogil
    double copysign(double x, double sign) noexcept nogil


cdef inline floating reduced_expm1(floating x, floating rest, floating* power) noexcept nogil:
    # x - rest = n ln 2 + r: returns expm1(r) and sets power = 2**n.  The caller keeps n within the exponent and the
    # rest small.
    # ln 2 is split in two so that n * (its upper part) is exact: Cody and Waite (1980); the double
    # pair is fdlibm's, the float pair Cephes's.  The polynomials are 1 / k!, to degree 7 and 13:
    # the first neglected term is below half a unit in the last place.
    cdef floating shifted, n, r, p
    if floating is float:
        shifted = x * <floating> 1.4426950408889634 + <floating> 12582912.0
        n = shifted - <floating> 12582912.0
        power[0] = fastnn_pow2f(shifted)
        r = (x - n * <floating> 0.693359375) - n * <floating> -2.12194440e-4 - rest
        p = <floating> (1.0 / 5040.0)
        p = p * r + <floating> (1.0 / 720.0)
    else:
        shifted = x * 1.4426950408889634 + 6755399441055744.0
        n = shifted - 6755399441055744.0
        power[0] = fastnn_pow2(shifted)
        r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10 - rest
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
    e = reduced_expm1(low if x < low else x, <floating> 0.0, &power)
    return <floating> 0.0 if x < low else power * e + power


cdef inline floating expm1_(floating x) noexcept nogil:
    # For x <= 0 only; a NaN passes through.
    cdef floating power, e, low = lowest(x)
    e = reduced_expm1(low if x < low else x, <floating> 0.0, &power)
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
    e = reduced_expm1(<floating> -2.0 * magnitude, <floating> 0.0, &power)
    e = power * e + (power - <floating> 1.0)
    e = -e / (e + <floating> 2.0)
    if floating is float:
        return copysignf(e, x)
    else:
        return copysign(e, x)


cdef inline floating log1p_(floating x) noexcept nogil:
    # For 0 <= x <= 1 only; a NaN passes through.  The polynomials are minimax ones of (artanh(s) - s) / s**3 in s**2
    # for s <= 1 / 3, with relative errors of artanh below 2**-27 and 2**-59.
    cdef floating s = x / (x + <floating> 2.0), w = s * s, p
    if floating is float:
        p = <floating> 0.1400606394
        p = p * w + <floating> 0.1400088729
        p = p * w + <floating> 0.2001076464
        p = p * w + <floating> 0.3333320812
    else:
        p = 0.0850486698094100487
        p = p * w + 0.041725010791643417
        p = p * w + 0.0605246651369537417
        p = p * w + 0.0665056179393373753
        p = p * w + 0.0769327408132633406
        p = p * w + 0.0909087224658365632
        p = p * w + 0.111111119765712414
        p = p * w + 0.142857142740639406
        p = p * w + 0.200000000000775125
        p = p * w + 0.33333333333333155
    s = s + s
    return s * w * p + s


cdef inline floating exp_less(floating x, floating less) noexcept nogil:
    # exp(x) - less, for any x, where less is 0 or 1.  2**n, which may be no normal number, is a product of two.
    cdef floating y, unused, e, n, half, p, q, low, high
    if floating is float:
        low, high = <floating> -104.0, <floating> 89.0
    else:
        low, high = -746.0, 710.0
    y = high if x > high else low if x < low else x
    e = reduced_expm1(y, <floating> 0.0, &unused)
    if floating is float:
        n = (y * <floating> 1.4426950408889634 + <floating> 12582912.0) - <floating> 12582912.0
        half = <floating> 0.5 * n + <floating> 12582912.0
        p = fastnn_pow2f(half)
        q = fastnn_pow2f(n - (half - <floating> 12582912.0) + <floating> 12582912.0)
    else:
        n = (y * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0
        half = 0.5 * n + 6755399441055744.0
        p = fastnn_pow2(half)
        q = fastnn_pow2(n - (half - 6755399441055744.0) + 6755399441055744.0)
    # Near 0, where p and q are 1, e has all digits.
    return (e * q + (q - less / p)) * p


cdef inline floating log_(floating x) noexcept nogil:
    # The polynomials are fdlibm's for 2 artanh(s) - 2 s, in s**2.
    cdef floating n, m, f, s, w, p, half, least, lift, shift, found
    if floating is float:
        least, lift, shift = <floating> 1.1754943508222875e-38, <floating> 33554432.0, <floating> -25.0
    else:
        least, lift, shift = 2.2250738585072014e-308, 18014398509481984.0, -54.0
    m = x * lift if x < least else x
    if floating is float:
        m = fastnn_splitf(m, &n)
    else:
        m = fastnn_split(m, &n)
    n = n + shift if x < least else n
    f = m - <floating> 1.0
    s = f / (f + <floating> 2.0)
    w = s * s
    half = <floating> 0.5 * f * f
    if floating is float:
        p = <floating> 0.24279078841
        p = p * w + <floating> 0.28498786688
        p = p * w + <floating> 0.40000972152
        p = p * w + <floating> 0.66666662693
        found = s * (half + w * p) + n * <floating> 9.0580006145e-06
        found = n * <floating> 6.9313812256e-01 - ((half - found) - f)
    else:
        p = 1.479819860511658591e-01
        p = p * w + 1.531383769920937332e-01
        p = p * w + 1.818357216161805012e-01
        p = p * w + 2.222219843214978396e-01
        p = p * w + 2.857142874366239149e-01
        p = p * w + 3.999999999940941908e-01
        p = p * w + 6.666666666666735130e-01
        found = s * (half + w * p) + n * 1.90821492927058770002e-10
        found = n * 6.93147180369123816490e-01 - ((half - found) - f)
    found = x if x == INFINITY else found
    return found if x > 0 else -INFINITY if x == 0 else NAN


cdef inline floating any_log1p(floating x) noexcept nogil:
    # log of the rounded 1 + x, and what rounding took: N. J. Higham, "Accuracy and Stability of Numerical Algorithms",
    # 2nd edition, section 1.14.1.
    cdef floating u = x + <floating> 1.0, found
    found = log_(u) + (x - (u - <floating> 1.0)) / u
    found = x if u == 1 else found
    return found if u > 0 and u < INFINITY else log_(u)


cdef inline floating sigmoid_(floating z) noexcept nogil:
    # 1 / (1 + exp(-z)), without exp of a positive number.
    cdef floating e = exp_(-z if z > 0 else z)
    return (e if z < 0 else <floating> 1.0) / (<floating> 1.0 + e)


cdef inline floating softplus_(floating z) noexcept nogil:
    # log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|))
    return (<floating> 0.0 if z < 0 else z) + log1p_(exp_(-z if z > 0 else z))


cdef inline floating normal_tail(floating x, floating* scale) noexcept nogil:
    # For 0 <= x < 100: sets scale = exp(-x**2 / 2) and returns the probability that a normal variable
    # exceeds x, by scale: their product may be too small to be normal.  A NaN passes through.
    # The quotients are minimax ones up to where exp counts as 0, with relative errors below 2**-27 and
    # 2**-54.  All terms are positive, so nothing cancels.
    # exp would turn the rounding of x**2 into hundreds of units in the last place, so the square is split:
    # that of x rounded to a grid is exact, and the rest is small.
    cdef floating grid, exponent, rest, power, e, p, q, low = lowest(x)
    if floating is float:
        grid = (x + <floating> 49152.0) - <floating> 49152.0  # in steps of 2**-8
        p = <floating> 0.004011336501
        p = p * x + <floating> 0.039924034
        p = p * x + <floating> 0.181127445
        p = p * x + <floating> 0.4354426638
        p = p * x + <floating> 0.5000000024
        q = <floating> 0.01005478393
        q = q * x + <floating> 0.1000821857
        q = q * x + <floating> 0.463907146
        q = q * x + <floating> 1.193736824
        q = q * x + <floating> 1.66877024
    else:
        grid = (x + 6442450944.0) - 6442450944.0  # in steps of 2**-20
        p = 1.37116434054390794e-6
        p = p * x + 0.0000369276994558441489
        p = p * x + 0.000486822507344791952
        p = p * x + 0.00406445159310688362
        p = p * x + 0.0235053530377272411
        p = p * x + 0.0973160891137550199
        p = p * x + 0.288478584432071507
        p = p * x + 0.59285035480193743
        p = p * x + 0.77404833257836126
        p = p * x + 0.5
        q = 3.43699930518475216e-6
        q = q * x + 0.0000925640155707294134
        q = q * x + 0.00122372006115981556
        q = q * x + 0.0102806332876839511
        q = q * x + 0.0601325920449973435
        q = q * x + 0.253938189469991797
        q = q * x + 0.779621817384239524
        q = q * x + 1.71053611972195828
        q = q * x + 2.55752290973070136
        q = q * x + 2.34598122595957852
    q = q * x + <floating> 1.0
    exponent = <floating> -0.5 * grid * grid
    rest = <floating> 0.5 * (x - grid) * (x + grid)
    e = reduced_expm1(low if exponent < low else exponent, rest, &power)
    scale[0] = <floating> 0.0 if exponent < low else power * e + power
    return p / q


cdef inline uint64_t mixed(uint64_t z) noexcept nogil:
    # A hash of z: the output function of SplitMix64.  G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
    # generators", OOPSLA 2014.
    z = (z ^ (z >> 30)) * <uint64_t> 0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94d049bb133111eb
    return z ^ (z >> 31)
