/* Shared by the inner loops in tiles.h, strips.h and convolution.h: the width of a vector, names for compilers'
   extensions, and how arrays lie in memory.

   The same loops in Cython reach a fifth of the speed in double precision, since the compiler does not keep arrays of
   sums in registers; with the vector types of GCC and Clang it does.  Other compilers get vectors of one number.
   Clang in the place of MSVC does not call itself GNU.  */

#ifndef FASTNN_VECTORS_H
#define FASTNN_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__) && !defined(__clang__)
#define VECTOR_BYTES 0
#elif defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

/* Registers that hold vectors. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define VECTOR_REGISTERS 32
#else
#define VECTOR_REGISTERS 16
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
#if defined(__x86_64__)
/* Compilers emit this instruction only for newer processors; those without it ignore it. */
#define PREFETCH_WRITE(address) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(address)))
#else
#define PREFETCH_WRITE(address) __builtin_prefetch(address, 1, 3)
#endif
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

/* Rows to prefetch: row i of n has this many bytes and is row order[i] of values, or row i if order is NULL. */
typedef struct {
    const char *values;
    const ptrdiff_t *order;
    ptrdiff_t n, bytes;
} RowsAhead;

INLINE const char *row_ahead(const RowsAhead *rows, ptrdiff_t i)
{
    return rows->values + (rows->order ? rows->order[i] : i) * rows->bytes;
}

/* How a matrix is cut by columns: `columns` of them lie together, in rows that begin `stride` numbers apart, and the
   next ones `next` numbers later.  Each thread writes cuts of its own: if they shared rows, a processor that reads ahead
   would take cache lines from the other while it writes them. */
typedef struct {
    ptrdiff_t stride, columns, next;
} Cut;

/* A matrix that is not cut. */
INLINE Cut whole(ptrdiff_t stride)
{
    Cut cut = {stride, PTRDIFF_MAX, 0};
    return cut;
}

INLINE ptrdiff_t place_of(const Cut *cut, ptrdiff_t column)
{
    return column < cut->columns ? column : column / cut->columns * cut->next + column % cut->columns;
}

/* Maps of a group of images in lanes: number (y, x, channel, lane) is at y * row + x * pixel + channel * lanes + lane from
   the first number of position (0, 0), which may have zeros around it for the windows that see it.  A pixel is as many
   whole vectors as it has channels; that of a single image (lanes 1) is filled up to whole vectors, unless it is what a
   network is given to convolve. */
typedef struct {
    ptrdiff_t height, width, channels, row, pixel, lanes;
} Image;

/* Windows through which a convolution or a pooling sees its input: their size, how far one is from the next, and how far
   the first reaches above position (0, 0) and to its left. */
typedef struct {
    ptrdiff_t height, width, down, across, top, left;
} WindowOf;

/* Keeps a value that is used twice in a register: compilers would read it again, as an operand. */
#if VECTOR_BYTES && defined(__x86_64__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif VECTOR_BYTES && defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v)
#endif

/* Whether a vector is multiplied by one number, a lane of a register, without filling another register with it. */
#if defined(__aarch64__)
#define MULTIPLIES_BY_LANE 1
#else
#define MULTIPLIES_BY_LANE 0
#endif

/* Arrays of vectors stay in registers if the loops over them are unrolled early.  GCC unrolls innermost loops; Clang
   must be told, or products on dense rows take five times as long.  */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 32")
#else
#define UNROLLED
#endif

/* Keeps a product from being fused with a later sum: compilers fuse in one tile and not in another, so the bits would
   depend on how the units are sliced.  */
#define ROUNDED(v) IN_REGISTER(v)

#endif
