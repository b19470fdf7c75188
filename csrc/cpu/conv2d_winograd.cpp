/* conv2d with a 3x3 kernel, stride 1, by Winograd's minimal filtering (Lavin and Gray, CVPR 2016):
 *
 *   Y = A^T [ sum over c of (G g G^T) * (B^T d B) ] A
 *
 * for every tile of M x M outputs, where d are its (M + 2) x (M + 2) inputs: (M + 2)^2 products a tile in place of 9 M^2.
 * Each of the (M + 2)^2 frequencies is a product of two matrices, [tiles, c] and [c, k], for the direct kernel's microkernel.
 *
 * Pixels of a tile are `dilation` apart, its outputs as its inputs: pixels that are equal modulo the dilation, a phase, are a
 * convolution without dilation. Blocks are cut into strips of at most M x M pixels of every phase, from the block's own
 * corner, and a strip has one tile a phase: a tile, and so its rounding, depends on nothing but its block. Of a tile that the
 * block or the frame clips, only what its outputs need is read; the rest is zero.
 *
 * Packed weights: [frequency][unit][c][unit's channels], units as in conv2d.cpp. A chunk of tiles passes in three steps: its
 * inputs' frequencies go to scratch [frequency][tile][c]; their products with the weights to [frequency][unit][tile][UNIT];
 * the outputs' epilogue and stores are the direct kernel's. */
#include "conv2d.h"

#include <string.h>

#include "kernels.h"
#include "parallel.h"
#include "regions.h"
#include "scratch.h"

namespace sb::SB_ISA {
namespace {

constexpr int64_t PANEL_CHANNELS = (64 << 10) / UNIT; /* weights of a unit that stay in the cache: 256 KiB */
constexpr int64_t ODD_LINE = 16; /* floats between frequencies, so that their lines do not all fall into one set of the cache */
constexpr int64_t LEAST_TILES = 4 * TILE_P;

/* The transforms of one axis. Points of F(2, 3): 0, 1, -1, infinity. */
template <int M>
struct Transform {
    static constexpr int SIDE = 4;

    SB_INLINE void input(const vec (&d)[4], vec (&v)[4]) {
        v[0] = d[0] - d[2];
        v[1] = d[2] + d[1];
        v[2] = d[2] - d[1];
        v[3] = d[3] - d[1];
    }
    SB_INLINE void output(const vec (&m)[4], vec (&y)[2]) {
        y[0] = m[0] + (m[1] + m[2]);
        y[1] = m[3] + (m[1] - m[2]);
    }
    static void weight(const double (&g)[3], double (&u)[4]) {
        u[0] = g[0];
        u[1] = (g[0] + g[1] + g[2]) / 2;
        u[2] = (g[0] - g[1] + g[2]) / 2;
        u[3] = g[2];
    }
};

/* F(4, 3) at 0, a, -a, b, -b, infinity with a^2 = 1/2 and b^2 = 2: rounding errors are 1.7 times the direct sum's in the mean,
 * with the customary points 1 and 2 they are 3.9 times. */
template <>
struct Transform<4> {
    static constexpr int SIDE = 6;
    static constexpr double A = 0.70710678118654752440, B = 2 * A;

    SB_INLINE void input(const vec (&d)[6], vec (&v)[6]) {
        const vec a = splat((float)A), b = splat((float)B), five_halves = splat(-2.5f);
        const vec even_a = fma(splat(-2.0f), d[2], d[4]), odd_a = fma(splat(-2.0f), d[1], d[3]);
        const vec even_b = fma(splat(-0.5f), d[2], d[4]), odd_b = fma(splat(-0.5f), d[1], d[3]);
        v[0] = fma(five_halves, d[2], d[0] + d[4]);
        v[1] = fma(a, odd_a, even_a);
        v[2] = fma(-a, odd_a, even_a);
        v[3] = fma(b, odd_b, even_b);
        v[4] = fma(-b, odd_b, even_b);
        v[5] = fma(five_halves, d[3], d[1] + d[5]);
    }
    SB_INLINE void output(const vec (&m)[6], vec (&y)[4]) {
        const vec sum_a = m[1] + m[2], diff_a = m[1] - m[2], sum_b = m[3] + m[4], diff_b = m[3] - m[4];
        y[0] = m[0] + (sum_a + sum_b);
        y[1] = splat((float)A) * fma(splat(2.0f), diff_b, diff_a);
        y[2] = fma(splat(2.0f), sum_b, splat(0.5f) * sum_a);
        y[3] = fma(splat((float)A), fma(splat(4.0f), diff_b, splat(0.5f) * diff_a), m[5]);
    }
    static void weight(const double (&g)[3], double (&u)[6]) {
        u[0] = g[0];
        u[1] = (g[0] + A * g[1] + g[2] / 2) * (-2.0 / 3);
        u[2] = (g[0] - A * g[1] + g[2] / 2) * (-2.0 / 3);
        u[3] = (g[0] + B * g[1] + 2 * g[2]) / 6;
        u[4] = (g[0] - B * g[1] + 2 * g[2]) / 6;
        u[5] = g[2];
    }
};

struct Shape {
    int64_t channels, out_channels, units, width; /* width: output channels rounded up to vectors */

    explicit Shape(const sb_conv2d &c) : channels(c.in_channels), out_channels(c.out_channels) {
        width = ceil_div(out_channels, W) * W;
        units = ceil_div(width, UNIT);
    }
    int lanes(int64_t unit) const { return (int)minimum(UNIT, out_channels - unit * UNIT); }
    /* Where the weights of a frequency and unit begin. */
    int64_t weights(int64_t frequency, int64_t unit) const { return (frequency * width + unit * UNIT) * channels; }
};

/* The frequencies of one tile, for all channels. The tile's input pixels lie at x, `step_y` and `step_x` elements apart. */
template <int M, class T>
void transform_input(const T *x, int64_t step_y, int64_t step_x, int64_t channels, float *to, int64_t step_to) {
    constexpr int SIDE = Transform<M>::SIDE;
    for (int64_t c = 0; c < channels; c += W) {
        const int lanes = (int)minimum(W, channels - c);
        vec rows[SIDE][SIDE];
        for (int j = 0; j < SIDE; ++j) {
            vec d[SIDE], v[SIDE];
#pragma GCC unroll 8
            for (int i = 0; i < SIDE; ++i) {
                const T *from = x + i * step_y + j * step_x + c;
                d[i] = lanes == W ? load(from) : load(from, lanes);
            }
            Transform<M>::input(d, v);
#pragma GCC unroll 8
            for (int i = 0; i < SIDE; ++i) rows[i][j] = v[i];
        }
        for (int i = 0; i < SIDE; ++i) {
            vec v[SIDE];
            Transform<M>::input(rows[i], v);
#pragma GCC unroll 8
            for (int j = 0; j < SIDE; ++j) store(to + (i * SIDE + j) * step_to + c, v[j]);
        }
    }
}

/* Epilogue and stores of the first `tile.pixels` of a row of outputs. */
template <int M, int V, int P = M, class T>
SB_INLINE void finish_row(const Tile<T> &tile, const vec (&row)[M][V]) {
    if (tile.pixels == P) {
        vec sums[P][V];
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[p][v] = row[p][v];
        finish_sums(tile, sums);
    } else if constexpr (P > 1) {
        finish_row<M, V, P - 1>(tile, row);
    }
}

/* What one tile's outputs are made of; `common` has the row's pixels, epilogue and first output channel. */
template <int M, class T>
struct Output {
    const float *sums; /* of the tile, frequency 0 */
    int64_t step_sums;
    const T *residual; /* the tile's first pixel; NULL: none */
    int64_t residual_y, residual_x;
    T *out;
    int64_t out_y, out_x;
    int rows;

    template <int V>
    void transform(const Tile<T> &common) const {
        constexpr int SIDE = Transform<M>::SIDE;
        vec columns[M][SIDE][V];
        for (int j = 0; j < SIDE; ++j)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                vec m[SIDE], y[M];
#pragma GCC unroll 8
                for (int i = 0; i < SIDE; ++i) m[i] = load(sums + (i * SIDE + j) * step_sums + v * W);
                Transform<M>::output(m, y);
#pragma GCC unroll 8
                for (int i = 0; i < M; ++i) columns[i][j][v] = y[i];
            }
        const T *from[M];
        T *to[M];
        Tile<T> tile = common;
        tile.residual = residual ? from : nullptr;
        tile.out = to;
        for (int i = 0; i < rows; ++i) {
            for (int p = 0; p < tile.pixels; ++p) {
                to[p] = out + i * out_y + p * out_x;
                if (residual) from[p] = residual + i * residual_y + p * residual_x;
            }
            vec row[M][V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                const vec bias = load(tile.epilogue->bias + v * W);
                vec m[SIDE], y[M];
#pragma GCC unroll 8
                for (int j = 0; j < SIDE; ++j) m[j] = columns[i][j][v];
                Transform<M>::output(m, y);
#pragma GCC unroll 8
                for (int p = 0; p < M; ++p) row[p][v] = y[p] + bias;
            }
            finish_row<M, V>(tile, row);
        }
    }

    template <int V = TILE_V>
    void run(const Tile<T> &tile) const {
        if (tile.vectors == V) return transform<V>(tile);
        if constexpr (V > 1) run<V - 1>(tile);
    }
};

/* The tiles of all strips, numbered. */
struct Tiles {
    Regions strips;
    int64_t step_y, step_x;     /* dilation */
    int64_t phases_y, phases_x; /* of a strip */
    int64_t count;

    Tiles(const sb_blocks *blocks, const sb_plane &out, const sb_conv2d &conv, int64_t side)
        : strips(blocks, out, INT64_MAX, side * conv.dilation_w, side * conv.dilation_h), step_y(conv.dilation_h), step_x(conv.dilation_w) {
        phases_y = whole_steps(strips.strip_h, step_y);
        phases_x = whole_steps(strips.strip_w, step_x);
        count = strips.count * phases_y * phases_x;
    }

    /* From the tile's first pixel to the end of its strip: its pixels are the first one and every step_y-th, step_x-th from there. */
    Region operator[](int64_t i) const {
        const int64_t phases = phases_y * phases_x;
        Region tile = strips[i / phases];
        tile.y0 += i % phases / phases_x;
        tile.x0 += i % phases_x;
        return tile;
    }

private:
    /* The number of phases of a strip, which is rounded up so that the phases of all but the block's last one are of equal size. */
    static int64_t whole_steps(int64_t &strip, int64_t step) {
        if (strip <= step) return strip;
        strip = ceil_div(strip, step) * step;
        return step;
    }
};

template <int M, class T>
struct Winograd {
    static constexpr int SIDE = Transform<M>::SIDE, FREQUENCIES = SIDE * SIDE;

    const Shape &shape;
    const sb_conv2d &conv;
    const sb_epilogue &epilogue;
    const sb_plane &x, *residual, &out;
    const Tiles tiles;
    const float *weight;
    int64_t chunk; /* tiles */
    bool stream;

    static void pack(const Shape &shape, const float *weight, float *packed) {
        float *unit_weights = (float *)scratch(SCRATCH_FREQUENCIES, sizeof(float) * FREQUENCIES * UNIT);
        for (int64_t unit = 0; unit < shape.units; ++unit) {
            const int lanes = shape.lanes(unit);
            const int64_t width = ceil_div(lanes, W) * W;
            memset(unit_weights, 0, sizeof(float) * FREQUENCIES * UNIT);
            for (int64_t c = 0; c < shape.channels; ++c) {
                for (int lane = 0; lane < lanes; ++lane) {
                    const float *g = weight + ((unit * UNIT + lane) * shape.channels + c) * 9;
                    double rows[3][SIDE], row[SIDE];
                    for (int i = 0; i < 3; ++i) Transform<M>::weight({g[3 * i], g[3 * i + 1], g[3 * i + 2]}, rows[i]);
                    for (int j = 0; j < SIDE; ++j) {
                        Transform<M>::weight({rows[0][j], rows[1][j], rows[2][j]}, row);
                        for (int i = 0; i < SIDE; ++i) unit_weights[(i * SIDE + j) * UNIT + lane] = (float)row[i];
                    }
                }
                for (int64_t f = 0; f < FREQUENCIES; ++f)
                    memcpy(packed + shape.weights(f, unit) + c * width, unit_weights + f * UNIT, sizeof(float) * width);
            }
        }
    }

    void item(int64_t number, int64_t first_unit, int64_t last_unit) const;
    void read_tile(const Region &tile, float *to, int64_t step_to) const;
};

/* The frequencies of a tile's inputs. Where the tile is clipped or at the plane's edge, by way of a window with zeros. */
template <int M, class T>
void Winograd<M, T>::read_tile(const Region &r, float *to, int64_t step_to) const {
    const int64_t channels = shape.channels, dy = tiles.step_y, dx = tiles.step_x, top = r.y0 - conv.pad_h, left = r.x0 - conv.pad_w;
    const int64_t rows = ceil_div(r.y1 - r.y0, dy) + 2, cols = ceil_div(r.x1 - r.x0, dx) + 2;
    if (rows == SIDE && cols == SIDE && top >= -x.border && left >= -x.border && top + (SIDE - 1) * dy < x.h + x.border &&
        left + (SIDE - 1) * dx < x.w + x.border)
        return transform_input<M>(pixel<T>(x, r.n, top, left), dy * x.stride_y, dx * x.stride_x, channels, to, step_to);
    T *window = (T *)scratch(SCRATCH_WINDOW, sizeof(T) * FREQUENCIES * channels);
    memset(window, 0, sizeof(T) * FREQUENCIES * channels);
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) {
            const int64_t row = top + i * dy, col = left + j * dx;
            if (row >= 0 && row < x.h && col >= 0 && col < x.w)
                memcpy(window + (i * SIDE + j) * channels, pixel<T>(x, r.n, row, col), sizeof(T) * channels);
        }
    transform_input<M>(window, SIDE * channels, channels, channels, to, step_to);
}

/* The chunk of that number, a range of units of output channels. */
template <int M, class T>
void Winograd<M, T>::item(int64_t number, int64_t first_unit, int64_t last_unit) const {
    const int64_t begin = number * chunk, end = minimum(begin + chunk, tiles.count);
    const int64_t stride = ceil_div(shape.channels, W) * W, units = last_unit - first_unit;
    const int64_t step_in = chunk * stride + ODD_LINE, step_sums = chunk * units * UNIT + ODD_LINE;
    float *inputs = (float *)scratch(SCRATCH_FREQUENCIES, sizeof(float) * FREQUENCIES * (step_in + step_sums));
    float *sums = inputs + FREQUENCIES * step_in;
    Region *filled = (Region *)scratch(SCRATCH_TILES, sizeof(Region) * chunk);
    const float **rows = (const float **)scratch(SCRATCH_PIXELS, sizeof(float *) * chunk);

    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) {
        const Region r = tiles[i];
        if (r.y0 >= r.y1 || r.x0 >= r.x1) continue;
        rows[count] = inputs + count * stride;
        filled[count] = r;
        read_tile(r, inputs + count * stride, step_in);
        ++count;
    }

    const EpilogueParams<UNIT> none(sb_epilogue{}, 0, UNIT);
    Tile<float> product;
    product.epilogue = &none;
    const int64_t groups = ceil_div(count, TILE_P), panels = ceil_div(shape.channels, PANEL_CHANNELS);
    for (int64_t f = 0; f < FREQUENCIES; ++f) {
        product.channel = f * step_in;
        for (int64_t unit = first_unit; unit < last_unit; ++unit) {
            product.vectors = (int)ceil_div(shape.lanes(unit), W);
            for (int64_t panel = 0; panel < panels; ++panel) {
                const int64_t c = panel * shape.channels / panels;
                const Run run = {c, (panel + 1) * shape.channels / panels - c, c};
                product.runs = &run;
                product.runs_end = &run + 1;
                product.weight = weight + shape.weights(f, unit);
                product.first = panel == 0;
                product.last = false;
                for (int64_t i = 0; i < groups; ++i) {
                    const int64_t first = i * count / groups;
                    product.pixels = (int)((i + 1) * count / groups - first);
                    product.x = rows + first;
                    product.sums = sums + f * step_sums + ((unit - first_unit) * chunk + first) * UNIT;
                    conv2d_tile(product);
                }
            }
        }
    }

    Tile<T> tile;
    tile.residual_c = residual ? residual->stride_c : 0;
    tile.last = true;
    for (int64_t unit = first_unit; unit < last_unit; ++unit) {
        const EpilogueParams<UNIT> params(epilogue, unit * UNIT, shape.lanes(unit));
        tile.epilogue = &params;
        tile.out_channel = unit * UNIT;
        tile.vectors = (int)ceil_div(shape.lanes(unit), W);
        tile.stream = stream;
        for (int64_t i = 0; i < count; ++i) {
            const Region &r = filled[i];
            Output<M, T> output;
            output.sums = sums + ((unit - first_unit) * chunk + i) * UNIT;
            output.step_sums = step_sums;
            output.residual = residual ? pixel<T>(*residual, r.n, r.y0, r.x0) : nullptr;
            output.residual_y = residual ? tiles.step_y * residual->stride_y : 0;
            output.residual_x = residual ? tiles.step_x * residual->stride_x : 0;
            output.out = pixel<T>(out, r.n, r.y0, r.x0);
            output.out_y = tiles.step_y * out.stride_y;
            output.out_x = tiles.step_x * out.stride_x;
            output.rows = (int)ceil_div(r.y1 - r.y0, tiles.step_y);
            tile.pixels = (int)ceil_div(r.x1 - r.x0, tiles.step_x);
            output.run(tile);
        }
    }
    if (stream) stream_end();
}

/* Tiles of a chunk. A chunk reads all weights once, a tile writes and reads its scratch once: enough tiles that the weights
 * are the lesser part. A multiple of the threads in chunks of equal size. */
int64_t chunk_tiles(const Shape &shape, int64_t tiles, int threads) {
    const int64_t balance = shape.channels * shape.out_channels / (shape.channels + shape.out_channels);
    int64_t chunks = ceil_div(tiles, maximum(balance, LEAST_TILES));
    if (chunks > 1) chunks = ceil_div(chunks, threads) * threads;
    return ceil_div(tiles, chunks);
}

template <int M, class T>
void run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual,
         const sb_blocks *blocks, const sb_plane &out, int threads) {
    const Shape shape(conv);
    const Tiles tiles(blocks, out, conv, M);
    if (!tiles.count) return;
    Winograd<M, T> winograd{shape, conv, epilogue, x, residual, out, tiles, packed, chunk_tiles(shape, tiles.count, threads), false};
    winograd.stream = is_streamed<T>(out, residual, out.c, tiles.count * M * M);

    const int64_t chunks = ceil_div(tiles.count, winograd.chunk);
    const int64_t shares = chunks < threads ? minimum(ceil_div(threads, chunks), shape.units) : 1;
    const int64_t items = chunks * shares;
    parallel_for(items, threads, [&](int64_t i) {
        const CountSubnormalsAsZero mode;
        const int64_t share = i / chunks;
        winograd.item(i % chunks, share * shape.units / shares, (share + 1) * shape.units / shares);
    });
}

} // namespace

int64_t winograd_packed_size(const sb_conv2d &conv) {
    const Shape shape(conv);
    const int64_t side = conv.algorithm == SB_WINOGRAD_4X4 ? Transform<4>::SIDE : Transform<2>::SIDE;
    return side * side * shape.width * shape.channels;
}

void winograd_pack(const sb_conv2d &conv, const float *weight, float *packed) {
    const CountSubnormalsAsZero mode;
    if (conv.algorithm == SB_WINOGRAD_4X4) Winograd<4, float>::pack(Shape(conv), weight, packed);
    else Winograd<2, float>::pack(Shape(conv), weight, packed);
}

void winograd_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,
                  const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype, [&](auto zero) {
        const auto run_tiles = conv.algorithm == SB_WINOGRAD_4X4 ? run<4, decltype(zero)> : run<2, decltype(zero)>;
        run_tiles(conv, packed, epilogue, x, residual, blocks, out, threads);
    });
}

} // namespace sb::SB_ISA
