/* What the inner loops in tiles.h and strips.h have in common: how wide a vector is, and what compilers call things.

   The same loops in Cython reach a fifth of their speed in double precision, since the compiler does not keep arrays
   of sums in registers; vector types of GCC and Clang make it.  Other compilers get vectors of one number.  */

#ifndef FASTNN_VECTORS_H
#define FASTNN_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__)
#define VECTOR_BYTES 0
#elif defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#include "tuning.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if VECTOR_BYTES
#define INLINE static inline __attribute__((always_inline, unused))
#define FUNCTION static __attribute__((unused))
#define APART static __attribute__((noinline, unused))
#define ALIGNED __attribute__((aligned(LINE_BYTES)))
#define PREFETCH(address) __builtin_prefetch(address, 0, 2)
#define PREFETCH_NEAR(address) __builtin_prefetch(address, 0, 3)
#define PREFETCH_WRITE(address) __builtin_prefetch(address, 1, 3)
#else
#define INLINE static __inline
#define FUNCTION static
#define APART static
#define ALIGNED
#define PREFETCH(address)
#define PREFETCH_NEAR(address)
#define PREFETCH_WRITE(address)
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLE 1
#endif
#endif

/* Rows to come, which are fetched into the cache meanwhile: row i, of n, has so many bytes and stands at order[i * step], or
   at i * step where order is NULL. */
typedef struct {
    const char *values;
    const ptrdiff_t *order;
    ptrdiff_t n, step, bytes;
} RowsAhead;

INLINE const char *row_ahead(const RowsAhead *rows, ptrdiff_t i)
{
    i *= rows->step;
    return rows->values + (rows->order ? rows->order[i] : i) * rows->bytes;
}

/* What is used twice is read once: compilers rather read it again, as an operand. */
#if defined(__GNUC__) && defined(__x86_64__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__GNUC__) && defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v)
#endif

/* Arrays of vectors stay in registers if the loops over them are unrolled early.  GCC does so with innermost ones; Clang
   needs to be told, or products on dense rows take five times as long.  */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 32")
#else
#define UNROLLED
#endif

/* No product is fused with a sum beyond this: compilers do so in one tile and not in another, and the bits would
   depend on how the units are shared out.  */
#define ROUNDED(v) IN_REGISTER(v)

#endif
