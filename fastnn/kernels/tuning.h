/* Tuning constants that are compiled into the kernels; those of the plan are in fastnn/tuning.py.

   They change results only in their rounding.  "Worth": see fastnn/tuning.py.  Those for ARM fill its registers; their
   loops were judged by the instructions, not by time. */

#ifndef FASTNN_TUNING_H
#define FASTNN_TUNING_H

/* Bytes of a cache line, on nearly all processors. */
#define LINE_BYTES 64

/* --- blas.pyx --------------------------------------------------------------------------------------------------- */

/* Rows, or columns, that a thread takes at a time in a product outside training; half of them if the other side is
   shorter, as the matrix that is read for them comes from memory then. */
#define BLOCK_ROWS 128

/* --- affine.pyx ------------------------------------------------------------------------------------------------- */

/* Bytes of a row of weights from which our tiles are faster than BLAS. */
#define TILED_BYTES 256
/* Weights of a layer up to which our tiles are faster too: a BLAS call takes longer to begin.  Worth 6 % in cell 4. */
#define FEW_WEIGHTS 2048
/* Rows from which the gradient of few weights may run along the inputs, if these are many and the units few.  Worth 5 %
   (float64) and 9 % (float32) of a gradient of softmax, 8-2, 15 and 25 % of one of 30-2. */
#define MANY_ROWS 64
/* Bytes of a row of weights from which our tiles are as fast as BLAS forward.  Unlike BLAS, they give a row the same bits
   whatever rows are beside it. */
#define TILED_FORWARD_BYTES 40
/* Rows up to which weights as stored are read in place, row by row: copying them together takes longer.  A single row
   takes three times as long without it, 784-100-10. */
#define FEW_ROWS 3
/* The weights of a single row's inputs that are 0 are skipped if at least one in so many is.  Digits take .4 (float32)
   and .3 (float64) of the time, rows without zeros 2 % longer. */
#define MANY_ZEROS 8

/* --- dense.pyx and tiles.h: tiles hold their sums in registers --------------------------------------------------- */

/* Bytes of rows that stay in the second-level cache together with weights and the rows to come. */
#define CACHED_BYTES 196608
/* Rows that a thread takes at a time in a product outside training: tiles of several heights divide them. */
#define ALONE_ROWS 60
/* Rows that a gradient outside training adds at a time, while the next ones are prefetched. */
#define GRADIENT_ROWS 16
/* Shards of a gradient outside training, at most, and rows of a shard, at least. */
#define ALONE_SHARDS 8
#define ALONE_SHARD_ROWS 128

/* Rows and units of a tile of sums along the inputs; units of a tile of the weight's gradient. */
#if VECTOR_REGISTERS == 32
#define DOT_ROWS 5
#define DOT_UNITS 5
#define OUTER_UNITS 12
#else
#define DOT_ROWS 3
#define DOT_UNITS 4
#define OUTER_UNITS 6
#endif
/* Bytes of a row's inputs that are taken at a time: five such rows and the weights of five units stay in 32 KiB. */
#define DOT_BYTES 3200
/* Bytes of weights that stay in the second-level cache together with as many other bytes. */
#define WEIGHT_BYTES 327680
/* Rows that a backward pass prefetches, at most.  Worth 12 and 21 % in cell 1, 6 % in cell 2. */
#define OUTER_AHEAD 128

/* A wide layer's tile: vectors of a panel's units, at most, by rows or inputs. */
#define WIDE_VECTORS 3
#if VECTOR_REGISTERS == 32
#define WIDE_ROWS 8
#define ROW_VECTORS 16  /* of a single row */
#else
#define WIDE_ROWS 4
#define ROW_VECTORS 8
#endif
/* Inputs of a panel forward, or rows backward, that stay in the first-level cache with the other operand. */
#define WIDE_INPUTS 128
#define WIDE_SAMPLES 64
/* Bytes of rows that stay in the second-level cache while all panels pass. */
#define BAND_BYTES 131072

/* --- sparse.pyx and strips.h ------------------------------------------------------------------------------------- */

/* Rows that go forward together. */
#define ROWS_AT_ONCE 128
/* A strip of SPLIT_BYTES or more a row may be taken in parts of its inputs.  A part has at most PART_BYTES, most of
   which stay in the first-level cache, and PART_NONZEROS a row or more on average: each part takes time to begin.
   Worth 10 % in cells 3 and 7, sparse, 18 % in cell 7, shuffled. */
#define SPLIT_BYTES 448
#define PART_BYTES 40960
#define PART_NONZEROS 8
/* Vectors of the widest strip, and of the widest strip for two rows at a time: they must fit into the registers. */
#define STRIP_VECTORS 8
#if VECTOR_REGISTERS == 32
#define PAIR_VECTORS 8
#else
#define PAIR_VECTORS 4
#endif
/* Independent partial sums, at most, so that no product waits for the one before.  Worth 17 % in cell 1, sparse. */
#define MOST_CHAINS 4
/* Distance in bytes at which sorted entries are prefetched.  Worth 23 % in cell 1, 8 % in cell 5, sparse. */
#define ENTRIES_AHEAD 2048

/* --- convolution.pyx, pooling.pyx ------------------------------------------------------------------------------- */

/* A tile of sums of vectors: positions or taps, by filters or channels.  The sums, the vectors and one number or vector
   of a column fit into the registers. */
#if VECTOR_REGISTERS == 32
#define VECTORS_AT_ONCE 6
#else
#define VECTORS_AT_ONCE 3
#endif
#define COLUMNS_AT_ONCE 4
/* Vectors of a position's channels that are pooled together. */
#define VECTORS_POOLED 4
/* images.pyx: bytes of a band of images and positions, in lanes, which stay in the second-level cache; parts of the
   images with a gradient of their own, at most, and bytes of all their gradients. */
#define BAND_OF_IMAGES 524288
#define WEIGHT_PARTS 16
#define PARTS_BYTES 67108864
/* Groups of images up to which the last may be cut into strips, so that more of its lanes are in use.  Worth 40 % of a
   step on 10 images, float64. */
#define FEW_GROUPS 4

/* --- the drivers ------------------------------------------------------------------------------------------------- */

/* Rows that a product takes at a time. */
#define PRODUCT_ROWS 512
/* Numbers of all shards' gradients that a thread takes at a time in an update; a chunk of parameters, not of rows. */
#define UPDATE_CHUNK 16384
/* Units of a tile of batch normalisation: their sums stay in the first-level cache while a batch's rows go by. */
#define NORMALISED_UNITS 32

#endif
