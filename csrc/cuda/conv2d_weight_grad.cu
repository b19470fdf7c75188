/* Gradient of a convolution with respect to its weight: csrc/cpu/conv2d_weight_grad.cpp has the formula. A product of matrices for every
 * group: rows are its output channels, columns its taps and input channels without gaps, and the sum goes over the pixels of a share. A
 * group of threads computes tiles of ROWS x COLS, DEPTH pixels at a time, which are copied while those before are multiplied. */
#include "conv2d_weight_grad.h"

namespace sb::SB_NAME {

constexpr int V = 4, PIECES = 16, ROWS = PIECES * V, COLS = ROWS; /* floats of 16 bytes */
constexpr int DEPTH = SB_THREADS / PIECES;                        /* every thread copies a piece of a row and one of a column */
constexpr int STAGES = 4, STAGE = DEPTH * (ROWS + COLS);
static_assert(SB_THREADS == PIECES * PIECES, "a thread has V x V sums");
static_assert(SB_SHARED == STAGES * STAGE * sizeof(float), "what is copied lies in shared memory");

/* Which part of the product: `row` and `col` are its first. */
struct Tile {
    int in_group, out_group, length; /* channels, and columns of a group */
    int row_tiles, col_tiles;
    int64_t work;
    int row, col, group;
    int64_t share;

    SB_DEVICE Tile(const sb_conv2d &conv, int shares)
        : in_group(conv.in_channels / conv.groups), out_group(conv.out_channels / conv.groups),
          length(conv.kernel_h * conv.kernel_w * in_group), row_tiles((int)ceil_div(out_group, ROWS)),
          col_tiles((int)ceil_div(length, COLS)), work((int64_t)shares * conv.groups * row_tiles * col_tiles) {}
    /* Tiles that follow each other read the same pixels. */
    SB_DEVICE void take(const sb_conv2d &conv, int64_t i) {
        col = (int)(i % col_tiles) * COLS, i /= col_tiles;
        row = (int)(i % row_tiles) * ROWS, i /= row_tiles;
        group = (int)(i % conv.groups), share = i / conv.groups;
    }
};

/* Copies a stage: of DEPTH pixels the gradients of a tile's rows, then what its columns read. A thread has four neighbours of either. */
struct Loader {
    const sb_conv2d &conv;
    const sb_plane &in, &grad;
    bool vector_in, vector_grad; /* whether four neighbours are 16 aligned bytes */
    int depth, rows, cols;       /* which pixel of a stage; how many of the four there are */
    int64_t row;                 /* channel of the first */
    int down[V], along[V];       /* from where the window begins to the tap of a column, in pixels */
    int64_t channel[V];

    SB_DEVICE Loader(const sb_conv2d &conv_, const sb_plane &in_, const sb_plane &grad_, bool vector_in_, bool vector_grad_,
                     const Tile &tile)
        : conv(conv_), in(in_), grad(grad_), vector_in(vector_in_), vector_grad(vector_grad_), depth(thread_index() / PIECES) {
        const int piece = thread_index() % PIECES * V, first = tile.col + piece;
        row = (int64_t)tile.group * tile.out_group + tile.row + piece;
        rows = tile.out_group - tile.row - piece, cols = tile.length - first;
        SB_UNROLL
        for (int k = 0; k < V; ++k) {
            const int tap = (first + k) / tile.in_group;
            down[k] = tap / conv.kernel_w * conv.dilation_h - conv.pad_h;
            along[k] = tap % conv.kernel_w * conv.dilation_w - conv.pad_w;
            channel[k] = (int64_t)tile.group * tile.in_group + (first + k) % tile.in_group;
        }
    }

    SB_DEVICE void load(float *stage, const Pixels &pixels, bool there) const {
        const float *of_grad = nullptr, *image = nullptr;
        int64_t top = 0, left = 0;
        if (there)
            pixels.visit([&](int64_t n, int64_t y, int64_t x) {
                of_grad = pixel<const float>(grad, n, y, x) + row;
                image = pixel<const float>(in, n, 0, 0);
                top = y * conv.stride_h, left = x * conv.stride_w;
            });
        float *to_rows = stage + depth * ROWS + thread_index() % PIECES * V, *to_cols = to_rows + DEPTH * ROWS;
        if (vector_grad) copy<V>(to_rows, of_grad, rows > 0, grad);
        else
            SB_UNROLL
            for (int k = 0; k < V; ++k) copy<1>(to_rows + k, of_grad ? of_grad + k : nullptr, k < rows, grad);
        const auto source = [&](int k) -> const float * {
            const int64_t y = top + down[k], x = left + along[k];
            if (!image || y < 0 || y >= in.h || x < 0 || x >= in.w) return nullptr;
            return image + y * in.stride_y + x * in.stride_x + channel[k];
        };
        if (vector_in) copy<V>(to_cols, source(0), cols > 0, in);
        else
            SB_UNROLL
            for (int k = 0; k < V; ++k) copy<1>(to_cols + k, source(k), k < cols, in);
    }
    template <int N>
    SB_DEVICE static void copy(float *to, const float *from, bool valid, const sb_plane &plane) {
        copy_async<N * sizeof(float)>(to, from && valid ? from : (const float *)plane.data, from && valid);
    }
};

SB_DEVICE void run(const sb_conv2d &conv, const sb_plane &in, const sb_plane &grad, const sb_blocks &blocks, int shares, float *sums,
                   bool vector_in, bool vector_grad) {
    const Regions regions(blocks, grad);
    const int64_t pixels = regions.count() * regions.height() * regions.width();
    float *stages = (float *)shared_memory();
    Tile tile(conv, shares);
    const int row = thread_index() / PIECES * V, col = thread_index() % PIECES * V;
    for (int64_t i = group_index(); i < tile.work; i += group_count()) {
        tile.take(conv, i);
        const Share share(pixels, shares, DEPTH, tile.share);
        const Loader loader(conv, in, grad, vector_in, vector_grad, tile);
        Pixels place(regions, share.first + loader.depth);
        int64_t left = share.last - share.first - loader.depth; /* pixels from `place` on */
        const int chunks = (int)ceil_div(share.last - share.first, DEPTH);
        float sum[V][V] = {};
        for (int chunk = 1 - STAGES; chunk < chunks; ++chunk) {
            if (chunk >= 0) {
                wait_copies<STAGES - 2>();
                barrier(); /* the chunk is there, and the one before has been multiplied */
            }
            if (chunk + STAGES - 1 < chunks) {
                loader.load(stages + (uint32_t)(chunk + STAGES - 1) % STAGES * STAGE, place, left > 0);
                place.advance(DEPTH), left -= DEPTH;
            }
            commit_copies();
            if (chunk < 0) continue;
            const float *stage = stages + (uint32_t)chunk % STAGES * STAGE;
            SB_UNROLL
            for (int k = 0; k < DEPTH; ++k) {
                const Vector<float, V> a = load_vector<V>(stage + k * ROWS + row), b = load_vector<V>(stage + DEPTH * ROWS + k * COLS + col);
                SB_UNROLL
                for (int m = 0; m < V; ++m)
                    SB_UNROLL
                    for (int n = 0; n < V; ++n) sum[m][n] = fma(a[m], b[n], sum[m][n]);
            }
        }
        const int64_t first = tile.share * conv.out_channels + (int64_t)tile.group * tile.out_group;
        SB_UNROLL
        for (int m = 0; m < V; ++m)
            SB_UNROLL
            for (int n = 0; n < V; ++n)
                if (tile.row + row + m < tile.out_group && tile.col + col + n < tile.length)
                    sums[(first + tile.row + row + m) * tile.length + tile.col + col + n] = sum[m][n];
        barrier(); /* all stages have been multiplied */
    }
}

} // namespace sb::SB_NAME

/* sums: [shares][out channels][kernel_h][kernel_w][in channels of a group]. `vector_x`, `vector_grad`: whether the channels of a group lie
 * at multiples of 16 bytes. */
SB_ENTRY(sb_conv2d conv, sb_plane x, sb_plane grad, sb_blocks blocks, int32_t shares, float *sums, int32_t vector_x, int32_t vector_grad) {
    sb::await_kernels_before();
    sb::SB_NAME::run(conv, x, grad, blocks, shares, sums, vector_x != 0, vector_grad != 0);
}
