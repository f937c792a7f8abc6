"""Tuning constants, which choose between ways that give the same results to rounding, each with its unit.

"Worth" is how much longer an epoch of a benchmark cell takes without it: best of four or five turns side by side on two
threads of an AMD EPYC with AVX-512, 2026-11-28.  Cells are those of `fastnn.benchmark.cells`; "sparse" has
sparse="auto", "shuffled" a new order of rows each epoch, "table" is 64-100-2 with Adam in batches of 32.  Constants of
the compiled kernels are in kernels/tuning.h.
"""

# --- runs -----------------------------------------------------------------------------------------------------------

#: Seconds after which a run of batches returns to Python, for Ctrl-C, progress and `on_chunk`: a stretch of time,
#: not rows.
CHUNK_SECONDS = 0.05

# Seconds that a fork waits for runs under way, at most.
LONGEST_RUN_SECONDS = 10.0

# The number of threads is chosen by measurement (engine/pace.py): each is tried for TRIAL_SECONDS.  Half and twice as
# many are tried again when that costs a share of TRIAL_SHARE of the time or less, after the shortest wait in seconds at
# least and the longest at most; and all fewer ones, if a run has less than a share SLOWED_DOWN of its former speed.
# Another number must be faster by the factor STAYING.  A first run shorter than COLD_SECONDS does not count.
TRIAL_SECONDS = 0.002
COLD_SECONDS = 0.01
TRIAL_SHARE = 0.005
SHORTEST_WAIT = 0.1
LONGEST_WAIT = 5.0
SLOWED_DOWN = 0.8
STAYING = 1.03

# Multiply-adds forward below which a run uses one thread: others gain nothing if processors are free, and cost a time
# slice if they are not.
SMALL_RUN = 2e6

# Numbers times operations below which an elementwise expression uses one thread.
SMALL_ELEMENTWISE = 1e6

# Multiply-adds forward of a wide layer that take as long as an output's loss.  Worth 80 % of a gradient of logistic
# regression on 20,000 rows, 8-1.
LOSS_PRODUCT = 100

# Rows, at most, that are predicted by one call, in row blocks of FEWEST_BLOCK_ROWS: for more, a plan costs little, and
# larger row blocks gain more.  A single row of 784-100-10 takes ten times as long without it.
MOST_FEW_ROWS = 256

# Multiply-adds of a forward pass in one call, at most, for Ctrl-C.
FORWARD_PRODUCT = 1e9

# --- storage --------------------------------------------------------------------------------------------------------

# sparse="auto" stores dense data as sparse if a sample of this many rows has a smaller share of non-zeros.
SPARSE_DENSITY = 0.25
DENSITY_SAMPLE = 300

# Bytes from which several threads check that numbers are finite, and bytes that they check in one call.
PARALLEL_BYTES = 1 << 22
LOOKED_THROUGH = 1 << 22

# --- row blocks and shards ------------------------------------------------------------------------------------------

# A row block has few enough rows that OpenBLAS does its first product without packing (THIN_PRODUCT multiply-adds), but
# at least the first number, so that a wide layer's weights are not read for a handful of rows, and at most the second.
# Worth 5 % with 8-100-2 and Adam in batches of 32.
THIN_PRODUCT = 1e6
BLOCK_ROWS = (128, 256)

# Ctrl-C waits for a row block: in a very large network it has fewer rows, of BLOCK_PRODUCT multiply-adds forward, but
# enough that the products stay products.
BLOCK_PRODUCT = 2e8
FEWEST_BLOCK_ROWS = 16

# Units of the first layer up to which a row block has only the rows that stay in cache: waiting for dense rows would
# cost more than short products do.  Worth 21 and 56 % in cell 1, 5 and 23 % in cell 2 (float32, float64).
THIN_UNITS = 32

# Rows of a shard, at least; with fewer, its own gradient costs more than it gains.
SHARD_ROWS = 256

# Shards of a batch, at most.  They are doubled, up to 64, while each has SHARD_PRODUCTS multiply-adds forward for each
# number of its gradient, so that adding up gradients costs two threads 1 % at most, and while all gradients together
# take at most GRADIENTS_BYTES.  Text (50,000 x 50,000, 20 classes, L-BFGS) would gain 4 % by 4 shards, no more by 2.
FEW_SHARDS = 8
SHARD_PRODUCTS = 1024
GRADIENTS_BYTES = 250_000_000

# Rows of a shard of images, at least.  It has at least IMAGE_SHARD_PRODUCT multiply-adds forward, and
# IMAGE_SHARD_PRODUCTS for each number of its gradient.  Two shards take 4 % less time than one in cells I and L, four
# 15 % less in cell J; on one thread, 1.3 % longer in I, and as long in J and L, to 2 %.  In cell K, where threads would
# wait for each other more often in a short step, two would take 3 % longer.
SHARD_IMAGES = 64
IMAGE_SHARD_PRODUCT = 5e7
IMAGE_SHARD_PRODUCTS = 256

# Rows of a row block, at most, unless the batch is normalised.
MAX_BLOCK_ROWS = 2 * SHARD_ROWS

# Multiply-adds forward from which a batch goes by units; a smaller one is not worth a barrier.  Worth 70 % in cell 4,
# and 40 % in the table, which has 214,000, on two threads that meet quickly; on one, the table takes 10 % longer.
# Large batches go TEAM_ROWS rows at a time.
UNITS_PRODUCT = 200_000
TEAM_ROWS = 128

# --- forms of weights -----------------------------------------------------------------------------------------------

# With WIDE_UNITS or more, the first layer on dense rows and all hidden ones train in panels (kernels/affine.pyx).
# Worth 18 % in cell 5, 36 % in the table, 2 to 5 % with 8 to 60 inputs; with 50 units, panels take 20 % longer.
WIDE_UNITS = 64

# A narrower first layer trains on dense rows by sums along the inputs (kernels/dense.pyx) if it has as many.  Worth
# 560 % in cell 4.
DENSE_INPUTS = 64

# An output layer with as many inputs, and at most as many outputs, is transposed: sums along the inputs are faster than
# BLAS.  Worth 40 % in 8-100-2, 20 % in 30-100-3, 70 % in 8-1000-2, 20 % in 8-32-2; with 26 or 100 outputs it takes 12 %
# longer in float32.
LONG_OUTPUT = 32
THIN_OUTPUT = 12

# Slices of a layer: FEW_SLICES from MANY_UNITS on, 2 from twice SLICE_UNITS on; narrower slices lose more in their
# products than a thread gains.  FEW_SLICES are doubled, up to 64, while each has WIDE_SLICE_UNITS: sparse rows are gone
# through once for each slice.  Slices of 60 would take 13 % longer in cells 3 and 7, sparse, 1 to 2 % longer, dense.
FEW_SLICES = 4
MANY_UNITS = 200
SLICE_UNITS = 10
WIDE_SLICE_UNITS = 120

# Slices of layers of ALIGNED_FROM units or more are of whole vectors.  Worth 11 % in cell 5, 7 % sparse, 9 % in the
# table.
ALIGNED_FROM = 64

# Cache lines of a row of weights that sparse rows are multiplied by at a time; wider rows of a slice avoid distances at
# which their lines compete for the same places in the cache.  Worth 10 % in cell 7, sparse, shuffled, in float64.
STRIP_LINES = 8

# --- sparse rows ----------------------------------------------------------------------------------------------------

# Non-zeros a column of a row block, and bytes of a row of the first weight: from one of these pairs on, the gradient of
# sparse rows is taken by column (kernels/sparse.pyx).  Sorted once, for rows in order, it is worth 37 % in cell 5, 25 %
# in cell 6 (by the second pair), 18 % in cells 3 and 7.  Sorted for each batch, it is worth 23 % in cell 7, shuffled,
# 14 % with Adam; 7 % with batches of 32 in float64 (by the second pair).
SORTED_ONCE = ((8, 0), (3, 512))
SORTED_EACH_TIME = ((8, 512), (5, 1600))

# Steps move touched rows only (kernels/touched.pyx) if a batch has less than one non-zero for this many columns.  With
# more, moving the whole weight in order costs less than finding its rows here and there.
TOUCHED_SHARE = 16

# --- images ---------------------------------------------------------------------------------------------------------

# Rows of a row block, at most, if layers are on images.  It has at most IMAGE_PRODUCT multiply-adds forward, since
# Ctrl-C waits for it, and IMAGE_BYTES of what the backward pass needs: 20 KB a row in LeNet.  More rows gain nothing.
IMAGE_ROWS = 512
IMAGE_PRODUCT = 2e9
IMAGE_BYTES = 250_000_000

# Bytes of convolved maps that are pooled at once: they stay in the second-level cache, like the weights beside them.
MAPS_BYTES = 200_000

# Rows of a row block in a forward pass on images.
FORWARD_IMAGES = 64

# Images go forward one by one, with filters in the lanes instead, if they are no more than a group by FEW_IMAGES.
# Eight take .78 of a group's time in LeNet, half in a network of 3x3 for 32 x 32 pixels.
FEW_IMAGES = 2
