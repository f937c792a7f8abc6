/* The inner loops of the first layer on sparse rows: a strip of a row's sums is held in registers.

   The text below is compiled for each number type and for several widths of vectors, since a narrow layer does not fill
   wide ones: names end in the type and the bytes of a vector, as in _float_64.  The last vector of a strip ends where
   the strip ends, so it may overlap the one before: all are read before any is written.  A single vector of AVX-512 may
   also hold fewer sums, by a mask.  */

#ifndef NUMBER

#include "vectors.h"

/* Bytes of an entry: n_values values and the index of a row. */
#define ENTRY_BYTES(number, n_values) ((n_values) * sizeof(number) + sizeof(int32_t))

#define JOIN_(name, number, bytes) name##_##number##_##bytes
#define JOIN(name, number, bytes) JOIN_(name, number, bytes)
#define NAME(name) JOIN(name, NUMBER, BYTES)

#define NUMBER float
#define NUMBER_BYTES 4
#include "strips.h"
#undef NUMBER
#undef NUMBER_BYTES
#define NUMBER double
#define NUMBER_BYTES 8
#include "strips.h"
#undef NUMBER
#undef NUMBER_BYTES

#elif !defined(BYTES)

#if VECTOR_BYTES >= 64
#define BYTES 64
#include "strips.h"
#undef BYTES
#endif
#if VECTOR_BYTES >= 32
#define BYTES 32
#include "strips.h"
#undef BYTES
#endif
#if VECTOR_BYTES >= 16
#define BYTES 16
#include "strips.h"
#undef BYTES
#endif

#define WIDEST (VECTOR_BYTES > 0 ? VECTOR_BYTES / (ptrdiff_t)sizeof(NUMBER) : 1)
#define NAME_(name, number) name##_##number
#define OF(name, number) NAME_(name, number)

/* How many strips a row of width sums, or a pair of rows, is cut into, and where strip p begins. */
FUNCTION ptrdiff_t OF(strips_of, NUMBER)(ptrdiff_t width, int in_pairs)
{
    ptrdiff_t most = in_pairs ? PAIR_VECTORS : STRIP_VECTORS;
    return ((width + WIDEST - 1) / WIDEST + most - 1) / most;
}

FUNCTION ptrdiff_t OF(strip_begin, NUMBER)(ptrdiff_t width, ptrdiff_t p, ptrdiff_t n_strips)
{
    return p == n_strips ? width : (width + WIDEST - 1) / WIDEST * p / n_strips * WIDEST;
}

#if VECTOR_BYTES >= 64
#define TRY_64(call) if (width * sizeof(NUMBER) > 32) { call(64); return; }
/* For rows that are read again soon: with a mask, or with vectors that overlap, the processor assumes that a row
   overlaps its neighbours, and waits for them. */
#define TRY_WHOLE_64(call) if (width * sizeof(NUMBER) >= 128) { call(64); return; }
#else
#define TRY_64(call)
#define TRY_WHOLE_64(call)
#endif
#if VECTOR_BYTES >= 32
#define TRY_32(call) if (width * sizeof(NUMBER) >= 32) { call(32); return; }
#else
#define TRY_32(call)
#endif
#if VECTOR_BYTES >= 16
#define TRY_16(call) if (width * sizeof(NUMBER) >= 16) { call(16); return; }
#else
#define TRY_16(call)
#endif

/* out[i] (width,) += sum_k values[k] * B[rows[k]] (width,), begins[i] <= k < ends[i], for n sums and one strip.  A
   strip of SPLIT_BYTES or more ends its sums before the first row not below limit and moves begins there; going on
   later gives the same bits.  Meanwhile at most ahead numbers of the sum after next are prefetched. */
FUNCTION void OF(combine, NUMBER)(const NUMBER *values, const int32_t *rows, int64_t *begins, const int64_t *ends,
                                  ptrdiff_t n, int32_t limit, const NUMBER *B, ptrdiff_t stride, NUMBER *out,
                                  ptrdiff_t out_stride, ptrdiff_t width, int64_t ahead)
{
    ptrdiff_t i, c;
    int64_t k;
#define COMBINE(bytes) \
    JOIN(combine, NUMBER, bytes)(values, rows, begins, ends, n, limit, B, stride, out, out_stride, width, ahead)
    TRY_64(COMBINE) TRY_32(COMBINE) TRY_16(COMBINE)
#undef COMBINE
    for (i = 0; i < n; i++)
        for (k = begins[i]; k < ends[i]; k++)
            for (c = 0; c < width; c++)
                out[i * out_stride + c] += values[k] * B[rows[k] * stride + c];
}

/* out[m j + i] (width,) += scale * sum_k v[k, i] * B[rows[k]] (width,) for i < m, starts[j] <= k < starts[j + 1] and
   one strip, in the order of k, so that two calls give the same bits as one.  An entry is m values, 1 or 2, and a row;
   out has n_rows rows, and if n_rows is odd the last pair has one. */
FUNCTION void OF(combine_entries, NUMBER)(const char *entries, const int32_t *starts, int m, ptrdiff_t n_rows,
                                          NUMBER scale, const NUMBER *B, ptrdiff_t stride, NUMBER *out,
                                          ptrdiff_t out_stride, ptrdiff_t width)
{
    ptrdiff_t j, k, c, i;
    NUMBER values[2];
    int32_t row;
#define COMBINE(bytes) \
    JOIN(combine_entries, NUMBER, bytes)(entries, starts, m, n_rows, scale, B, stride, out, out_stride, width)
    TRY_64(COMBINE) TRY_32(COMBINE) TRY_16(COMBINE)
#undef COMBINE
    for (j = 0; m * j < n_rows; j++)
        for (k = starts[j]; k < starts[j + 1]; k++) {
            memcpy(values, entries + k * ENTRY_BYTES(NUMBER, m), m * sizeof(NUMBER));
            memcpy(&row, entries + k * ENTRY_BYTES(NUMBER, m) + m * sizeof(NUMBER), sizeof(row));
            for (i = 0; i < m && m * j + i < n_rows; i++)
                for (c = 0; c < width; c++)
                    out[(m * j + i) * out_stride + c] += scale * values[i] * B[row * stride + c];
        }
}

/* B[rows[k]] (width,) += scale * values[k] * d (width,) for each k in turn, for one strip. */
FUNCTION void OF(scatter, NUMBER)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale,
                                  const NUMBER *d, NUMBER *B, ptrdiff_t stride, ptrdiff_t width)
{
    ptrdiff_t k, c;
#define SCATTER(bytes) JOIN(scatter, NUMBER, bytes)(values, rows, n, scale, d, B, stride, width)
    TRY_WHOLE_64(SCATTER) TRY_32(SCATTER) TRY_16(SCATTER)
#undef SCATTER
    for (k = 0; k < n; k++)
        for (c = 0; c < width; c++)
            B[rows[k] * stride + c] += scale * values[k] * d[c];
}

#undef TRY_64
#undef TRY_WHOLE_64
#undef TRY_32
#undef TRY_16
#undef WIDEST
#undef NAME_
#undef OF

#else

#define vector NAME(vector)
#define half NAME(half)
typedef NUMBER vector __attribute__((vector_size(BYTES), aligned(sizeof(NUMBER)), may_alias));
typedef NUMBER half __attribute__((vector_size(BYTES / 2), aligned(sizeof(NUMBER)), may_alias));
#if BYTES == 64
#define MASKED(vectors, halved) ((vectors) == 1 && !(halved))
#define MASK ((1u << width) - 1)
#if NUMBER_BYTES == 4
#define READ_MASKED(address) (vector)_mm512_maskz_loadu_ps((__mmask16)MASK, address)
#define WRITE_MASKED(address, v) _mm512_mask_storeu_ps(address, (__mmask16)MASK, (__m512)(v))
#else
#define READ_MASKED(address) (vector)_mm512_maskz_loadu_pd((__mmask8)MASK, address)
#define WRITE_MASKED(address, v) _mm512_mask_storeu_pd(address, (__mmask8)MASK, (__m512d)(v))
#endif
#else
#define MASKED(vectors, halved) 0
#define READ_MASKED(address) (vector){0}
#define WRITE_MASKED(address, v) (void)0
#endif
#define AT(address) (*(vector *)(address))
#define READ(address) (MASKED(vectors, halved) ? READ_MASKED(address) : *(const vector *)(address))
#define WRITE(address, v) \
    do { \
        if (MASKED(vectors, halved)) \
            WRITE_MASKED(address, v); \
        else \
            AT(address) = v; \
    } while (0)
#define HALF_AT(address) (*(half *)(address))
#define READ_HALF(address) (*(const half *)(address))
#define LANES (BYTES / (ptrdiff_t)sizeof(NUMBER))
#define PLACE(p) (p == vectors - 1 && !halved && !MASKED(vectors, halved) ? width - LANES : p * LANES)
#define HALF_PLACE (width - LANES / 2)

INLINE ptrdiff_t NAME(combine_vectors)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, int32_t limit,
                                       const NUMBER *B, ptrdiff_t stride, NUMBER *out, ptrdiff_t width,
                                       const int vectors, const int halved, const int chains)
{
    const int splits = vectors * BYTES + halved * BYTES / 2 >= SPLIT_BYTES;
    const vector zero = {0};
    const half half_zero = {0};
    vector sums[MOST_CHAINS][STRIP_VECTORS];
    half last[MOST_CHAINS];
    const NUMBER *b;
    NUMBER value;
    ptrdiff_t k;
    int p, c;
    for (c = 0; c < chains; c++) {
        for (p = 0; p < vectors; p++)
            sums[c][p] = c == 0 ? READ(out + PLACE(p)) : zero;
        last[c] = c == 0 && halved ? READ_HALF(out + HALF_PLACE) : half_zero;
    }
    for (k = 0; k + chains <= n && (!splits || rows[k] < limit); k += chains)
        for (c = 0; c < chains; c++) {
            value = values[k + c];
            b = B + rows[k + c] * stride;
            for (p = 0; p < vectors; p++)
                sums[c][p] += value * READ(b + PLACE(p));
            if (halved)
                last[c] += value * READ_HALF(b + HALF_PLACE);
        }
    for (; chains > 1 && k < n; k++) {
        value = values[k];
        b = B + rows[k] * stride;
        for (p = 0; p < vectors; p++)
            sums[0][p] += value * READ(b + PLACE(p));
        if (halved)
            last[0] += value * READ_HALF(b + HALF_PLACE);
    }
    for (p = 0; p < vectors; p++) {
        for (c = 1; c < chains; c++)
            sums[0][p] += sums[c][p];
        WRITE(out + PLACE(p), sums[0][p]);
    }
    if (halved) {
        for (c = 1; c < chains; c++)
            last[0] += last[c];
        HALF_AT(out + HALF_PLACE) = last[0];
    }
    return k;
}

/* Adds one entry's products with its row of B to the sums of a group of rows_at_once rows. */
INLINE void NAME(add_entry)(const char *entry, const int m, const int rows_at_once, NUMBER scale, const NUMBER *B,
                            ptrdiff_t stride, ptrdiff_t width, const int vectors, const int halved,
                            vector sums[2][STRIP_VECTORS], half last[2])
{
    const NUMBER *b;
    NUMBER values[2];
    int32_t row;
    vector read;
    half read_half;
    int p, i;
    PREFETCH(entry + ENTRIES_AHEAD);
    memcpy(values, entry, m * sizeof(NUMBER));
    memcpy(&row, entry + m * sizeof(NUMBER), sizeof(row));
    b = B + row * stride;
    for (i = 0; i < rows_at_once; i++)
        values[i] *= scale;
    for (p = 0; p < vectors; p++) {
        read = READ(b + PLACE(p));
        if (rows_at_once > 1)
            IN_REGISTER(read);
        for (i = 0; i < rows_at_once; i++)
            sums[i][p] += values[i] * read;
    }
    if (halved) {
        read_half = READ_HALF(b + HALF_PLACE);
        for (i = 0; i < rows_at_once; i++)
            last[i] += values[i] * read_half;
    }
}

/* Adds entries starts[g] to starts[g + 1] for each group g of rows_at_once rows of out.  Two groups take turns if a sum
   is one vector, since each product waits for the one before; longer sums have other products to do. */
INLINE void NAME(entry_vectors)(const char *entries, const int32_t *starts, const int groups, const int m,
                                const int rows_at_once, NUMBER scale, const NUMBER *B, ptrdiff_t stride, NUMBER *out,
                                ptrdiff_t out_stride, ptrdiff_t width, const int vectors, const int halved)
{
    const half half_zero = {0};
    vector sums[2][2][STRIP_VECTORS];
    half last[2][2];
    const char *entry[2], *end[2];
    NUMBER *place;
    int p, i, g;
    for (g = 0; g < groups; g++) {
        entry[g] = entries + starts[g] * ENTRY_BYTES(NUMBER, m);
        end[g] = entries + starts[g + 1] * ENTRY_BYTES(NUMBER, m);
        for (i = 0; i < rows_at_once; i++) {
            place = out + (g * rows_at_once + i) * out_stride;
            for (p = 0; p < vectors; p++)
                sums[g][i][p] = READ(place + PLACE(p));
            last[g][i] = halved ? READ_HALF(place + HALF_PLACE) : half_zero;
        }
    }
#define ADD(g) \
    NAME(add_entry)(entry[g], m, rows_at_once, scale, B, stride, width, vectors, halved, sums[g], last[g]), \
        entry[g] += ENTRY_BYTES(NUMBER, m)
    if (groups > 1)
        while (entry[0] < end[0] && entry[1] < end[1]) {
            ADD(0);
            ADD(1);
        }
    while (entry[0] < end[0])
        ADD(0);
    if (groups > 1)
        while (entry[1] < end[1])
            ADD(1);
#undef ADD
    for (g = 0; g < groups; g++)
        for (i = 0; i < rows_at_once; i++) {
            place = out + (g * rows_at_once + i) * out_stride;
            for (p = 0; p < vectors; p++)
                WRITE(place + PLACE(p), sums[g][i][p]);
            if (halved)
                HALF_AT(place + HALF_PLACE) = last[g][i];
        }
}

INLINE void NAME(scatter_vectors)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale,
                                  const NUMBER *d, NUMBER *B, ptrdiff_t stride, ptrdiff_t width, const int vectors,
                                  const int halved)
{
    const half half_zero = {0};
    vector kept[STRIP_VECTORS], sums[STRIP_VECTORS];
    half kept_last = half_zero, last = half_zero;
    NUMBER *b;
    NUMBER value;
    ptrdiff_t k;
    int p;
    for (p = 0; p < vectors; p++)
        kept[p] = READ(d + PLACE(p));
    if (halved)
        kept_last = READ_HALF(d + HALF_PLACE);
    for (k = 0; k < n; k++) {
        value = scale * values[k];
        b = B + rows[k] * stride;
        for (p = 0; p < vectors; p++)
            sums[p] = READ(b + PLACE(p)) + value * kept[p];
        if (halved)
            last = READ_HALF(b + HALF_PLACE) + value * kept_last;
        for (p = 0; p < vectors; p++)
            AT(b + PLACE(p)) = sums[p];
        if (halved)
            HALF_AT(b + HALF_PLACE) = last;
    }
}

/* Vectors narrower than the widest are for strips that the widest fit badly or not at all. */
#if BYTES == VECTOR_BYTES
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#else
#define CASES CASE(1) CASE(2) CASE(3) CASE(4)
#endif

/* Width in halves of a vector: the rest may need only one. */
#define HALVES ((width + LANES / 2 - 1) / (LANES / 2))

FUNCTION void NAME(combine)(const NUMBER *values, const int32_t *rows, int64_t *begins, const int64_t *ends, ptrdiff_t n,
                            int32_t limit, const NUMBER *B, ptrdiff_t stride, NUMBER *out, ptrdiff_t out_stride,
                            ptrdiff_t width, int64_t ahead)
{
    ptrdiff_t i;
    int64_t at, prefetched;
    /* If sums are few, each is several partial sums, so that no product waits for the one before. */
#define COMBINE(vectors, halved) \
    for (i = 0; i < n; i++) { \
        if (ahead && i + 2 < n) { \
            prefetched = ends[i + 2] - begins[i + 2] < ahead ? ends[i + 2] : begins[i + 2] + ahead; \
            for (at = begins[i + 2]; at < prefetched; at += LINE_BYTES / sizeof(NUMBER)) \
                PREFETCH_NEAR(values + at); \
            for (at = begins[i + 2]; at < prefetched; at += LINE_BYTES / sizeof(int32_t)) \
                PREFETCH_NEAR(rows + at); \
        } \
        at = begins[i]; \
        begins[i] += NAME(combine_vectors)(values + at, rows + at, ends[i] - at, limit, B, stride, out + i * out_stride, \
                                           width, vectors, halved, \
                                           (vectors) * BYTES > 128 ? 1 : MASKED(vectors, halved) ? MOST_CHAINS : 2); \
    } \
    break;
#define CASE(vectors) \
    case 2 * vectors - 1: COMBINE(vectors - 1, 1) \
    case 2 * vectors: COMBINE(vectors, 0)
    switch (HALVES) { CASES }
#undef CASE
#undef COMBINE
}

FUNCTION void NAME(combine_entries)(const char *entries, const int32_t *starts, int m, ptrdiff_t n_rows, NUMBER scale,
                                    const NUMBER *B, ptrdiff_t stride, NUMBER *out, ptrdiff_t out_stride,
                                    ptrdiff_t width)
{
    ptrdiff_t j;
#define COMBINE(groups, m, rows_at_once, vectors, halved) \
    if (starts[j] < starts[j + groups]) \
        NAME(entry_vectors)(entries, starts + j, groups, m, rows_at_once, scale, B, stride, out + m * j * out_stride, \
                            out_stride, width, vectors, halved)
#define LOOP(vectors, halved) \
        j = 0; \
        if (m == 1) { \
            if (vectors + halved == 1) \
                for (; j + 2 <= n_rows; j += 2) \
                    COMBINE(2, 1, 1, vectors, halved); \
            for (; j < n_rows; j++) \
                COMBINE(1, 1, 1, vectors, halved); \
        } else { \
            if (vectors + halved == 1) \
                for (; j + 2 <= n_rows / 2; j += 2) \
                    COMBINE(2, 2, 2, vectors, halved); \
            for (; j < n_rows / 2; j++) \
                COMBINE(1, 2, 2, vectors, halved); \
            if (n_rows % 2) \
                COMBINE(1, 2, 1, vectors, halved); \
        } \
        break;
#define CASE(vectors) \
    case 2 * vectors - 1: LOOP(vectors - 1, 1) \
    case 2 * vectors: LOOP(vectors, 0)
    switch (HALVES) { CASES }
#undef CASE
#undef LOOP
#undef COMBINE
}

FUNCTION void NAME(scatter)(const NUMBER *values, const int32_t *rows, ptrdiff_t n, NUMBER scale, const NUMBER *d,
                            NUMBER *B, ptrdiff_t stride, ptrdiff_t width)
{
#define CASE(vectors) \
    case 2 * vectors - 1: NAME(scatter_vectors)(values, rows, n, scale, d, B, stride, width, vectors - 1, 1); break; \
    case 2 * vectors: NAME(scatter_vectors)(values, rows, n, scale, d, B, stride, width, vectors, 0); break;
    switch (HALVES) { CASES }
#undef CASE
}

#undef CASES
#undef HALVES
#undef MASKED
#undef READ_MASKED
#undef WRITE_MASKED
#if BYTES == 64
#undef MASK
#endif
#undef WRITE
#undef PLACE
#undef HALF_PLACE
#undef LANES
#undef READ
#undef AT
#undef READ_HALF
#undef HALF_AT
#undef vector
#undef half

#endif
