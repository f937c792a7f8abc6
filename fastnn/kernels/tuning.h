/* Tuning constants that the kernels are compiled with; those that choose between kernels are in fastnn/tuning.py.

   None changes a result but in its rounding. */

#ifndef FASTNN_TUNING_H
#define FASTNN_TUNING_H

/* Bytes of a line of the cache, on nearly all processors. */
#define LINE_BYTES 64

/* --- affine.pyx ------------------------------------------------------------------------------------------------- */

/* Bytes of a row of weights from which on our tiles are faster than BLAS. */
#define TILED_BYTES 256
/* Weights of a layer up to which they are too: BLAS takes longer to begin. */
#define FEW_WEIGHTS 2048

/* --- dense.pyx and tiles.h, whose tiles hold their sums in registers: 32 with AVX-512, else 16 ------------------- */

/* Bytes of rows that stay in the second cache together with weights and the rows to come. */
#define CACHED_BYTES 196608
/* Rows that a thread takes at once in a product alone: tiles of several heights divide them. */
#define ALONE_ROWS 60
/* Rows whose gradient, taken alone, is added at once: the next ones are fetched meanwhile. */
#define GRADIENT_ROWS 16
/* Shards of a gradient taken alone, at most, and rows of one, at least. */
#define ALONE_SHARDS 8
#define ALONE_SHARD_ROWS 128

/* Rows and units of a tile of sums along the inputs; units of a tile of their gradient. */
#if VECTOR_BYTES == 64
#define DOT_ROWS 5
#define DOT_UNITS 5
#define OUTER_UNITS 12
#else
#define DOT_ROWS 3
#define DOT_UNITS 4
#define OUTER_UNITS 6
#endif
/* Bytes of a row's inputs that are taken at once: five such rows and the weights of five units stay in 32 KiB. */
#define DOT_BYTES 3200
/* Bytes of weights that stay in the second cache, with as much of other things. */
#define WEIGHT_BYTES 327680
/* Rows ahead that a backward pass fetches, at most. */
#define OUTER_AHEAD 128

/* Vectors of units of a panel, and rows or inputs, that make a tile of a wide layer. */
#define WIDE_VECTORS 3
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define WIDE_ROWS 8
#else
#define WIDE_ROWS 4
#endif
/* Inputs of a panel, or rows backward, that stay in the first cache, with what is multiplied by them. */
#define WIDE_INPUTS 128
#define WIDE_SAMPLES 64
/* Bytes of rows that stay in the second cache while all panels pass. */
#define BAND_BYTES 131072

/* --- sparse.pyx and strips.h ------------------------------------------------------------------------------------- */

/* Rows that go forward together. */
#define ROWS_AT_ONCE 128
/* A strip of so many bytes or more may be taken by parts of its inputs.  A part has so many bytes, most of which stay in
   the first cache, and a row has so many non-zeros in it, on average: beginning with a part takes time, too. */
#define SPLIT_BYTES 448
#define PART_BYTES 40960
#define PART_NONZEROS 8
/* Vectors of the widest strip, and of the widest one of two rows at once: they must find room in the registers. */
#define STRIP_VECTORS 8
#if VECTOR_BYTES >= 64
#define PAIR_VECTORS 8
#else
#define PAIR_VECTORS 4
#endif
/* Chains of sums, at most, so that no product waits for the one before. */
#define MOST_CHAINS 4
/* Bytes ahead at which sorted entries are fetched. */
#define ENTRIES_AHEAD 2048

/* --- the drivers ------------------------------------------------------------------------------------------------- */

/* Rows that a product takes at a time. */
#define PRODUCT_ROWS 512
/* Numbers, of all shards' gradients, from which a thread updates parameters at a time. */
#define UPDATE_CHUNK 16384
/* Sorting a non-zero takes as long as multiplying it with so many lines of numbers. */
#define SORT_LINES 6
/* Columns of sparse rows whose weights are stepped on together. */
#define STEP_COLUMNS 16
/* Numbers from which on more than one thread copies them. */
#define PARALLEL_COPY 100000
/* Units whose sums stay in the first cache while the rows of a batch go by. */
#define NORMALISED_UNITS 32

#endif
