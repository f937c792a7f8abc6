/* The inner loops of convolution, on maps in lanes: a vector holds one number of each of LANES images.

   The taps of a window, its numbers of X, are contiguous vectors in each row of the window, and the filters of a position
   of Z are contiguous vectors.  So all three products are sums of vectors of a few places times a few columns:

       forward    positions x filters:  a tap of X, by the weight of each filter; over the taps
       weight     taps x filters:       a number of X, by the gradient of each filter; over the positions
       input      positions x channels: the gradient of a filter, by its weight for each channel; over the filters

   A tile holds VECTORS_AT_ONCE x COLUMNS_AT_ONCE such sums in registers.  Which sums share a tile does not change them.

   The text below is compiled once for each number type: names end in _float or _double.  */

#ifndef NUMBER

#include "tiles.h"

/* How a tile walks: n_rows times n steps, and how far the vectors (a) and the columns (b) move at each, in numbers. */
typedef struct {
    ptrdiff_t n_rows, n;
    ptrdiff_t a_row, a_step;
    ptrdiff_t b_row, b_step, b_next;  /* b_next: from column to column */
} Walk;

enum { FORWARD_TILE, WEIGHT_TILE, INPUT_TILE };

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
    const ptrdiff_t a_step = kind == WEIGHT_TILE ? walk.a_step : LANES;
    const ptrdiff_t b_step = kind == INPUT_TILE ? 1 : walk.b_step;
    const ptrdiff_t b_next = kind == FORWARD_TILE ? 1 : kind == WEIGHT_TILE ? LANES : walk.b_next;
    vector sums[VECTORS_AT_ONCE * COLUMNS_AT_ONCE], x[VECTORS_AT_ONCE];
    const NUMBER *a[VECTORS_AT_ONCE], *b;
    ptrdiff_t r, i;
    int v, c;
    UNROLLED for (v = 0; v < vectors; v++) {
        a[v] = tile->a[v];
        UNROLLED for (c = 0; c < columns; c++)
            if (kind == INPUT_TILE)
                sums[v * columns + c] = READ(tile->out[v] + c * LANES);
            else
                sums[v * columns + c] = zero + (kind == FORWARD_TILE && tile->bias ? tile->bias[c] : 0);
    }
    for (r = 0; r < walk.n_rows; r++) {
        b = tile->b + r * walk.b_row;
        for (i = 0; i < walk.n; i++) {
            UNROLLED for (v = 0; v < vectors; v++) {
                vector read = READ(a[v] + r * walk.a_row + i * a_step);
                IN_REGISTER(read);
                x[v] = read;
            }
            UNROLLED for (c = 0; c < columns; c++) {
                if (kind == WEIGHT_TILE) {
                    vector d = READ(b + c * b_next);
                    UNROLLED for (v = 0; v < vectors; v++)
                        sums[v * columns + c] += x[v] * d;
                } else {
                    NUMBER w = b[c * b_next];
                    UNROLLED for (v = 0; v < vectors; v++)
                        sums[v * columns + c] += x[v] * w;
                }
            }
            b += b_step;
        }
    }
    UNROLLED for (v = 0; v < vectors; v++) {
        NUMBER total[4];
        const vector *sum = sums + v * columns;
        if (kind == WEIGHT_TILE)
            NAME(sum_lanes)(sum[0], columns > 1 ? sum[1] : zero, columns > 2 ? sum[2] : zero, columns > 3 ? sum[3] : zero,
                            total);
        UNROLLED for (c = 0; c < columns; c++) {
            NUMBER *out = tile->out[v] + (kind == WEIGHT_TILE ? c : c * LANES);
            if (kind == WEIGHT_TILE)
                *out = tile->alpha * total[c] + (tile->beta != 0 ? tile->beta * *out : 0);
            else
                AT(out) = sum[c];
        }
    }
}

/* A function for each kind and shape of a tile, so that it has all registers, and a table of them. */
#define SHAPE(kind, vectors, columns) \
    APART void NAME(kind##_##vectors##_##columns)(const Tile *tile) \
    { \
        NAME(sum_tile)(tile, kind, vectors, columns); \
    }
#define SHAPES(kind, vectors) SHAPE(kind, vectors, 1) SHAPE(kind, vectors, 2) SHAPE(kind, vectors, 3) SHAPE(kind, vectors, 4)
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
static void (*const NAME(tiles)[3][VECTORS_AT_ONCE][COLUMNS_AT_ONCE])(const Tile *) = {
    TABLE(FORWARD_TILE), TABLE(WEIGHT_TILE), TABLE(INPUT_TILE)};
#undef SHAPE
#undef SHAPES
#undef ENTRIES
#undef ALL_SHAPES
#undef TABLE

/* How far position i of Z, counted row by row, is from position 0, and the first tap of its window from X's first. */
INLINE void NAME(place_position)(const Image *x, const WindowOf *window, const Image *z, ptrdiff_t i, ptrdiff_t *x_place,
                                 ptrdiff_t *z_place)
{
    const ptrdiff_t row = (int)i / (int)z->width, column = i - row * z->width;
    *x_place = (row * window->down - window->top) * x->row
               + (column * window->across - window->left) * x->channels * LANES;
    *z_place = row * z->row + column * z->channels * LANES;
}

/* Rows begin to end of Z = the convolution of X with W (height, width, channels, filters), plus b, if it is not NULL. */
FUNCTION void NAME(convolve)(const Image *x, const NUMBER *X, const WindowOf *window, const NUMBER *W, const NUMBER *b,
                             const Image *z, NUMBER *Z, ptrdiff_t begin, ptrdiff_t end)
{
    const ptrdiff_t taps = window->width * x->channels, filters = z->channels;
    const ptrdiff_t n = (end - begin) * z->width, n_tiles = (n + VECTORS_AT_ONCE - 1) / VECTORS_AT_ONCE;
    const ptrdiff_t n_groups = (filters + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE;
    ptrdiff_t t, g, i, f, x_place, z_place[VECTORS_AT_ONCE], vectors, v;
    Tile tile = {.walk = {window->height, taps, x->row, LANES, taps * filters, filters, 1}};
    for (t = 0; t < n_tiles; t++) {
        i = PART(n, t, n_tiles);
        vectors = PART(n, t + 1, n_tiles) - i;
        for (v = 0; v < vectors; v++) {
            NAME(place_position)(x, window, z, begin * z->width + i + v, &x_place, &z_place[v]);
            tile.a[v] = X + x_place;
        }
        for (g = 0; g < n_groups; g++) {
            f = PART(filters, g, n_groups);
            for (v = 0; v < vectors; v++)
                tile.out[v] = Z + z_place[v] + f * LANES;
            tile.b = W + f;
            tile.bias = b ? b + f : NULL;
            NAME(tiles)[FORWARD_TILE][vectors - 1][PART(filters, g + 1, n_groups) - f - 1](&tile);
        }
    }
}

/* dW (height, width, channels, filters) = alpha * the gradient by W, of rows begin to end of Z and all lanes, + beta * dW. */
FUNCTION void NAME(convolve_backward_weight)(const Image *x, const NUMBER *X, const WindowOf *window, const NUMBER *dZ,
                                             const Image *z, ptrdiff_t begin, ptrdiff_t end, NUMBER *dW, NUMBER alpha,
                                             NUMBER beta)
{
    const ptrdiff_t taps = window->width * x->channels, filters = z->channels;
    const ptrdiff_t n = window->height * taps, n_tiles = (n + VECTORS_AT_ONCE - 1) / VECTORS_AT_ONCE;
    const ptrdiff_t n_groups = (filters + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE;
    const NUMBER *first = X + (begin * window->down - window->top) * x->row - window->left * x->channels * LANES;
    ptrdiff_t t, g, i, f, vectors, v, row;
    Tile tile = {.walk = {end - begin, z->width, window->down * x->row, window->across * x->channels * LANES, z->row,
                          filters * LANES, LANES},
                 .alpha = alpha, .beta = beta};
    for (t = 0; t < n_tiles; t++) {
        i = PART(n, t, n_tiles);
        vectors = PART(n, t + 1, n_tiles) - i;
        for (v = 0; v < vectors; v++) {
            row = (i + v) / taps;
            tile.a[v] = first + row * x->row + (i + v - row * taps) * LANES;
        }
        for (g = 0; g < n_groups; g++) {
            f = PART(filters, g, n_groups);
            for (v = 0; v < vectors; v++)
                tile.out[v] = dW + (i + v) * filters + f;
            tile.b = dZ + begin * z->row + f * LANES;
            NAME(tiles)[WEIGHT_TILE][vectors - 1][PART(filters, g + 1, n_groups) - f - 1](&tile);
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

/* dX += the gradient by X, of rows begin to end of Z. */
FUNCTION void NAME(convolve_backward_input)(const Image *z, const NUMBER *dZ, ptrdiff_t begin, ptrdiff_t end,
                                            const WindowOf *window, const NUMBER *W, const Image *x, NUMBER *dX)
{
    const ptrdiff_t channels = x->channels, filters = z->channels;
    const ptrdiff_t n = (end - begin) * z->width, n_tiles = (n + VECTORS_AT_ONCE - 1) / VECTORS_AT_ONCE;
    const ptrdiff_t n_groups = (channels + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE;
    ptrdiff_t t, g, i, c, ky, kx, x_place[VECTORS_AT_ONCE], z_place, place, vectors, v;
    Tile tile = {.walk = {1, filters, 0, LANES, 0, 1, filters}};
    for (t = 0; t < n_tiles; t++) {
        i = PART(n, t, n_tiles);
        vectors = PART(n, t + 1, n_tiles) - i;
        for (v = 0; v < vectors; v++) {
            NAME(place_position)(x, window, z, begin * z->width + i + v, &x_place[v], &z_place);
            tile.a[v] = dZ + z_place;
        }
        /* Positions see different pixels through the same tap of their windows. */
        for (ky = 0; ky < window->height; ky++)
            for (kx = 0; kx < window->width; kx++)
                for (g = 0; g < n_groups; g++) {
                    c = PART(channels, g, n_groups);
                    place = ky * x->row + (kx * channels + c) * LANES;
                    for (v = 0; v < vectors; v++)
                        tile.out[v] = dX + x_place[v] + place;
                    tile.b = W + ((ky * window->width + kx) * channels + c) * filters;
                    NAME(tiles)[INPUT_TILE][vectors - 1][PART(channels, g + 1, n_groups) - c - 1](&tile);
                }
    }
}

#undef vector
#undef AT
#undef READ
#undef LANES
#undef Tile

#endif
