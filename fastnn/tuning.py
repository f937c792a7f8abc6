"""Tuning constants, which choose between ways that give the same results to rounding, each with its unit."""

#: Seconds after which a run of batches returns to Python, for Ctrl-C, progress and `on_chunk`: a stretch of time, no
#: chunk of rows.
CHUNK_SECONDS = 0.05

# A fork waits for runs under way, but not for ever.
LONGEST_RUN_SECONDS = 10.0

# If other processes take so much time that the members of a team wait for each other, fewer threads run for the first
# number of runs of CHUNK_SECONDS.  Then all are tried again for TRIAL_SECONDS, and each failure in a row doubles the
# wait, up to the second number.  The results do not depend on it.
CONTENDED_CHUNKS = (4, 16)
TRIAL_SECONDS = 0.015
MEASURABLE_SECONDS = 0.01

# A row block has few enough rows that OpenBLAS does its first product without packing (about 1e6 multiply-adds), but
# enough that a wide layer's weights are not read for a handful of rows.
THIN_PRODUCT = 1e6
BLOCK_ROWS = (128, 256)

# Ctrl-C waits for a row block: in a very large network it has fewer rows, of BLOCK_PRODUCT multiply-adds forward, but
# enough that the products stay products.
BLOCK_PRODUCT = 2e8
FEWEST_BLOCK_ROWS = 16

# If the first layer has THIN_UNITS or fewer, waiting for dense rows would cost more than short products do: a row block
# then has the rows that stay in cache, a multiple of TILED_ROWS, which AVX-512's tiles of five rows divide.
THIN_UNITS = 32
TILED_ROWS = 10

# With DENSE_INPUTS or more, the first layer trains on dense rows by sums along the inputs (kernels/dense.pyx), or, with
# WIDE_UNITS or more, in panels (kernels/affine.pyx).  With fewer inputs both are too short to gain.
DENSE_INPUTS = 64
WIDE_UNITS = 64

# Non-zeros a column and bytes of a row of the first weight: from one of these pairs on, the gradient of sparse rows is
# taken by column (kernels/sparse.pyx).  If each batch must be sorted, it takes more of both.
SORTED_ONCE = ((8, 0), (3, 512))
SORTED_EACH_TIME = ((8, 512), (5, 1600))

# Steps move touched rows only (kernels/touched.pyx) if a batch has less than one non-zero for this many columns.  With
# more, moving the whole weight in order costs less than finding its rows here and there.
TOUCHED_SHARE = 16

# Slices of a layer: 4 from MANY_UNITS on, 2 from twice SLICE_UNITS on; narrower slices lose more in their products than
# a thread gains.  In layers of ALIGNED_FROM units or more they begin at multiples of ALIGNED_UNITS.
MANY_UNITS = 200
SLICE_UNITS = 10
ALIGNED_FROM = 64
ALIGNED_UNITS = 8

# Multiply-adds forward from which a batch goes by units; a smaller one is not worth a barrier.  Large batches go
# TEAM_ROWS rows at a time.
UNITS_PRODUCT = 300_000
TEAM_ROWS = 128

# Rows of a shard, at least; with fewer, its own gradient costs more than it gains.
SHARD_ROWS = 256

# Rows of a row block, at most, unless the batch is normalised.
MAX_BLOCK_ROWS = 2 * SHARD_ROWS

# Inputs from which an output layer is transposed: sums along them are faster than BLAS.
LONG_OUTPUT = 64

# Cache lines of a strip: of a row of weights that sparse rows are multiplied by at a time.
PANEL_LINES = 8

# sparse="auto" takes dense data for sparse if a sample of this many rows has a smaller share of non-zeros.
SPARSE_DENSITY = 0.25
DENSITY_SAMPLE = 300

# A run of fewer multiply-adds forward uses one thread: others gain nothing if processors are free, and cost a time
# slice if they are not.
SMALL_RUN = 2e6

# Bytes from which several threads check that numbers are finite, and bytes that they check in one call.
PARALLEL_BYTES = 1 << 22
LOOKED_THROUGH = 1 << 22

# Multiply-adds of a forward pass in one call, at most, for Ctrl-C.
FORWARD_PRODUCT = 1e9
