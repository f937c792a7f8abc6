"""Tuning constants: what decides between ways that give the same results to rounding, each with its unit."""

#: Time in seconds after which a run of batches comes back to Python, for Ctrl-C, progress and callbacks.
CHUNK_SECONDS = 0.05

# A fork waits for runs that are under way, but not for ever.
LONGEST_RUN_SECONDS = 10.0

# Where other work takes so much of the processors' time that the threads of small batches wait for each other, fewer
# of them run for so many chunks; then all are tried again for a short one, and after each failure in a row twice as
# late, up to the second number.  The results do not depend on it.
CONTENDED_CHUNKS = (4, 16)
TRIAL_SECONDS = 0.015
MEASURABLE_SECONDS = 0.01

# A block holds so many rows that its first product is one that OpenBLAS does without packing (about 1e6
# multiply-adds), but not so few that a wide layer's weights are read for a handful of rows.
THIN_PRODUCT = 1e6
BLOCK_ROWS = (128, 256)

# A block is also what Ctrl-C waits for: in a very large network it holds fewer rows, so many multiply-adds
# forward, but enough that the products stay products.
BLOCK_PRODUCT = 2e8
FEWEST_BLOCK_ROWS = 16

# Where the first layer has no more units than this, waiting for dense rows would cost more than short products do: a
# block then holds what stays in the cache, in a number of rows that AVX-512's tiles of five rows divide.
THIN_UNITS = 32
TILED_ROWS = 10

# With so many inputs or more, the first layer is trained on dense rows by sums along the inputs (kernels/dense.pyx), or
# from so many units on in panels (kernels/affine.pyx).  With fewer inputs both are too short to gain.
DENSE_INPUTS = 64
WIDE_UNITS = 64

# The gradient of sparse rows is taken by column (see kernels/sparse.pyx) from so many non-zeros a column on, where a
# row of the first weight has at least so many bytes; where they must be sorted for each batch, it takes more of both.
SORTED_ONCE = ((8, 0), (3, 512))
SORTED_EACH_TIME = ((8, 512), (5, 1600))

# Steps go by touched columns (kernels/touched.pyx) where a batch has less than one non-zero for so many columns.
# Beyond, going over the whole weight in order costs less than finding its rows here and there.
TOUCHED_SHARE = 16

# Slices of a layer: 4 from so many units on, 2 from twice SLICE_UNITS on; a narrower slice loses more in its products
# than a thread gains.  In layers of ALIGNED_FROM units or more they begin at multiples of ALIGNED_UNITS.
MANY_UNITS = 200
SLICE_UNITS = 10
ALIGNED_FROM = 64
ALIGNED_UNITS = 8

# Batches go by units from so many multiply-adds forward on; below, a batch is not worth a barrier.  Large ones go by so
# many rows at a time.
UNITS_PRODUCT = 300_000
TEAM_ROWS = 128

# Rows of a shard, at least; below, its own gradient costs more than it gains.
SHARD_ROWS = 256

# A row block of a batch that is not normalised has no more rows than this.
MAX_BLOCK_ROWS = 2 * SHARD_ROWS

# An output layer with so many inputs or more is transposed: sums along them are faster than BLAS.
LONG_OUTPUT = 64

# Lines of the cache of a row of weights that are multiplied at once with sparse rows.
PANEL_LINES = 8

# sparse="auto" takes dense data for sparse where a sample of this many rows has a smaller share of non-zeros.
SPARSE_DENSITY = 0.25
DENSITY_SAMPLE = 300

# A run of so few multiply-adds forward is left to one thread: waiting for others gains nothing where they are free, and
# costs a time slice where they are not.
SMALL_RUN = 2e6

# Numbers of so many bytes are looked through by more than one thread, so many at once.
PARALLEL_BYTES = 1 << 22
LOOKED_THROUGH = 1 << 22

# Rows of a forward pass in one call are bounded by its multiply-adds, for the sake of Ctrl-C.
FORWARD_PRODUCT = 1e9
