/* The inner loops of products on dense rows: tiles of sums held in registers.

   For narrow layers, dot_rows and outer_rows read both operands in place, and vectors run along the inputs, which are
   many.  For wide layers, wide_rows and wide_outer, vectors run along the units, so that a number of X is used for a
   whole panel of units.  The weight may be in panels, see affine.pyx; if not, a panel's part is first copied together.

   The text below is compiled once for each number type: names end in _float or _double.  */

#ifndef NUMBER

#include "vectors.h"

/* How the units of a slice are cut into panels, each of at most WIDE_VECTORS vectors. */
typedef struct {
    ptrdiff_t n_panels;
    ptrdiff_t vectors, n_wider;  /* vectors of a panel; the first n_wider panels have one more */
} Panels;

INLINE ptrdiff_t lanes_of(ptrdiff_t number_size)
{
    return VECTOR_BYTES > 0 ? VECTOR_BYTES / number_size : 1;
}

INLINE Panels cut_into_panels(ptrdiff_t units, ptrdiff_t number_size)
{
    const ptrdiff_t lanes = lanes_of(number_size), n_vectors = (units + lanes - 1) / lanes;
    Panels panels = {(n_vectors + WIDE_VECTORS - 1) / WIDE_VECTORS, n_vectors, 0};
    /* A division of long integers takes longer than a small product. */
    if (panels.n_panels > 1) {
        panels.vectors = (int)n_vectors / (int)panels.n_panels;
        panels.n_wider = n_vectors - panels.vectors * panels.n_panels;
    }
    return panels;
}

/* Numbers that the weights of n_in inputs and a slice of units take in panels, in whole cache lines. */
INLINE ptrdiff_t slice_size(ptrdiff_t n_in, ptrdiff_t units, ptrdiff_t number_size)
{
    const ptrdiff_t lanes = lanes_of(number_size), line = LINE_BYTES / number_size;
    return (n_in * ((units + lanes - 1) / lanes * lanes) + line - 1) / line * line;
}

/* How far the rows ahead have been prefetched. */
typedef struct {
    const RowsAhead *rows;
    ptrdiff_t row, byte;
} Prefetching;

/* Returns where the next n lines to prefetch begin, and sets their distance: no more than the rest of a row. */
INLINE const char *prefetch_more(Prefetching *prefetching, ptrdiff_t n, ptrdiff_t *distance)
{
    const char *place = (const char *)prefetching;
    ptrdiff_t left;
    *distance = 0;
    if (prefetching->rows && prefetching->row < prefetching->rows->n) {
        place = row_ahead(prefetching->rows, prefetching->row) + prefetching->byte;
        left = prefetching->rows->bytes - prefetching->byte;
        *distance = left > n * LINE_BYTES ? LINE_BYTES : (left + n - 1) / n;
        prefetching->byte += n * LINE_BYTES;
        if (left <= n * LINE_BYTES) {
            prefetching->row++;
            prefetching->byte = 0;
        }
    }
    return place;
}

/* Where part k of m parts of n begins, without a division at either end. */
#define PART(n, k, m) ((k) == 0 ? 0 : (k) == (m) ? (n) : (n) * (k) / (m))

/* The end of the inputs that are taken at a time from first on: at most WIDE_INPUTS, as many each time, within a cut or
   whole cuts.  It depends on the cuts alone, not on which of them a thread owns. */
INLINE ptrdiff_t end_of_part(const Cut *cut, ptrdiff_t first, ptrdiff_t n)
{
    const ptrdiff_t begin = cut->columns < n ? first / cut->columns * cut->columns : 0;
    const ptrdiff_t width = n - begin < cut->columns ? n - begin : cut->columns;
    const ptrdiff_t n_parts = (width + WIDE_INPUTS - 1) / WIDE_INPUTS;
    const ptrdiff_t together = cut->columns <= WIDE_INPUTS ? WIDE_INPUTS / cut->columns * cut->columns : 0;
    ptrdiff_t k = 1;
    if (together)
        return n - first < together ? n : first + together;
    while (begin + PART(width, k, n_parts) <= first)
        k++;
    return begin + PART(width, k, n_parts);
}

/* Lanes to shuffle out of two vectors: i and i + 2 of each, or the pair at i of each. */
#define FOUR_OF_TWO(i) i, LANES + (i), (i) + 2, LANES + (i) + 2
#define TWO_OF_TWO(i) i, (i) + 1, LANES + (i), LANES + (i) + 1
/* Lanes of two vectors in turn: two or four from lane i on. */
#define TWO_IN_TURN(i) i, LANES + (i)
#define FOUR_IN_TURN(i) TWO_IN_TURN(i), TWO_IN_TURN(i + 1)

#define NUMBER float
#define NUMBER_BYTES 4
#define NAME(name) name##_float
#include "tiles.h"
#undef NUMBER
#undef NUMBER_BYTES
#undef NAME
#define NUMBER double
#define NUMBER_BYTES 8
#define NAME(name) name##_double
#include "tiles.h"
#undef NUMBER
#undef NUMBER_BYTES
#undef NAME

#else

#define vector NAME(vector)
#if VECTOR_BYTES
typedef NUMBER vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(NUMBER)), may_alias));
#define AT(address) (*(vector *)(address))
#define READ(address) (*(const vector *)(address))
#define LANES (VECTOR_BYTES / NUMBER_BYTES)
#else
typedef NUMBER vector;
#define AT(address) (*(address))
#define READ(address) (*(address))
#define LANES 1
#endif
#if LANES == 16
#define PAIRS(i) FOUR_OF_TWO(i), FOUR_OF_TWO(i + 4), FOUR_OF_TWO(i + 8), FOUR_OF_TWO(i + 12)
#define FOURS(i) TWO_OF_TWO(i), TWO_OF_TWO(i + 4), TWO_OF_TWO(i + 8), TWO_OF_TWO(i + 12)
#elif LANES == 8
#define PAIRS(i) FOUR_OF_TWO(i), FOUR_OF_TWO(i + 4)
#define FOURS(i) TWO_OF_TWO(i), TWO_OF_TWO(i + 4)
#elif LANES == 4
#define PAIRS(i) FOUR_OF_TWO(i)
#define FOURS(i) TWO_OF_TWO(i)
#elif LANES == 2
#define PAIRS(i) i, LANES + (i)
#endif
#if LANES == 16
#define LOW_LANES FOUR_IN_TURN(0), FOUR_IN_TURN(2), FOUR_IN_TURN(4), FOUR_IN_TURN(6)
#define HIGH_LANES FOUR_IN_TURN(8), FOUR_IN_TURN(10), FOUR_IN_TURN(12), FOUR_IN_TURN(14)
#elif LANES == 8
#define LOW_LANES FOUR_IN_TURN(0), FOUR_IN_TURN(2)
#define HIGH_LANES FOUR_IN_TURN(4), FOUR_IN_TURN(6)
#elif LANES == 4
#define LOW_LANES FOUR_IN_TURN(0)
#define HIGH_LANES FOUR_IN_TURN(2)
#elif LANES == 2
#define LOW_LANES TWO_IN_TURN(0)
#define HIGH_LANES TWO_IN_TURN(1)
#endif

#define ROW(X, order, i, stride) ((X) + ((order) ? (order)[i] : (i)) * (stride))

/* z[k] = the sum of all lanes of vk, k from 0 to 3. */
INLINE void NAME(sum_lanes)(const vector v0, const vector v1, const vector v2, const vector v3, NUMBER z[4])
{
#if LANES > 1 && HAS_SHUFFLE
    /* Two vectors become one as neighbours are added, and again; then halves are added. */
    const vector pairs[2] = {
        __builtin_shufflevector(v0, v1, PAIRS(0)) + __builtin_shufflevector(v0, v1, PAIRS(1)),
        __builtin_shufflevector(v2, v3, PAIRS(0)) + __builtin_shufflevector(v2, v3, PAIRS(1))};
#if LANES == 2
    memcpy(z, pairs, 4 * sizeof(NUMBER));
#else
    const vector fours = __builtin_shufflevector(pairs[0], pairs[1], FOURS(0))
                         + __builtin_shufflevector(pairs[0], pairs[1], FOURS(2));
#if LANES == 16
    typedef NUMBER half __attribute__((vector_size(VECTOR_BYTES / 2)));
    const half eights = __builtin_shufflevector(fours, fours, 0, 1, 2, 3, 4, 5, 6, 7)
                        + __builtin_shufflevector(fours, fours, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    const vector eights = fours;
#endif
#if LANES >= 8
    typedef NUMBER four __attribute__((vector_size(4 * NUMBER_BYTES)));
    const four sums = __builtin_shufflevector(eights, eights, 0, 1, 2, 3)
                      + __builtin_shufflevector(eights, eights, 4, 5, 6, 7);
#else
    const vector sums = eights;
#endif
    memcpy(z, &sums, 4 * sizeof(NUMBER));
#endif
#else
    const vector v[4] = {v0, v1, v2, v3};
    NUMBER lanes[LANES];
    int k, l;
    for (k = 0; k < 4; k++) {
        memcpy(lanes, &v[k], sizeof lanes);
        z[k] = 0;
        for (l = 0; l < LANES; l++)
            z[k] += lanes[l];
    }
#endif
}

/* The n < LANES numbers at address, then zeros. */
INLINE vector NAME(read_few)(const NUMBER *address, ptrdiff_t n)
{
#if VECTOR_BYTES == 64 && NUMBER_BYTES == 4
    return (vector)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), address);
#elif VECTOR_BYTES == 64
    return (vector)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), address);
#elif VECTOR_BYTES == 32 && NUMBER_BYTES == 4 && defined(__AVX2__)
    return (vector)_mm256_maskload_ps(address, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                                                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
#elif VECTOR_BYTES == 32 && defined(__AVX2__)
    return (vector)_mm256_maskload_pd(address, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)));
#elif VECTOR_BYTES == 16
    /* A call of memcpy takes longer. */
    vector v = {0};
    int k;
    UNROLLED for (k = 0; k < LANES - 1; k++)
        if (k < n)
            v[k] = address[k];
    return v;
#else
    vector v = {0};
    memcpy(&v, address, n * sizeof(NUMBER));
    return v;
#endif
}

/* The same as a call, so that it takes no registers from a tile's loop. */
APART vector NAME(read_part)(const NUMBER *address, ptrdiff_t n)
{
    return NAME(read_few)(address, n);
}

/* Writes the first n numbers of a vector to address. */
INLINE void NAME(write_part)(NUMBER *address, const vector v, ptrdiff_t n)
{
#if VECTOR_BYTES == 64 && NUMBER_BYTES == 4
    _mm512_mask_storeu_ps(address, (__mmask16)((1u << n) - 1), (__m512)v);
#elif VECTOR_BYTES == 64
    _mm512_mask_storeu_pd(address, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif VECTOR_BYTES == 16
    int k;
    UNROLLED for (k = 0; k < LANES - 1; k++)
        if (k < n)
            address[k] = v[k];
#else
    memcpy(address, &v, n * sizeof(NUMBER));
#endif
}

/* C (n) = alpha * sum + beta * B for n numbers, at most LANES, rounded after each operation. */
INLINE void NAME(add_vector)(const NUMBER *B, NUMBER *C, vector sum, ptrdiff_t n, NUMBER alpha, NUMBER beta)
{
    vector old;
    sum = alpha * sum;
    ROUNDED(sum);
    if (beta != 0) {
        old = n < LANES ? NAME(read_few)(B, n) : READ(B);
        if (beta != 1)
            old = beta * old;
        ROUNDED(old);
        sum += old;
    }
    if (n < LANES)
        NAME(write_part)(C, sum, n);
    else
        AT(C) = sum;
}

/* Z (rows, units) += X (rows, n) @ W (units, n).T: rows * units sums along the inputs, for at most DOT_UNITS units.
   Meanwhile as many bytes as a row of X has are prefetched from each pointer of next on. */
INLINE void NAME(dot_tile)(const NUMBER *const X[DOT_ROWS], const NUMBER *W, ptrdiff_t w_stride, NUMBER *Z,
                           ptrdiff_t z_stride, ptrdiff_t n_rows, const int rows, const int units, ptrdiff_t n,
                           const char *const next[2])
{
    const vector zero = {0};
    vector sums[DOT_ROWS * DOT_UNITS + 3], x[DOT_ROWS], w = zero;
    NUMBER z[DOT_ROWS * DOT_UNITS + 3];
    ptrdiff_t j;
    int r, c, k;
    UNROLLED for (k = 0; k < rows * units + 3; k++)
        sums[k] = zero;
    for (j = 0; j + LANES <= n; j += LANES) {
        PREFETCH(next[0] + j * sizeof(NUMBER));
        PREFETCH(next[1] + j * sizeof(NUMBER));
        UNROLLED for (r = 0; r < rows; r++) {
            vector v = READ(X[r] + j);
            IN_REGISTER(v);
            x[r] = v;
        }
        UNROLLED for (k = 0; k < rows * units; k++) {
            if (k % rows == 0)
                w = READ(W + k / rows * w_stride + j);
            sums[k % rows * units + k / rows] += x[k % rows] * w;
        }
    }
    if (j < n) {
        vector part[DOT_ROWS];  /* not x, which would then be kept in memory */
        UNROLLED for (r = 0; r < rows; r++)
            part[r] = NAME(read_part)(X[r] + j, n - j);
        UNROLLED for (k = 0; k < rows * units; k++) {
            if (k % rows == 0)
                w = NAME(read_part)(W + k / rows * w_stride + j, n - j);
            sums[k % rows * units + k / rows] += part[k % rows] * w;
        }
    }
    UNROLLED for (k = 0; k < rows * units; k += 4)
        NAME(sum_lanes)(sums[k], sums[k + 1], sums[k + 2], sums[k + 3], z + k);
    UNROLLED for (r = 0; r < rows; r++)
        if (r < n_rows)
            UNROLLED for (c = 0; c < units; c++)
                Z[r * z_stride + c] += z[r * units + c];
}

/* A function for each shape of a tile, so that it has all registers: DOT_ROWS - missing rows by units. */
#define SHAPE(missing, units) \
    APART void NAME(dot_##missing##_##units)(const NUMBER *const X[DOT_ROWS], const NUMBER *W, ptrdiff_t w_stride, \
                                             NUMBER *Z, ptrdiff_t z_stride, ptrdiff_t n_rows, ptrdiff_t n, \
                                             const char *const next[2]) \
    { \
        NAME(dot_tile)(X, W, w_stride, Z, z_stride, n_rows, DOT_ROWS - missing, units, n, next); \
    }
#if DOT_UNITS == 5
SHAPE(0, 5) SHAPE(1, 5) SHAPE(2, 5)
#endif
SHAPE(0, 4) SHAPE(0, 3) SHAPE(0, 2) SHAPE(0, 1)
SHAPE(1, 4) SHAPE(1, 3) SHAPE(1, 2) SHAPE(1, 1)
SHAPE(2, 4) SHAPE(2, 3) SHAPE(2, 2) SHAPE(2, 1)
#undef SHAPE

/* Z (n, n_out) += X (n, n_in) @ W (n_out, n_in).T, for units first to last only, DOT_ROWS rows at a time.  Meanwhile
   the rows ahead are prefetched from a column on, at most two a tile.  The first tile of each few rows prefetches none:
   it waits for its own rows, and both would take longer. */
INLINE void NAME(dot_rows_of_units)(const NUMBER *X, const ptrdiff_t *order, ptrdiff_t x_stride, const NUMBER *W,
                             ptrdiff_t w_stride, NUMBER *Z, ptrdiff_t z_stride, ptrdiff_t n, ptrdiff_t n_in,
                             ptrdiff_t first, ptrdiff_t last, const RowsAhead *ahead, ptrdiff_t column)
{
    /* No division within the loops: one may take as long as dozens of products. */
    const ptrdiff_t n_bands = (n + DOT_ROWS - 1) / DOT_ROWS, n_tiles = (last - first + DOT_UNITS - 1) / DOT_UNITS;
    const ptrdiff_t rows_each = n_bands ? n / n_bands : 0, units_each = n_tiles ? (last - first) / n_tiles : 0;
    const ptrdiff_t n_higher = n - rows_each * n_bands, n_wider = last - first - units_each * n_tiles;
    const ptrdiff_t first_prefetching = n_tiles > 1, n_prefetching = n_bands * (n_tiles - first_prefetching);
    const ptrdiff_t n_ahead = ahead ? ahead->n : 0;
    ptrdiff_t i = 0, s, t, c, r, k, n_rows, n_units, due = 0, prefetched = 0;
    const NUMBER *rows[DOT_ROWS];
    const char *next[2];
    for (s = 0; s < n_bands; s++, i += n_rows) {
        n_rows = rows_each + (s < n_higher);
        /* If fewer rows are left than a tile has, the last one is repeated and its extra sums are dropped. */
        for (r = 0; r < DOT_ROWS; r++)
            rows[r] = ROW(X, order, i + (r < n_rows ? r : n_rows - 1), x_stride);
        for (t = 0, c = first; t < n_tiles; t++, c += n_units) {
            n_units = units_each + (t < n_wider);
            if (t >= first_prefetching)
                due += n_ahead;
            for (k = 0; k < 2; k++) {
                next[k] = (const char *)W;
                if (due >= n_prefetching) {
                    due -= n_prefetching;
                    next[k] = row_ahead(ahead, prefetched) + column * sizeof(NUMBER);
                    prefetched++;
                }
            }
#define TILE(missing, units) \
            NAME(dot_##missing##_##units)(rows, W + c * w_stride, w_stride, Z + i * z_stride + c, z_stride, n_rows, n_in, \
                                          next); \
            break;
#define CASES(units) \
            case units: \
                switch (n_rows) { \
                case DOT_ROWS: TILE(0, units) \
                case DOT_ROWS - 1: TILE(1, units) \
                default: TILE(2, units) \
                } \
                break;
            switch (n_units) {
#if DOT_UNITS == 5
            CASES(5)
#endif
            CASES(4) CASES(3) CASES(2) CASES(1) }
#undef CASES
#undef TILE
        }
    }
}

/* Z (n, n_out) += X (n, n_in) @ W (n_out, n_in).T, part by part: few enough inputs that DOT_ROWS rows stay in the
   first-level cache, few enough units that their weights stay in the second-level cache.  Meanwhile the rows ahead, if
   any, are prefetched. */
FUNCTION void NAME(dot_rows)(const NUMBER *X, const ptrdiff_t *order, ptrdiff_t x_stride, const NUMBER *W,
                             ptrdiff_t w_stride, NUMBER *Z, ptrdiff_t z_stride, ptrdiff_t n, ptrdiff_t n_in,
                             ptrdiff_t n_out, const RowsAhead *ahead)
{
    ptrdiff_t b, g, j, end, n_blocks, n_groups, bytes = n_in * (ptrdiff_t)sizeof(NUMBER);
    n_blocks = (bytes + DOT_BYTES - 1) / DOT_BYTES;
    n_groups = n_blocks ? (n_out * (bytes / n_blocks) + WEIGHT_BYTES - 1) / WEIGHT_BYTES : 0;
    for (b = 0; b < n_blocks; b++) {
        j = n_in * b / n_blocks / LANES * LANES;
        end = b + 1 < n_blocks ? n_in * (b + 1) / n_blocks / LANES * LANES : n_in;
        for (g = 0; g < n_groups; g++)
            NAME(dot_rows_of_units)(X + j, order, x_stride, W + j, w_stride, Z, z_stride, n, end - j, n_out * g / n_groups,
                             n_out * (g + 1) / n_groups, g == 0 ? ahead : NULL, j);
    }
}

/* G (units, vectors) = alpha * D (n, units).T @ X (n, vectors) + beta * G: sums along the rows, for whole vectors of
   columns or for fewer columns than LANES.  Meanwhile the n_ahead rows ahead are prefetched, at the same columns. */
INLINE void NAME(outer_tile)(const NUMBER *X, const ptrdiff_t *order, ptrdiff_t x_stride, const NUMBER *D,
                             ptrdiff_t d_stride, NUMBER *G, ptrdiff_t g_stride, ptrdiff_t n, const int units,
                             const int vectors, ptrdiff_t columns, NUMBER alpha, NUMBER beta, const int prefetches,
                             const char *const ahead[OUTER_AHEAD], ptrdiff_t n_ahead, ptrdiff_t byte)
{
    const vector zero = {0};
    const int whole = columns >= LANES;
    const ptrdiff_t first_prefetching = n - n_ahead;
    vector sums[OUTER_UNITS * 2], x[2];
    const NUMBER *row;
    ptrdiff_t i;
    int k;
    UNROLLED for (k = 0; k < units * vectors; k++)
        sums[k] = zero;
    for (i = 0; i < n; i++) {
        row = ROW(X, order, i, x_stride);
        UNROLLED for (k = 0; k < vectors; k++)
            x[k] = whole ? READ(row + k * LANES) : NAME(read_part)(row, columns);
        if (prefetches && i >= first_prefetching)
            for (k = 0; k < vectors * VECTOR_BYTES; k += LINE_BYTES)
                PREFETCH_NEAR(ahead[i - first_prefetching] + byte + k);
        UNROLLED for (k = 0; k < units * vectors; k++)
            sums[k] += x[k % vectors] * D[i * d_stride + k / vectors];
    }
    UNROLLED for (k = 0; k < units * vectors; k++) {
        NUMBER *place = G + k / vectors * g_stride + k % vectors * LANES;
        NAME(add_vector)(place, place, sums[k], columns, alpha, beta);
    }
}

/* The same for all n_in columns, tile by tile. */
INLINE void NAME(outer_units)(const NUMBER *X, const ptrdiff_t *order, ptrdiff_t x_stride, const NUMBER *D,
                              ptrdiff_t d_stride, NUMBER *G, ptrdiff_t g_stride, ptrdiff_t n, ptrdiff_t n_in,
                              const int units, NUMBER alpha, NUMBER beta, const RowsAhead *ahead)
{
    const ptrdiff_t n_ahead = !ahead ? 0 : ahead->n < OUTER_AHEAD ? ahead->n : OUTER_AHEAD;
    const char *rows[OUTER_AHEAD];
    ptrdiff_t i, j = 0;
    for (i = 0; i < n_ahead; i++)
        rows[i] = row_ahead(ahead, i);
#define TILE(vectors, columns, prefetches) \
    NAME(outer_tile)(X + j, order, x_stride, D, d_stride, G + j, g_stride, n, units, vectors, columns, alpha, beta, prefetches, \
                     rows, n_ahead, j * sizeof(NUMBER))
    if (n_ahead)
        for (; j + 2 * LANES <= n_in; j += 2 * LANES)
            TILE(2, LANES, 1);
    for (; j + 2 * LANES <= n_in; j += 2 * LANES)
        TILE(2, LANES, 0);
    for (; j + LANES <= n_in; j += LANES)
        TILE(1, LANES, 0);
    if (j < n_in)
        TILE(1, n_in - j, 0);
#undef TILE
}

/* A function for each number of units. */
#if OUTER_UNITS > 6
#define FOR_EACH_SHAPE(DO) DO(12) DO(11) DO(10) DO(9) DO(8) DO(7) DO(6) DO(5) DO(4) DO(3) DO(2) DO(1)
#else
#define FOR_EACH_SHAPE(DO) DO(6) DO(5) DO(4) DO(3) DO(2) DO(1)
#endif
#define SHAPE(units) \
    APART void NAME(outer_##units)(const NUMBER *X, const ptrdiff_t *order, ptrdiff_t x_stride, const NUMBER *D, \
                                   ptrdiff_t d_stride, NUMBER *G, ptrdiff_t g_stride, ptrdiff_t n, ptrdiff_t n_in, \
                                   NUMBER alpha, NUMBER beta, const RowsAhead *ahead) \
    { \
        NAME(outer_units)(X, order, x_stride, D, d_stride, G, g_stride, n, n_in, units, alpha, beta, ahead); \
    }
FOR_EACH_SHAPE(SHAPE)
#undef SHAPE

/* G (n_out, n_in) = alpha * D (n, n_out).T @ X (n, n_in) + beta * G.  Meanwhile the rows ahead, at most n, are
   prefetched. */
FUNCTION void NAME(outer_rows)(const NUMBER *X, const ptrdiff_t *order, ptrdiff_t x_stride, const NUMBER *D,
                               ptrdiff_t d_stride, NUMBER *G, ptrdiff_t g_stride, ptrdiff_t n, ptrdiff_t n_in,
                               ptrdiff_t n_out, NUMBER alpha, NUMBER beta, const RowsAhead *ahead)
{
    ptrdiff_t t, c, units, n_tiles = (n_out + OUTER_UNITS - 1) / OUTER_UNITS;
    for (t = 0; t < n_tiles; t++) {
        c = n_out * t / n_tiles;
        units = n_out * (t + 1) / n_tiles - c;
#define SHAPE(units) \
        case units: \
            NAME(outer_##units)(X, order, x_stride, D + c, d_stride, G + c * g_stride, g_stride, n, n_in, alpha, beta, \
                                t == 0 ? ahead : NULL); \
            break;
        switch (units) { FOR_EACH_SHAPE(SHAPE) }
#undef SHAPE
    }
}
#undef FOR_EACH_SHAPE

/* Z (n, n_out) = b (n_out,), or 0 if b is NULL. */
FUNCTION void NAME(fill_rows)(const NUMBER *b, NUMBER *Z, ptrdiff_t z_stride, ptrdiff_t n, ptrdiff_t n_out)
{
    const vector zero = {0};
    ptrdiff_t i, j;
    for (i = 0; i < n; i++, Z += z_stride) {
        for (j = 0; j + LANES <= n_out; j += LANES)
            AT(Z + j) = b ? READ(b + j) : zero;
        if (j < n_out)
            NAME(write_part)(Z + j, b ? NAME(read_few)(b + j, n_out - j) : zero, n_out - j);
    }
}

/* s (n_out,) = alpha * the sum of the rows of D (n, n_out) + beta * s. */
FUNCTION void NAME(sum_rows)(const NUMBER *D, ptrdiff_t d_stride, NUMBER *s, ptrdiff_t n, ptrdiff_t n_out, NUMBER alpha,
                             NUMBER beta)
{
    ptrdiff_t i, j, width, whole;
    for (j = 0; j < n_out; j += LANES) {
        vector sum = {0};
        width = n_out - j < LANES ? n_out - j : LANES;
        /* If fewer units are left, numbers of the next row fill the vector and are dropped; the last rows have none. */
        whole = n;
        while (whole > 0 && (whole - 1) * d_stride + j + LANES > (n - 1) * d_stride + n_out)
            whole--;
        for (i = 0; i < whole; i++)
            sum += READ(D + i * d_stride + j);
        for (; i < n; i++)
            sum += NAME(read_few)(D + i * d_stride + j, width);
        NAME(add_vector)(s + j, s + j, sum, width, alpha, beta);
    }
}

/* P (n, vectors * LANES), contiguous, = the first width columns of W, then zeros. */
INLINE void NAME(copy_panel)(const NUMBER *W, ptrdiff_t w_stride, ptrdiff_t n, int vectors, ptrdiff_t width, NUMBER *P)
{
    const ptrdiff_t last = width - (vectors - 1) * LANES;
    ptrdiff_t i;
    int v;
    for (i = 0; i < n; i++, W += w_stride, P += vectors * LANES) {
        for (v = 0; v < vectors - 1; v++)
            AT(P + v * LANES) = READ(W + v * LANES);
        AT(P + v * LANES) = last < LANES ? NAME(read_few)(W + v * LANES, last) : READ(W + v * LANES);
    }
}

/* C (rows, width) = alpha * sums + beta * B, where B has a stride of its own. */
INLINE void NAME(add_tile)(const vector sums[WIDE_ROWS * WIDE_VECTORS], const NUMBER *B, ptrdiff_t b_stride, NUMBER *C,
                           ptrdiff_t c_stride, const int rows, const int vectors, ptrdiff_t width, NUMBER alpha,
                           NUMBER beta)
{
    const ptrdiff_t last = width - (vectors - 1) * LANES;
    int k;
    UNROLLED for (k = 0; k < rows * vectors; k++)
        NAME(add_vector)(B + k / vectors * b_stride + k % vectors * LANES,
                         C + k / vectors * c_stride + k % vectors * LANES, sums[k],
                         k % vectors < vectors - 1 ? LANES : last, alpha, beta);
}

/* Inputs of a product that a tile takes at a time: from column on in X, whole cuts of them if those are narrow. */
typedef struct {
    const NUMBER *X;
    ptrdiff_t stride, n;
    ptrdiff_t together, skipped;  /* inputs that lie together; numbers between the end of a cut and the next */
} NAME(Part);

INLINE NAME(Part) NAME(part_of)(const NUMBER *X, const Cut *cut, ptrdiff_t column, ptrdiff_t n)
{
    NAME(Part) part = {X + place_of(cut, column), cut->stride, n, n < cut->columns ? n : cut->columns,
                       cut->next - cut->columns};
    return part;
}

/* Z (rows, width) = B + X (rows, n) @ P (n, vectors * LANES), one panel of weights and part of the inputs, for rows from
   row on, where B is the old Z, or a bias if b_stride is 0, or 0 if B is NULL.  Meanwhile n lines are prefetched from
   next on, distance bytes apart. */
INLINE void NAME(rows_tile)(const NAME(Part) *part, ptrdiff_t row, const NUMBER *P, const NUMBER *B, ptrdiff_t b_stride,
                            NUMBER *Z, ptrdiff_t z_stride, ptrdiff_t width, const int rows, const int vectors,
                            const char *next, ptrdiff_t distance)
{
    const vector zero = {0};
    const ptrdiff_t x_stride = part->stride;
    const NUMBER *X = part->X + row * x_stride;
    vector sums[WIDE_ROWS * WIDE_VECTORS], w[WIDE_VECTORS];
    ptrdiff_t j, end;
    int k, v;
    UNROLLED for (k = 0; k < rows * vectors; k++)
        sums[k] = zero;
    for (j = 0; j < part->n; X += part->skipped) {
        end = part->n - j < part->together ? part->n : j + part->together;
        for (; j < end; j++, X++, P += vectors * LANES, next += distance) {
            UNROLLED for (v = 0; v < vectors; v++)
                w[v] = READ(P + v * LANES);
            PREFETCH(next);
            UNROLLED for (k = 0; k < rows * vectors; k++)
                sums[k] += X[k / vectors * x_stride] * w[k % vectors];
        }
    }
    if (B)
        NAME(add_tile)(sums, B, b_stride, Z, z_stride, rows, vectors, width, 1, 1);
    else
        NAME(add_tile)(sums, Z, z_stride, Z, z_stride, rows, vectors, width, 1, 0);
}

/* G (inputs, width) = alpha * X (n, inputs).T @ P (n, vectors * LANES) + beta * G, with one panel P of gradients. */
INLINE void NAME(inputs_tile)(const NUMBER *X, ptrdiff_t x_stride, const NUMBER *P, NUMBER *G, ptrdiff_t g_stride,
                              ptrdiff_t n, ptrdiff_t width, const int inputs, const int vectors, NUMBER alpha,
                              NUMBER beta)
{
    const vector zero = {0};
    vector sums[WIDE_ROWS * WIDE_VECTORS], d[WIDE_VECTORS];
    ptrdiff_t i;
    int k, v;
    UNROLLED for (k = 0; k < inputs * vectors; k++)
        sums[k] = zero;
    for (i = 0; i < n; i++, X += x_stride, P += vectors * LANES) {
        UNROLLED for (v = 0; v < vectors; v++)
            d[v] = READ(P + v * LANES);
        /* For the next tile. */
        PREFETCH_NEAR((const char *)X + LINE_BYTES);
        if (i < inputs)
            UNROLLED for (v = 0; v < vectors; v++)
                PREFETCH_WRITE(G + (inputs + i) * g_stride + v * LANES);
        UNROLLED for (k = 0; k < inputs * vectors; k++)
            sums[k] += X[k / vectors] * d[k % vectors];
    }
    NAME(add_tile)(sums, G, g_stride, G, g_stride, inputs, vectors, width, alpha, beta);
}

/* TILE(rows, vectors) for all rows from i to end, in tiles of 8, 4, 2 and 1 rows. */
#define TILES(vectors) \
    case vectors: \
        if (WIDE_ROWS == 8) \
            for (; i + 8 <= end; i += 8) \
                TILE(WIDE_ROWS, vectors); \
        for (; i + 4 <= end; i += 4) \
            TILE(4, vectors); \
        for (; i + 2 <= end; i += 2) \
            TILE(2, vectors); \
        if (i < end) \
            TILE(1, vectors); \
        break;

/* Z (width) = B + X @ W (.., width) for a single row and n of its inputs, which[0], which[1], ... or, if NULL, the first;
   a NULL B is 0.  The weights are read in place: copying them together would take longer than the product. */
INLINE void NAME(row_tile)(const NUMBER *X, const unsigned char *which, ptrdiff_t n, const NUMBER *W,
                           ptrdiff_t w_stride, const NUMBER *B, NUMBER *Z, ptrdiff_t width, const int vectors)
{
    const vector zero = {0};
    const ptrdiff_t last = width - (vectors - 1) * LANES;
    vector sums[WIDE_ROWS * WIDE_VECTORS];
    const NUMBER *w;
    ptrdiff_t i, j;
    int v;
    UNROLLED for (v = 0; v < vectors; v++)
        sums[v] = zero;
    for (i = 0; i < n; i++) {
        j = which ? which[i] : i;
        w = W + j * w_stride;
        UNROLLED for (v = 0; v < vectors - 1; v++)
            sums[v] += X[j] * READ(w + v * LANES);
        sums[v] += X[j] * (last < LANES ? NAME(read_few)(w + v * LANES, last) : READ(w + v * LANES));
    }
    NAME(add_tile)(sums, B ? B : Z, 0, Z, 0, 1, vectors, width, 1, B != NULL);
}

/* Lists the inputs (n) that are not 0 if many are 0, so that the others' weights need not be read; returns how many. */
INLINE ptrdiff_t NAME(list_inputs)(const NUMBER *X, ptrdiff_t n, unsigned char which[WIDE_INPUTS])
{
    ptrdiff_t i, found = 0;
    int n_zeros = 0;
    for (i = 0; i < n; i++)
        n_zeros += X[i] == 0;
    if (n_zeros * MANY_ZEROS < n)
        return n;
    for (i = 0; i < n; i++) {
        which[found] = (unsigned char)i;
        found += X[i] != 0;
    }
    return found;
}

/* wide_rows for a single row and W as stored: the same sums in the same order, so for finite weights the same bits. */
FUNCTION void NAME(wide_row)(const NUMBER *X, const NUMBER *W, ptrdiff_t w_stride, const NUMBER *bias, NUMBER *Z,
                             ptrdiff_t n_in, ptrdiff_t n_out)
{
    unsigned char list[WIDE_INPUTS];
    const unsigned char *which;
    ptrdiff_t n_blocks = (n_in + WIDE_INPUTS - 1) / WIDE_INPUTS, b, j, u, inputs, n, width;
    for (b = 0; b < n_blocks; b++) {
        j = PART(n_in, b, n_blocks);
        inputs = PART(n_in, b + 1, n_blocks) - j;
        n = NAME(list_inputs)(X + j, inputs, list);
        which = n < inputs ? list : NULL;
        for (u = 0; u < n_out; u += width) {
            width = n_out - u < ROW_VECTORS * LANES ? n_out - u : ROW_VECTORS * LANES;
#define ROW_TILE(vectors) \
            case vectors: \
                NAME(row_tile)(X + j, which, n, W + j * w_stride + u, w_stride, b > 0 ? Z + u : bias ? bias + u : NULL, \
                               Z + u, width, vectors); \
                break;
            switch ((width + LANES - 1) / LANES) {
                ROW_TILE(1) ROW_TILE(2) ROW_TILE(3) ROW_TILE(4) ROW_TILE(5) ROW_TILE(6) ROW_TILE(7) ROW_TILE(8)
#if ROW_VECTORS == 16
                ROW_TILE(9) ROW_TILE(10) ROW_TILE(11) ROW_TILE(12) ROW_TILE(13) ROW_TILE(14) ROW_TILE(15) ROW_TILE(16)
#endif
            }
#undef ROW_TILE
        }
    }
}

/* Z (n, n_out) = bias + X (n, n_in) @ W (n_in, n_out), a few inputs at a time, panel by panel; a NULL bias is 0.  Slice s
   has units bounds[s] to bounds[s + 1], bounds[n_slices] = n_out, in one cut of Z, and is cut into panels; W is in panels
   if w_stride is 0.  Meanwhile the next weights are prefetched, and the rows ahead, if any. */
FUNCTION void NAME(wide_rows)(const NUMBER *X, const Cut *x, const NUMBER *W, ptrdiff_t w_stride, const NUMBER *bias,
                              NUMBER *Z, const Cut *z, ptrdiff_t n, ptrdiff_t n_in, const ptrdiff_t *bounds,
                              int n_slices, const RowsAhead *ahead)
{
    vector panel[WIDE_INPUTS * WIDE_VECTORS] ALIGNED;
    const NUMBER *P, *next, *slice;
    NUMBER *place;
    const char *prefetched;
    Prefetching prefetching = {ahead, 0, 0};
    NAME(Part) part;
    Panels panels;
    ptrdiff_t next_stride, distance, p, i, j, next_j, u, width, inputs, weights_until, end = n;
    int vectors, s, is_last;
    if (n <= FEW_ROWS && w_stride > 0) {
        for (i = 0; i < n; i++)
            NAME(wide_row)(X + i * x->stride, W, w_stride, bias, Z + i * z->stride, n_in, bounds[n_slices]);
        return;
    }
    for (j = 0; j < n_in; j = next_j) {
        next_j = end_of_part(x, j, n_in);
        inputs = next_j - j;
        part = NAME(part_of)(X, x, j, inputs);
        slice = W;
        for (s = 0; s < n_slices; s++) {
            panels = cut_into_panels(bounds[s + 1] - bounds[s], sizeof(NUMBER));
            for (p = 0, u = bounds[s]; p < panels.n_panels; p++, u += vectors * LANES) {
                vectors = (int)panels.vectors + (p < panels.n_wider);
                width = bounds[s + 1] - u < vectors * LANES ? bounds[s + 1] - u : vectors * LANES;
                place = Z + place_of(z, bounds[s]) + (u - bounds[s]);
                /* The first tiles prefetch the next weights, each a line of each row. */
                is_last = p + 1 == panels.n_panels && s + 1 == n_slices;
                if (w_stride == 0) {
                    P = slice + (u - bounds[s]) * n_in + j * vectors * LANES;
                    next = P + n_in * vectors * LANES;
                    next_stride = vectors * LANES;
                } else {
                    NAME(copy_panel)(W + j * w_stride + u, w_stride, inputs, vectors, width, (NUMBER *)panel);
                    P = (const NUMBER *)panel;
                    next = is_last ? W + next_j * w_stride : W + j * w_stride + u + width;
                    next_stride = w_stride;
                    is_last = is_last && next_j == n_in;
                }
                weights_until = is_last ? 0 : WIDE_VECTORS * WIDE_ROWS;
                i = 0;
#define TILE(rows, vectors) \
                do { \
                    prefetched = (const char *)(next + i / WIDE_ROWS * LANES); \
                    distance = next_stride * (ptrdiff_t)sizeof(NUMBER); \
                    if (i >= weights_until) \
                        prefetched = prefetch_more(&prefetching, inputs, &distance); \
                    NAME(rows_tile)(&part, i, P, j > 0 ? place + i * z->stride : bias ? bias + u : NULL, \
                                    j > 0 ? z->stride : 0, place + i * z->stride, z->stride, width, rows, vectors, \
                                    prefetched, distance); \
                } while (0)
                switch (vectors) { TILES(1) TILES(2) TILES(3) }
#undef TILE
            }
            slice += slice_size(n_in, bounds[s + 1] - bounds[s], sizeof(NUMBER));
        }
    }
}

/* The LANES x LANES numbers at A, transposed. */
INLINE void NAME(transpose_square)(const NUMBER *A, ptrdiff_t a_stride, NUMBER *A_out, ptrdiff_t out_stride)
{
#if LANES > 1 && HAS_SHUFFLE
    /* Interleaving rows i and i + LANES / 2, as often as LANES can be halved. */
    vector rows[LANES], mixed[LANES];
    int i, half;
    UNROLLED for (i = 0; i < LANES; i++)
        rows[i] = READ(A + i * a_stride);
    UNROLLED for (half = 1; half < LANES; half *= 2) {
        UNROLLED for (i = 0; i < LANES / 2; i++) {
            mixed[2 * i] = __builtin_shufflevector(rows[i], rows[i + LANES / 2], LOW_LANES);
            mixed[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + LANES / 2], HIGH_LANES);
        }
        UNROLLED for (i = 0; i < LANES; i++)
            rows[i] = mixed[i];
    }
    UNROLLED for (i = 0; i < LANES; i++)
        AT(A_out + i * out_stride) = rows[i];
#else
    int i, j;
    for (i = 0; i < LANES; i++)
        for (j = 0; j < LANES; j++)
            A_out[j * out_stride + i] = A[i * a_stride + j];
#endif
}

/* P (units, vectors * LANES) = W.T (units, inputs) for units first to end, whole vectors of them, and inputs begin on,
   where W (n_in, n_out) is in panels of slices as in wide_rows.  Columns of P after the last input are not set. */
INLINE void NAME(transpose_panels)(const NUMBER *W, ptrdiff_t n_in, const ptrdiff_t *bounds, int n_slices, ptrdiff_t first,
                                   ptrdiff_t end, ptrdiff_t begin, ptrdiff_t inputs, int vectors, NUMBER *P)
{
    ptrdiff_t u, v, i, j, p, begins, row;
    const NUMBER *panel;
    Panels panels;
    int s;
    for (s = 0; s < n_slices && bounds[s] < end; s++) {
        panels = cut_into_panels(bounds[s + 1] - bounds[s], sizeof(NUMBER));
        for (p = 0, begins = bounds[s]; p < panels.n_panels; p++, begins += row) {
            row = (panels.vectors + (p < panels.n_wider)) * LANES;
            panel = W + (begins - bounds[s]) * n_in + begin * row;
            for (v = 0; v < row; v += LANES) {
                u = begins + v;
                if (u < first || u >= end)
                    continue;
                for (j = 0; j + LANES <= inputs; j += LANES)
                    NAME(transpose_square)(panel + j * row + v, row, P + (u - first) * vectors * LANES + j,
                                           vectors * LANES);
                for (; j < inputs; j++)
                    for (i = 0; i < LANES; i++)
                        P[((u - first) + i) * vectors * LANES + j] = panel[j * row + v + i];
            }
        }
        W += slice_size(n_in, bounds[s + 1] - bounds[s], sizeof(NUMBER));
    }
}

/* dX (n, inputs) = D (n, n_out) @ W.T (n_out, inputs) for inputs begin on of W (n_in, n_out) in panels of slices as in
   wide_rows.  A few units at a time, the weights from a panel of inputs are transposed, and used for all rows.  Slices
   and cuts are of whole vectors, but for the last. */
FUNCTION void NAME(wide_inputs)(const NUMBER *D, const Cut *d, const NUMBER *W, ptrdiff_t n_in, const ptrdiff_t *bounds,
                                int n_slices, ptrdiff_t begin, ptrdiff_t inputs, NUMBER *dX, const Cut *x, ptrdiff_t n)
{
    vector panel[WIDE_INPUTS * WIDE_VECTORS] ALIGNED;
    NUMBER *P = (NUMBER *)panel, *place;
    const ptrdiff_t n_out = bounds[n_slices];
    ptrdiff_t p, i, u, next_u, j, c, width, end = n;
    NAME(Part) part;
    Panels panels;
    int vectors;
    for (u = 0; u < n_out; u = next_u) {
        next_u = (end_of_part(d, u, n_out) + LANES - 1) / LANES * LANES;
        next_u = next_u < n_out ? next_u : n_out;
        part = NAME(part_of)(D, d, u, next_u - u);
        for (c = 0; c < inputs; c += x->columns) {
            panels = cut_into_panels(inputs - c < x->columns ? inputs - c : x->columns, sizeof(NUMBER));
            for (p = 0, j = c; p < panels.n_panels; p++, j += vectors * LANES) {
                vectors = (int)panels.vectors + (p < panels.n_wider);
                width = inputs - j < vectors * LANES ? inputs - j : vectors * LANES;
                place = dX + place_of(x, c) + (j - c);
                NAME(transpose_panels)(W, n_in, bounds, n_slices, u, next_u, begin + j, width, vectors, P);
                i = 0;
#define TILE(rows, vectors) \
                NAME(rows_tile)(&part, i, P, u > 0 ? place + i * x->stride : NULL, x->stride, place + i * x->stride, \
                                x->stride, width, rows, vectors, (const char *)P, 0)
                switch (vectors) { TILES(1) TILES(2) TILES(3) }
#undef TILE
            }
            if (x->columns >= inputs)
                break;
        }
    }
}

/* G (n_in, n_out) = alpha * X (n, n_in).T @ D (n, n_out) + beta * G: a band of inputs at a time, within a cut of X, for
   each band a few rows at a time, panel by panel; slices, cuts and panels as in wide_rows. */
FUNCTION void NAME(wide_outer)(const NUMBER *X, const Cut *x, const NUMBER *D, const Cut *d, NUMBER *G,
                               ptrdiff_t g_stride, ptrdiff_t n, ptrdiff_t n_in, const ptrdiff_t *bounds, int n_slices,
                               NUMBER alpha, NUMBER beta)
{
    vector panel[WIDE_SAMPLES * WIDE_VECTORS] ALIGNED;
    NUMBER *P = (NUMBER *)panel, *slice, *place;
    const NUMBER *inputs_of;
    Panels panels;
    ptrdiff_t stride, band, b, p, i, first, end, r, u, width, rows, cut, inputs, n_bands;
    ptrdiff_t fit = BAND_BYTES / LINE_BYTES / (n > 0 ? (int)n : 1) * (LINE_BYTES / (ptrdiff_t)sizeof(NUMBER));
    ptrdiff_t n_blocks = n > 0 ? (n + WIDE_SAMPLES - 1) / WIDE_SAMPLES : 1;
    int vectors, s;
    for (cut = 0; cut < n_in; cut += inputs) {
        inputs = n_in - cut < x->columns ? n_in - cut : x->columns;
        n_bands = fit > 0 ? (inputs + fit - 1) / fit : (inputs + LANES - 1) / LANES;
        for (band = 0; band < n_bands; band++) {
            first = PART(inputs, band, n_bands) / LANES * LANES;
            end = band + 1 < n_bands ? PART(inputs, band + 1, n_bands) / LANES * LANES : inputs;
            for (b = 0; b < n_blocks; b++) {
                r = PART(n, b, n_blocks);
                rows = PART(n, b + 1, n_blocks) - r;
                inputs_of = X + place_of(x, cut) + r * x->stride;
                slice = G;
                for (s = 0; s < n_slices; s++) {
                    panels = cut_into_panels(bounds[s + 1] - bounds[s], sizeof(NUMBER));
                    for (p = 0, u = bounds[s]; p < panels.n_panels; p++, u += vectors * LANES) {
                        vectors = (int)panels.vectors + (p < panels.n_wider);
                        width = bounds[s + 1] - u < vectors * LANES ? bounds[s + 1] - u : vectors * LANES;
                        NAME(copy_panel)(D + place_of(d, bounds[s]) + (u - bounds[s]) + r * d->stride, d->stride, rows,
                                         vectors, width, P);
                        stride = g_stride == 0 ? vectors * LANES : g_stride;
                        place = (g_stride == 0 ? slice + (u - bounds[s]) * n_in : G + u) + cut * stride;
                        i = first;
#define TILE(inputs, vectors) \
                        NAME(inputs_tile)(inputs_of + i, x->stride, P, place + i * stride, stride, rows, width, inputs, \
                                          vectors, alpha, b == 0 ? beta : 1)
                        switch (vectors) { TILES(1) TILES(2) TILES(3) }
#undef TILE
                    }
                    slice += slice_size(n_in, bounds[s + 1] - bounds[s], sizeof(NUMBER));
                }
            }
        }
    }
}

#undef TILES
#undef ROW
#undef PAIRS
#undef FOURS
#undef LOW_LANES
#undef HIGH_LANES
#undef vector
#undef AT
#undef READ
#undef LANES

#endif
