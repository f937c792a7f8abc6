/* The inner loops of the first layer, where nearly all of the time goes: sums held in registers.

   The same loops in Cython reach a fifth of this in double precision, since the compiler does not keep arrays
   of sums in registers; vector types of GCC and Clang make it.  Other compilers get vectors of one number.
   The text below is compiled once for each number type: names end in _float or _double.  */

#ifndef NUMBER

#include <stddef.h>
#include <stdint.h>

#if !defined(__GNUC__)
#define VECTOR_BYTES 0
#elif defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if VECTOR_BYTES
#define INLINE static inline __attribute__((always_inline, unused))
#define FUNCTION static __attribute__((unused))
#define PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define INLINE static __inline
#define FUNCTION static
#define PREFETCH(address)
#endif

/* Vectors in the widest sums of combine and scatter. */
#define PANEL_VECTORS 8

#define NUMBER float
#define NAME(name) name##_float
#include "tiles.h"
#undef NUMBER
#undef NAME
#define NUMBER double
#define NAME(name) name##_double
#include "tiles.h"
#undef NUMBER
#undef NAME

#else

#define vector NAME(vector)
#if VECTOR_BYTES
typedef NUMBER vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(NUMBER)), may_alias));
#define AT(address) (*(vector *)(address))
#define READ(address) (*(const vector *)(address))
#define LANES (VECTOR_BYTES / (ptrdiff_t)sizeof(NUMBER))
#else
typedef NUMBER vector;
#define AT(address) (*(address))
#define READ(address) (*(address))
#define LANES 1
#endif

INLINE NUMBER NAME(sum)(vector v)
{
#if VECTOR_BYTES
    NUMBER lanes[LANES];
    ptrdiff_t half, l;
    __builtin_memcpy(lanes, &v, sizeof v);
    for (half = LANES / 2; half > 0; half /= 2)
        for (l = 0; l < half; l++)
            lanes[l] += lanes[l + half];
    return lanes[0];
#else
    return v;
#endif
}

/* Z (4 rows, units) += X (4, n) @ W (units, n).T: 4 * units sums along the inputs. */
INLINE void NAME(dot_tile)(const NUMBER *const X[4], const NUMBER *W, ptrdiff_t w_stride, NUMBER *Z,
                           ptrdiff_t z_stride, ptrdiff_t n_rows, const int units, ptrdiff_t n)
{
    const vector zero = {0};
    vector sums[3][4], x, w[3];
    NUMBER z;
    ptrdiff_t j, rest;
    int r, c;
    for (c = 0; c < units; c++)
        for (r = 0; r < 4; r++)
            sums[c][r] = zero;
    for (j = 0; j + LANES <= n; j += LANES) {
        for (c = 0; c < units; c++)
            w[c] = READ(W + c * w_stride + j);
        for (r = 0; r < 4; r++) {
            x = READ(X[r] + j);
            for (c = 0; c < units; c++)
                sums[c][r] += x * w[c];
        }
    }
    for (c = 0; c < units; c++)
        for (r = 0; r < 4; r++) {
            z = NAME(sum)(sums[c][r]);
            for (rest = j; rest < n; rest++)
                z += X[r][rest] * W[c * w_stride + rest];
            if (r < n_rows)
                Z[r * z_stride + c] += z;
        }
}

/* Z (n, n_out) += X (n, n_in) @ W (n_out, n_in).T */
FUNCTION void NAME(dot_rows)(const NUMBER *X, ptrdiff_t x_stride, const NUMBER *W, ptrdiff_t w_stride, NUMBER *Z,
                             ptrdiff_t z_stride, ptrdiff_t n, ptrdiff_t n_in, ptrdiff_t n_out)
{
    ptrdiff_t i, t, c, r, n_tiles = (n_out + 2) / 3;
    const NUMBER *rows[4];
    for (i = 0; i < n; i += 4) {
        /* Where fewer than four rows are left, the last is taken again and its sums are dropped. */
        for (r = 0; r < 4; r++)
            rows[r] = X + (i + r < n ? i + r : n - 1) * x_stride;
        for (t = 0; t < n_tiles; t++) {
            c = n_out * t / n_tiles;
            switch (n_out * (t + 1) / n_tiles - c) {
#define CASE(units) case units: \
                NAME(dot_tile)(rows, W + c * w_stride, w_stride, Z + i * z_stride + c, z_stride, n - i, units, n_in); break;
            CASE(3) CASE(2) CASE(1)
#undef CASE
            }
        }
    }
}

/* G (units, vectors) = alpha * D (n, units).T @ X (n, vectors) + beta * G: sums along the rows. */
INLINE void NAME(outer_tile)(const NUMBER *X, ptrdiff_t x_stride, const NUMBER *D, ptrdiff_t d_stride, NUMBER *G,
                             ptrdiff_t g_stride, ptrdiff_t n, const int units, const int vectors, NUMBER alpha,
                             NUMBER beta, const NUMBER *ahead)
{
    const vector zero = {0};
    vector sums[6][2], x[2];
    NUMBER d;
    ptrdiff_t i;
    int c, k;
    for (c = 0; c < units; c++)
        for (k = 0; k < vectors; k++)
            sums[c][k] = zero;
    for (c = 0; c < units; c++)
        PREFETCH(G + c * g_stride);
    for (i = 0; i < n; i++) {
        for (k = 0; k < vectors; k++)
            x[k] = READ(X + i * x_stride + k * LANES);
        if (ahead)
            PREFETCH(ahead + i * x_stride);
        for (c = 0; c < units; c++) {
            d = D[i * d_stride + c];
            for (k = 0; k < vectors; k++)
                sums[c][k] += x[k] * d;
        }
    }
    for (c = 0; c < units; c++)
        for (k = 0; k < vectors; k++) {
            NUMBER *g = G + c * g_stride + k * LANES;
            if (beta == 0)
                AT(g) = alpha * sums[c][k];
            else
                AT(g) = beta * READ(g) + alpha * sums[c][k];
        }
}

/* G (n_out, n_in) = alpha * D (n, n_out).T @ X (n, n_in) + beta * G.  Meanwhile n rows from ahead on, if it is not
   NULL, are fetched into the cache.  */
FUNCTION void NAME(outer_rows)(const NUMBER *X, ptrdiff_t x_stride, const NUMBER *D, ptrdiff_t d_stride, NUMBER *G,
                               ptrdiff_t g_stride, ptrdiff_t n, ptrdiff_t n_in, ptrdiff_t n_out, NUMBER alpha,
                               NUMBER beta, const NUMBER *ahead)
{
    ptrdiff_t i, j, t, c, units, n_tiles = (n_out + 5) / 6;
    NUMBER g;
    for (t = 0; t < n_tiles; t++) {
        c = n_out * t / n_tiles;
        units = n_out * (t + 1) / n_tiles - c;
        j = 0;
#define TILE(units, vectors, ahead) \
        NAME(outer_tile)(X + j, x_stride, D + c, d_stride, G + c * g_stride + j, g_stride, n, units, vectors, alpha, beta, ahead)
#define CASE(units, vectors) case units: TILE(units, vectors, NULL); break;
#define CASE_AHEAD(units, vectors) case units: TILE(units, vectors, ahead + j); break;
        if (ahead && t == 0)
            for (; j + 2 * LANES <= n_in; j += 2 * LANES)
                switch (units) {
                CASE_AHEAD(6, 2) CASE_AHEAD(5, 2) CASE_AHEAD(4, 2) CASE_AHEAD(3, 2) CASE_AHEAD(2, 2) CASE_AHEAD(1, 2)
                }
        for (; j + 2 * LANES <= n_in; j += 2 * LANES)
            switch (units) {
            CASE(6, 2) CASE(5, 2) CASE(4, 2) CASE(3, 2) CASE(2, 2) CASE(1, 2)
            }
        for (; j + LANES <= n_in; j += LANES)
            switch (units) {
            CASE(6, 1) CASE(5, 1) CASE(4, 1) CASE(3, 1) CASE(2, 1) CASE(1, 1)
            }
#undef CASE_AHEAD
#undef CASE
#undef TILE
        for (; j < n_in; j++)
            for (units = c; units < n_out * (t + 1) / n_tiles; units++) {
                g = 0;
                for (i = 0; i < n; i++)
                    g += D[i * d_stride + units] * X[i * x_stride + j];
                G[units * g_stride + j] = alpha * g + (beta == 0 ? 0 : beta * G[units * g_stride + j]);
            }
    }
}

/* Widest panel of combine and scatter, and where panel p of so many begins. */
FUNCTION ptrdiff_t NAME(panels_of)(ptrdiff_t width)
{
    ptrdiff_t n_vectors = (width + LANES - 1) / LANES;
    return (n_vectors + PANEL_VECTORS - 1) / PANEL_VECTORS;
}

FUNCTION ptrdiff_t NAME(panel_begin)(ptrdiff_t width, ptrdiff_t p, ptrdiff_t n_panels)
{
    ptrdiff_t n_vectors = (width + LANES - 1) / LANES;
    return p == n_panels ? width : n_vectors * p / n_panels * LANES;
}

/* The last vector of a panel ends where the panel ends, so it may overlap the one before: all are read before any
   is written.  */
#define PLACE(p) (p == vectors - 1 ? width - LANES : p * LANES)

INLINE void NAME(combine_vectors)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale,
                                  const NUMBER *B, ptrdiff_t stride, NUMBER *out, ptrdiff_t width, const int vectors)
{
    vector sums[PANEL_VECTORS];
    const NUMBER *b;
    NUMBER value;
    ptrdiff_t k;
    int p;
    for (p = 0; p < vectors; p++)
        sums[p] = READ(out + PLACE(p));
    for (k = 0; k < n; k++) {
        value = scale * values[k];
        b = B + rows[k] * stride;
        for (p = 0; p < vectors; p++)
            sums[p] += value * READ(b + PLACE(p));
    }
    for (p = 0; p < vectors; p++)
        AT(out + PLACE(p)) = sums[p];
}

/* out (width,) += scale * sum_k values[k] * B[rows[k]] (width,), for one panel. */
FUNCTION void NAME(combine)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale, const NUMBER *B,
                            ptrdiff_t stride, NUMBER *out, ptrdiff_t width)
{
    ptrdiff_t k, c;
    if (width < LANES) {
        for (k = 0; k < n; k++)
            for (c = 0; c < width; c++)
                out[c] += scale * values[k] * B[rows[k] * stride + c];
        return;
    }
    switch ((width + LANES - 1) / LANES) {
#define CASE(vectors) \
    case vectors: NAME(combine_vectors)(values, rows, n, scale, B, stride, out, width, vectors); break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    }
}

INLINE void NAME(scatter_vectors)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale,
                                  const NUMBER *d, NUMBER *B, ptrdiff_t stride, ptrdiff_t width, const int vectors)
{
    vector kept[PANEL_VECTORS], sums[PANEL_VECTORS];
    NUMBER *b;
    NUMBER value;
    ptrdiff_t k;
    int p;
    for (p = 0; p < vectors; p++)
        kept[p] = READ(d + PLACE(p));
    for (k = 0; k < n; k++) {
        value = scale * values[k];
        b = B + rows[k] * stride;
        for (p = 0; p < vectors; p++)
            sums[p] = READ(b + PLACE(p)) + value * kept[p];
        for (p = 0; p < vectors; p++)
            AT(b + PLACE(p)) = sums[p];
    }
}

/* B[rows[k]] (width,) += scale * values[k] * d (width,) for each k in turn, for one panel. */
FUNCTION void NAME(scatter)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale, const NUMBER *d,
                            NUMBER *B, ptrdiff_t stride, ptrdiff_t width)
{
    ptrdiff_t k, c;
    if (width < LANES) {
        for (k = 0; k < n; k++)
            for (c = 0; c < width; c++)
                B[rows[k] * stride + c] += scale * values[k] * d[c];
        return;
    }
    switch ((width + LANES - 1) / LANES) {
#define CASE(vectors) \
    case vectors: NAME(scatter_vectors)(values, rows, n, scale, d, B, stride, width, vectors); break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    }
}

#undef PLACE
#undef vector
#undef AT
#undef READ
#undef LANES

#endif
