/* The inner loops of pooling, on maps in lanes: what a few channels of a window come to stays in registers.

   The text below is compiled once for each number type: names end in _float or _double.  */

#ifndef NUMBER

#include "vectors.h"

/* What a window comes to; SUM also backward, where EQUAL is the largest without places. */
enum { LARGEST, MEAN, SUM, EQUAL };

#define NUMBER float
#define NUMBER_BYTES 4
#define WHOLE int32_t
#define NAME(name) name##_float
#include "pooling.h"
#undef NUMBER
#undef NUMBER_BYTES
#undef WHOLE
#undef NAME
#define NUMBER double
#define NUMBER_BYTES 8
#define WHOLE int64_t
#define NAME(name) name##_double
#include "pooling.h"
#undef NUMBER
#undef NUMBER_BYTES
#undef WHOLE
#undef NAME

#else

#define vector NAME(vector)
#define whole NAME(whole)
#if VECTOR_BYTES
#define LANES (VECTOR_BYTES / NUMBER_BYTES)
typedef NUMBER vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(NUMBER)), may_alias));
typedef WHOLE whole __attribute__((vector_size(VECTOR_BYTES)));
#define AT(address) (*(vector *)(address))
#define READ(address) (*(const vector *)(address))
#define CHOOSE(condition, a, b) (((whole)(a) & (condition)) | ((whole)(b) & ~(condition)))
#else
#define LANES 1
typedef NUMBER vector;
typedef WHOLE whole;
#define AT(address) (*(address))
#define READ(address) (*(address))
#define CHOOSE(condition, a, b) ((condition) ? (a) : (b))
#endif

/* Y (vectors) = the mean of a window's numbers, or their sum; or the largest, or NaN if there is one, and places, if not NULL: which
   number that is, the first of equals. */
INLINE void NAME(pool_vectors)(const NUMBER *Z, ptrdiff_t row, ptrdiff_t numbers, const WindowOf *window, NUMBER *Y,
                               uint8_t *places, const int kind, const int vectors)
{
    const vector zero = {0};
    const NUMBER share = (NUMBER)(1.0 / (double)(window->height * window->width));
    vector result[VECTORS_POOLED], seen;
    whole at[VECTORS_POOLED], place = {0}, larger;
    WHOLE lanes[VECTORS_POOLED * LANES];
    ptrdiff_t ky, kx;
    int v;
    UNROLLED for (v = 0; v < vectors; v++) {
        result[v] = kind == LARGEST ? READ(Z + v * LANES) : zero;
        at[v] = place;
    }
    for (ky = 0; ky < window->height; ky++)
        for (kx = 0; kx < window->width; kx++) {
            UNROLLED for (v = 0; v < vectors; v++) {
                seen = READ(Z + ky * row + kx * numbers + v * LANES);
                if (kind == LARGEST) {
                    larger = ~(seen <= result[v]) & (result[v] == result[v]);
                    result[v] = (vector)CHOOSE(larger, seen, result[v]);
                    at[v] = CHOOSE(larger, place, at[v]);
                } else
                    result[v] += seen;
            }
            place += 1;
        }
    UNROLLED for (v = 0; v < vectors; v++) {
        if (kind == MEAN)
            result[v] *= share;
        AT(Y + v * LANES) = result[v];
    }
    if (kind == LARGEST && places) {
        memcpy(lanes, at, vectors * sizeof(vector));
        for (v = 0; v < vectors * LANES; v++)
            places[v] = (uint8_t)lanes[v];
    }
}

/* Backward: what dY (vectors) is goes to the place of each window of dZ; to each number of it, or a share; or to each
   number of Z that is equal to Y. */
INLINE void NAME(unpool_vectors)(const NUMBER *dY, const uint8_t *places, const NUMBER *Z, const NUMBER *Y,
                                 ptrdiff_t row, ptrdiff_t numbers, const WindowOf *window, NUMBER *dZ, const int kind,
                                 const int vectors)
{
    const vector zero = {0};
    const NUMBER share = (NUMBER)(1.0 / (double)(window->height * window->width));
    vector gradient[VECTORS_POOLED], largest[VECTORS_POOLED];
    whole at[VECTORS_POOLED], place = {0};
    WHOLE lanes[VECTORS_POOLED * LANES];
    ptrdiff_t ky, kx;
    int v;
    UNROLLED for (v = 0; v < vectors; v++) {
        gradient[v] = READ(dY + v * LANES);
        if (kind == MEAN)
            gradient[v] *= share;
        if (kind == EQUAL)
            largest[v] = READ(Y + v * LANES);
    }
    if (kind == LARGEST) {
        for (v = 0; v < vectors * LANES; v++)
            lanes[v] = places[v];
        memcpy(at, lanes, vectors * sizeof(vector));
    }
    for (ky = 0; ky < window->height; ky++)
        for (kx = 0; kx < window->width; kx++) {
            UNROLLED for (v = 0; v < vectors; v++) {
                vector part = gradient[v];
                if (kind == LARGEST)
                    part = (vector)CHOOSE(at[v] == place, gradient[v], zero);
                else if (kind == EQUAL)
                    part = (vector)CHOOSE(READ(Z + ky * row + kx * numbers + v * LANES) == largest[v], gradient[v], zero);
                AT(dZ + ky * row + kx * numbers + v * LANES) += part;
            }
            place += 1;
        }
}

/* DO(vectors) for each few channels, from c on, of each window, which is at first in z and at out in y. */
#define FOR_EACH_WINDOW(DO) \
    const ptrdiff_t numbers = z->pixel; \
    ptrdiff_t i, j, c, first, out; \
    for (i = begin; i < end; i++) \
        for (j = 0; j < y->width; j++) { \
            first = (i * window->down - window->top) * z->row + (j * window->across - window->left) * numbers; \
            out = i * y->row + j * numbers; \
            for (c = 0; c + VECTORS_POOLED * LANES <= numbers; c += VECTORS_POOLED * LANES) \
                DO(VECTORS_POOLED); \
            for (; c < numbers; c += LANES) \
                DO(1); \
        }
#define PLACES (places + (i * y->width + j) * numbers + c)

/* Rows begin to end of Y = the largest number of each window of Z, or NaN; places, if not NULL, of Y's shape without
   gaps: which number of the window that is. */
FUNCTION void NAME(pool_max)(const Image *z, const NUMBER *Z, const WindowOf *window, const Image *y, NUMBER *Y,
                             uint8_t *places, ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) \
    NAME(pool_vectors)(Z + first + c, z->row, numbers, window, Y + out + c, places ? PLACES : NULL, LARGEST, \
                       vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}

/* Rows begin to end of Y = the mean of each window of Z. */
FUNCTION void NAME(pool_mean)(const Image *z, const NUMBER *Z, const WindowOf *window, const Image *y, NUMBER *Y,
                              ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) NAME(pool_vectors)(Z + first + c, z->row, numbers, window, Y + out + c, NULL, MEAN, vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}

/* dZ += the gradient from rows begin to end of dY and the places. */
FUNCTION void NAME(pool_max_backward)(const Image *y, const NUMBER *dY, const uint8_t *places, const WindowOf *window,
                                      const Image *z, NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) \
    NAME(unpool_vectors)(dY + out + c, PLACES, NULL, NULL, z->row, numbers, window, dZ + first + c, LARGEST, vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}

/* dZ += the gradient from rows begin to end of dY. */
FUNCTION void NAME(pool_mean_backward)(const Image *y, const NUMBER *dY, const WindowOf *window, const Image *z,
                                       NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) \
    NAME(unpool_vectors)(dY + out + c, NULL, NULL, NULL, z->row, numbers, window, dZ + first + c, MEAN, vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}

/* Rows begin to end of Y = the sum of each window of Z. */
FUNCTION void NAME(pool_sum)(const Image *z, const NUMBER *Z, const WindowOf *window, const Image *y, NUMBER *Y,
                             ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) NAME(pool_vectors)(Z + first + c, z->row, numbers, window, Y + out + c, NULL, SUM, vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}

/* dZ += the gradient from rows begin to end of dY: all of it for each number of a window. */
FUNCTION void NAME(pool_sum_backward)(const Image *y, const NUMBER *dY, const WindowOf *window, const Image *z,
                                      NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) \
    NAME(unpool_vectors)(dY + out + c, NULL, NULL, NULL, z->row, numbers, window, dZ + first + c, SUM, vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}

/* dZ += the gradient from rows begin to end of dY: all of it for each number of a window of Z that is equal to Y. */
FUNCTION void NAME(pool_equal_backward)(const Image *y, const NUMBER *dY, const NUMBER *Y, const WindowOf *window,
                                        const Image *z, const NUMBER *Z, NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end)
{
#define DO(vectors) \
    NAME(unpool_vectors)(dY + out + c, NULL, Z + first + c, Y + out + c, z->row, numbers, window, dZ + first + c, EQUAL, \
                         vectors)
    FOR_EACH_WINDOW(DO)
#undef DO
}
#undef FOR_EACH_WINDOW
#undef PLACES

#undef vector
#undef whole
#undef AT
#undef READ
#undef LANES
#undef CHOOSE

#endif
