/* The inner loops of convolution, on maps in lanes: a vector holds one number of each of LANES images.

   The taps of a window, the numbers of X that it sees, are contiguous vectors in each of its rows, and the filters of a
   position of Z are contiguous vectors.  So all three products are sums for a few vectors times a few columns:

       forward    positions x filters:  over the taps, a tap of each position times a weight of each filter
       weight     taps x filters:       over the positions, each tap times the gradient by each filter
       input      positions x channels: over the filters, the gradient of each position times a weight of each channel
       one        filters x positions:  forward for a single image, with filters in the lanes; the sums are the same

   A tile holds VECTORS_AT_ONCE x COLUMNS_AT_ONCE such sums in registers.  Which others share its tile does not change a
   sum.

   The text below is compiled once for each number type: names end in _float or _double.  */

#ifndef NUMBER

#include "tiles.h"

/* How a tile walks: n_rows times n steps, and how far the vectors (a) and the columns (b) move at each, in numbers. */
typedef struct {
    ptrdiff_t n_rows, n;
    ptrdiff_t a_row, a_step;
    ptrdiff_t b_row, b_step, b_next;  /* b_next: from column to column */
    ptrdiff_t cells, b_cell, out_next;  /* one: rows are cells of a window, so many a row; from column to column of out */
} Walk;

enum { FORWARD_TILE, WEIGHT_TILE, INPUT_TILE, ONE_TILE };

/* How n is cut into parts of nearly the same size: the first n_larger have one more than the others.  So a loop over
   the parts needs no division, which takes as long as dozens of products. */
typedef struct {
    ptrdiff_t n_parts, size, n_larger;
} Parts;

INLINE Parts cut_into_parts(ptrdiff_t n, ptrdiff_t most)
{
    Parts parts = {(n + most - 1) / most, 0, 0};
    if (parts.n_parts > 0) {
        parts.size = n / parts.n_parts;
        parts.n_larger = n - parts.size * parts.n_parts;
    }
    return parts;
}

#define NUMBER float
#define NUMBER_BYTES 4
#define NAME(name) name##_float
#include "convolution.h"
#undef NUMBER
#undef NUMBER_BYTES
#undef NAME
#define NUMBER double
#define NUMBER_BYTES 8
#define NAME(name) name##_double
#include "convolution.h"
#undef NUMBER
#undef NUMBER_BYTES
#undef NAME

#else

#define vector NAME(vector)
#if VECTOR_BYTES
#define AT(address) (*(vector *)(address))
#define READ(address) (*(const vector *)(address))
#define LANES (VECTOR_BYTES / NUMBER_BYTES)
#else
#define AT(address) (*(address))
#define READ(address) (*(address))
#define LANES 1
#endif
#define Tile NAME(Tile)

typedef struct {
    const NUMBER *a[VECTORS_AT_ONCE], *b;
    NUMBER *out[VECTORS_AT_ONCE];
    ptrdiff_t place;  /* of the first column, from out */
    Walk walk;
    const NUMBER *bias;  /* forward: of each column, or NULL */
    NUMBER alpha, beta;  /* weight: out = alpha * sum + beta * out */
} Tile;

/* out (vectors, columns) = a tile's sums: plus the bias forward, plus what stood in out by input; the sums of all lanes
   by weight. */
INLINE void NAME(sum_tile)(const Tile *tile, const int kind, const int vectors, const int columns)
{
    const vector zero = {0};
    const Walk walk = tile->walk;
    const ptrdiff_t a_step = kind == WEIGHT_TILE || kind == ONE_TILE ? walk.a_step : LANES;
    const ptrdiff_t b_step = kind == INPUT_TILE || kind == ONE_TILE ? 1 : walk.b_step;
    const ptrdiff_t b_next = kind == FORWARD_TILE ? 1 : kind == WEIGHT_TILE ? LANES : walk.b_next;
    vector sums[VECTORS_AT_ONCE * COLUMNS_AT_ONCE], x[VECTORS_AT_ONCE];
    const NUMBER *a[VECTORS_AT_ONCE], *b;
    NUMBER *out[VECTORS_AT_ONCE];
    ptrdiff_t r, i;
    int v, c;
    UNROLLED for (v = 0; v < vectors; v++) {
        a[v] = tile->a[v];
        UNROLLED for (c = 0; c < columns; c++)
            if (kind == INPUT_TILE)
                sums[v * columns + c] = READ(tile->out[v] + tile->place + c * LANES);
            else if (kind == ONE_TILE)
                sums[v * columns + c] = tile->bias ? READ(tile->bias + v * LANES) : zero;
            else
                sums[v * columns + c] = (kind == FORWARD_TILE && tile->bias ? tile->bias[c] : 0) - zero;
    }
    for (r = 0; r < walk.n_rows; r++) {
        b = tile->b + (kind == ONE_TILE ? r / walk.cells * walk.b_row + r % walk.cells * walk.b_cell : r * walk.b_row);
        for (i = 0; i < walk.n; i++) {
            UNROLLED for (v = 0; v < vectors; v++) {
                vector read = READ(a[v] + r * walk.a_row + i * a_step);
                IN_REGISTER(read);
                x[v] = read;
            }
            UNROLLED for (c = 0; c < columns; c++) {
                vector w = b[c * b_next] - zero;
                if (kind == WEIGHT_TILE)
                    w = READ(b + c * b_next);
                if (kind == WEIGHT_TILE || !MULTIPLIES_BY_LANE)
                    IN_REGISTER(w);
                UNROLLED for (v = 0; v < vectors; v++) {
                    sums[v * columns + c] += x[v] * w;
                    IN_REGISTER(sums[v * columns + c]);
                }
            }
            b += b_step;
        }
    }
    UNROLLED for (v = 0; v < vectors; v++)
        out[v] = tile->out[v] + tile->place;
    UNROLLED for (v = 0; v < vectors; v++) {
        NUMBER total[COLUMNS_AT_ONCE];
        const vector *sum = sums + v * columns;
        if (kind == WEIGHT_TILE)
            NAME(sum_lanes)(sum[0], columns > 1 ? sum[1] : zero, columns > 2 ? sum[2] : zero,
                            columns > 3 ? sum[3] : zero, total);
        UNROLLED for (c = 0; c < columns; c++)
            if (kind == WEIGHT_TILE)
                out[v][c] = tile->alpha * total[c] + (tile->beta != 0 ? tile->beta * out[v][c] : 0);
            else if (kind == ONE_TILE)
                AT(out[v] + c * walk.out_next) = sum[c];
            else
                AT(out[v] + c * LANES) = sum[c];
    }
}

/* A function for each kind and shape of a tile, so that it has all registers, and a table of them. */
#define SHAPE(kind, vectors, columns) \
    APART void NAME(kind##_##vectors##_##columns)(const Tile *tile) \
    { \
        NAME(sum_tile)(tile, kind, vectors, columns); \
    }
#define SHAPES(kind, vectors) \
    SHAPE(kind, vectors, 1) SHAPE(kind, vectors, 2) SHAPE(kind, vectors, 3) SHAPE(kind, vectors, 4)
#define ENTRIES(kind, vectors) \
    {NAME(kind##_##vectors##_1), NAME(kind##_##vectors##_2), NAME(kind##_##vectors##_3), NAME(kind##_##vectors##_4)}
#if VECTORS_AT_ONCE == 6
#define ALL_SHAPES(kind) \
    SHAPES(kind, 1) SHAPES(kind, 2) SHAPES(kind, 3) SHAPES(kind, 4) SHAPES(kind, 5) SHAPES(kind, 6)
#define TABLE(kind) \
    {ENTRIES(kind, 1), ENTRIES(kind, 2), ENTRIES(kind, 3), ENTRIES(kind, 4), ENTRIES(kind, 5), ENTRIES(kind, 6)}
#else
#define ALL_SHAPES(kind) SHAPES(kind, 1) SHAPES(kind, 2) SHAPES(kind, 3)
#define TABLE(kind) {ENTRIES(kind, 1), ENTRIES(kind, 2), ENTRIES(kind, 3)}
#endif
ALL_SHAPES(FORWARD_TILE)
ALL_SHAPES(WEIGHT_TILE)
ALL_SHAPES(INPUT_TILE)
ALL_SHAPES(ONE_TILE)
static void (*const NAME(tiles)[4][VECTORS_AT_ONCE][COLUMNS_AT_ONCE])(const Tile *) = {
    TABLE(FORWARD_TILE), TABLE(WEIGHT_TILE), TABLE(INPUT_TILE), TABLE(ONE_TILE)};
#undef SHAPE
#undef SHAPES
#undef ENTRIES
#undef ALL_SHAPES
#undef TABLE

/* Where positions of Z are, row by row from position i on, and where the first taps of their windows are in X. */
INLINE void NAME(place_positions)(const Image *x, const WindowOf *window, const Image *z, ptrdiff_t i,
                                  ptrdiff_t vectors, ptrdiff_t x_places[VECTORS_AT_ONCE],
                                  ptrdiff_t z_places[VECTORS_AT_ONCE])
{
    ptrdiff_t row = i / z->width, column = i - row * z->width, v;
    for (v = 0; v < vectors; v++) {
        x_places[v] = (row * window->down - window->top) * x->row
                      + (column * window->across - window->left) * x->channels * LANES;
        z_places[v] = row * z->row + column * z->channels * LANES;
        if (++column == z->width) {
            column = 0;
            row++;
        }
    }
}

/* The same as `convolve` for a single image, a few positions of a row at a time.  What fills up the last vector is read
   behind W and b, and means nothing. */
FUNCTION void NAME(convolve_one)(const Image *x, const NUMBER *X, const WindowOf *window, const NUMBER *W,
                                 const NUMBER *b, const Image *z, NUMBER *Z, ptrdiff_t begin, ptrdiff_t end)
{
    const int is_whole = x->pixel == x->channels;  /* a row of the window lies together */
    const ptrdiff_t filters = z->channels, n = is_whole ? window->width * x->channels : x->channels;
    const ptrdiff_t cells = is_whole ? 1 : window->width;
    const Parts tiles = cut_into_parts(z->width, COLUMNS_AT_ONCE);
    const Parts groups = cut_into_parts((filters + LANES - 1) / LANES, VECTORS_AT_ONCE);
    ptrdiff_t y, t, g, i, f, vectors, columns, v;
    Tile tile = {.walk = {window->height * cells, n, n * filters, filters, x->row, 1, window->across * x->pixel, cells,
                          x->pixel, z->pixel}};
    for (y = begin; y < end; y++)
        for (t = 0, i = 0; t < tiles.n_parts; t++, i += columns) {
            columns = tiles.size + (t < tiles.n_larger);
            tile.b = X + (y * window->down - window->top) * x->row + (i * window->across - window->left) * x->pixel;
            for (g = 0, f = 0; g < groups.n_parts; g++, f += vectors * LANES) {
                vectors = groups.size + (g < groups.n_larger);
                for (v = 0; v < vectors; v++) {
                    tile.a[v] = W + f + v * LANES;
                    tile.out[v] = Z + y * z->row + i * z->pixel + f + v * LANES;
                }
                tile.bias = b ? b + f : NULL;
                NAME(tiles)[ONE_TILE][vectors - 1][columns - 1](&tile);
            }
        }
}

/* Rows begin to end of Z = the convolution of X with W (height, width, channels, filters), plus b unless it is NULL. */
FUNCTION void NAME(convolve)(const Image *x, const NUMBER *X, const WindowOf *window, const NUMBER *W, const NUMBER *b,
                             const Image *z, NUMBER *Z, ptrdiff_t begin, ptrdiff_t end)
{
    const ptrdiff_t taps = window->width * x->channels, filters = z->channels;
    const Parts tiles = cut_into_parts((end - begin) * z->width, VECTORS_AT_ONCE);
    const Parts groups = cut_into_parts(filters, COLUMNS_AT_ONCE);
    ptrdiff_t t, g, i = begin * z->width, f, vectors, columns, v, x_places[VECTORS_AT_ONCE], z_places[VECTORS_AT_ONCE];
    Tile tile = {.walk = {window->height, taps, x->row, LANES, taps * filters, filters, 1}};
    if (x->lanes < LANES) {
        NAME(convolve_one)(x, X, window, W, b, z, Z, begin, end);
        return;
    }
    for (t = 0; t < tiles.n_parts; t++, i += vectors) {
        vectors = tiles.size + (t < tiles.n_larger);
        NAME(place_positions)(x, window, z, i, vectors, x_places, z_places);
        for (v = 0; v < vectors; v++) {
            tile.a[v] = X + x_places[v];
            tile.out[v] = Z + z_places[v];
        }
        for (g = 0, f = 0; g < groups.n_parts; g++, f += columns) {
            columns = groups.size + (g < groups.n_larger);
            tile.place = f * LANES;
            tile.b = W + f;
            tile.bias = b ? b + f : NULL;
            NAME(tiles)[FORWARD_TILE][vectors - 1][columns - 1](&tile);
        }
    }
}

/* dW (height, width, channels, filters) = alpha * the gradient from rows begin to end of dZ, summed over positions and
   lanes, + beta * dW. */
FUNCTION void NAME(convolve_backward_weight)(const Image *x, const NUMBER *X, const WindowOf *window, const NUMBER *dZ,
                                             const Image *z, ptrdiff_t begin, ptrdiff_t end, NUMBER *dW, NUMBER alpha,
                                             NUMBER beta)
{
    const ptrdiff_t taps = window->width * x->channels, filters = z->channels;
    const Parts tiles = cut_into_parts(window->height * taps, VECTORS_AT_ONCE);
    const Parts groups = cut_into_parts(filters, COLUMNS_AT_ONCE);
    const NUMBER *first = X + (begin * window->down - window->top) * x->row - window->left * x->channels * LANES;
    ptrdiff_t t, g, i = 0, f, vectors, columns, v, row;
    Tile tile = {.walk = {end - begin, z->width, window->down * x->row, window->across * x->channels * LANES, z->row,
                          filters * LANES, LANES},
                 .alpha = alpha, .beta = beta};
    for (t = 0; t < tiles.n_parts; t++, i += vectors) {
        vectors = tiles.size + (t < tiles.n_larger);
        for (v = 0; v < vectors; v++) {
            row = (i + v) / taps;
            tile.a[v] = first + row * x->row + (i + v - row * taps) * LANES;
            tile.out[v] = dW + (i + v) * filters;
        }
        for (g = 0, f = 0; g < groups.n_parts; g++, f += columns) {
            columns = groups.size + (g < groups.n_larger);
            tile.place = f;
            tile.b = dZ + begin * z->row + f * LANES;
            NAME(tiles)[WEIGHT_TILE][vectors - 1][columns - 1](&tile);
        }
    }
}

/* db (filters,) = alpha * the sum of rows begin to end of dZ, over positions and lanes, + beta * db. */
FUNCTION void NAME(convolve_backward_bias)(const Image *z, const NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end, NUMBER *db,
                                           NUMBER alpha, NUMBER beta)
{
    const vector zero = {0};
    const NUMBER *place;
    vector sums[4];
    NUMBER total[4];
    ptrdiff_t f, y, i;
    int k, n;
    for (f = 0; f < z->channels; f += 4) {
        n = z->channels - f < 4 ? (int)(z->channels - f) : 4;
        for (k = 0; k < 4; k++)
            sums[k] = zero;
        for (y = begin; y < end; y++)
            for (i = 0; i < z->width; i++) {
                place = dZ + y * z->row + (i * z->channels + f) * LANES;
                UNROLLED for (k = 0; k < 4; k++)
                    if (k < n)
                        sums[k] += READ(place + k * LANES);
            }
        NAME(sum_lanes)(sums[0], sums[1], sums[2], sums[3], total);
        for (k = 0; k < n; k++)
            db[f + k] = alpha * total[k] + (beta != 0 ? beta * db[f + k] : 0);
    }
}

/* dX += the gradient by X, from rows begin to end of dZ.  A number of dX takes its terms tile by tile: begin and end
   decide on their order. */
FUNCTION void NAME(convolve_backward_input)(const Image *z, const NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end,
                                            const WindowOf *window, const NUMBER *W, const Image *x, NUMBER *dX)
{
    const ptrdiff_t channels = x->channels, filters = z->channels;
    const Parts tiles = cut_into_parts((end - begin) * z->width, VECTORS_AT_ONCE);
    const Parts groups = cut_into_parts(channels, COLUMNS_AT_ONCE);
    ptrdiff_t t, g, i = begin * z->width, c, ky, kx, vectors, columns, v;
    ptrdiff_t x_places[VECTORS_AT_ONCE], z_places[VECTORS_AT_ONCE];
    Tile tile = {.walk = {1, filters, 0, LANES, 0, 1, filters}};
    for (t = 0; t < tiles.n_parts; t++, i += vectors) {
        vectors = tiles.size + (t < tiles.n_larger);
        NAME(place_positions)(x, window, z, i, vectors, x_places, z_places);
        for (v = 0; v < vectors; v++) {
            tile.a[v] = dZ + z_places[v];
            tile.out[v] = dX + x_places[v];
        }
        /* Through the same tap of their windows, positions see different pixels. */
        tile.b = W;
        for (ky = 0; ky < window->height; ky++)
            for (kx = 0; kx < window->width; kx++)
                for (g = 0, c = 0; g < groups.n_parts; g++, c += columns) {
                    columns = groups.size + (g < groups.n_larger);
                    tile.place = ky * x->row + (kx * channels + c) * LANES;
                    NAME(tiles)[INPUT_TILE][vectors - 1][columns - 1](&tile);
                    tile.b += columns * filters;
                }
    }
}

#undef vector
#undef AT
#undef READ
#undef LANES
#undef Tile

#endif
