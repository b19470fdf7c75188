/* conv2d and conv_transpose2d as one product of matrices: rows are the pixels of all active blocks one after another, so that small
 * blocks fill tiles too; columns are the output channels of a group; the sum goes over taps and input channels. Nothing is unfolded in
 * memory: threads copy 16 bytes of channels of a tap's pixel where a tile of the unfolded matrix would have them.
 *
 * A group computes tiles of SB_ROWS x SB_COLS. A stage of the sum is 64 bytes of every row and column, copied while STAGES - 1 others
 * are multiplied: by tensor cores where SB_PRODUCT is half, bfloat16 or tf32, or one by one in float. Where channels do not lie at
 * multiples of 16 bytes (`vector` 0), elements are read one by one, and the sum still has no gaps: few channels cost as few.
 *
 * A value is summed in an order that depends on its taps alone. Weights are [groups, kernel_h, kernel_w, out, in], stored as maps are. */
#include "conv2d.h"
#include "epilogue.h"

namespace sb::SB_NAME {

constexpr int ROWS = SB_ROWS, COLS = SB_COLS;
constexpr int V = 16 / sizeof(SB_T), PIECES = 4, DEPTH = PIECES * V; /* elements of 16 bytes, of which a stage has four */
constexpr int STAGES = 4, STAGE = (ROWS + COLS) * DEPTH;
constexpr int PASS = SB_THREADS / PIECES; /* rows or columns that a group copies at a time */
constexpr int ROW_PASSES = ROWS / PASS, COL_PASSES = (COLS + PASS - 1) / PASS;
static_assert(ROWS % PASS == 0, "every thread copies the same number of rows");

/* Where 16 bytes of a row or column lie in a stage: eight rows' same pieces lie in different banks. */
SB_DEVICE SB_T *piece_of(SB_T *matrix, int row, int piece) { return matrix + row * DEPTH + (piece ^ (int)((uint32_t)row / 2 % PIECES)) * V; }

/* An output pixel; n < 0: none. */
struct Place {
    int32_t n, y, x;
};

/* What it reads: an image and the pixel of the first tap. NULL: nothing. */
struct alignas(16) Source {
    const SB_T *image;
    int32_t top, left;
};

/* A tile of the product, and which pixels its rows are. */
struct Tile {
    const Regions &regions;
    Axis y_axis, x_axis;
    int height, width; /* of a block, in pixels of one phase */
    int out_group, col_tiles;
    int phase_y, phase_x, group, col;
    int64_t row;

    SB_DEVICE Tile(const sb_conv2d &conv, const Regions &regions_)
        : regions(regions_), y_axis(axis_y(conv)), x_axis(axis_x(conv)), height((int)ceil_div(regions.height(), y_axis.phases())),
          width((int)ceil_div(regions.width(), x_axis.phases())), out_group(conv.out_channels / conv.groups),
          col_tiles((int)ceil_div(out_group, COLS)) {}

    SB_DEVICE int64_t count(const sb_conv2d &conv) const {
        return ceil_div(regions.count() * height * width, ROWS) * col_tiles * conv.groups * y_axis.phases() * x_axis.phases();
    }
    /* Tiles that follow each other read the same pixels. */
    SB_DEVICE void take(const sb_conv2d &conv, int64_t i) {
        col = (int)(i % col_tiles) * COLS, i /= col_tiles;
        group = (int)(i % conv.groups), i /= conv.groups;
        phase_x = (int)(i % x_axis.phases()), i /= x_axis.phases();
        phase_y = (int)(i % y_axis.phases()), i /= y_axis.phases();
        row = i * ROWS;
    }
    SB_DEVICE Place place(int i) const {
        const int64_t area = (int64_t)height * width, block = (row + i) / area, pixel = (row + i) % area;
        if (block >= regions.count()) return {-1, 0, 0};
        const Region region(regions, block);
        const int64_t y = first_of_phase(region.y0, phase_y, y_axis.phases()) + pixel / width * y_axis.phases();
        const int64_t x = first_of_phase(region.x0, phase_x, x_axis.phases()) + pixel % width * x_axis.phases();
        if (y >= region.y1 || x >= region.x1) return {-1, 0, 0};
        return {(int32_t)region.n, (int32_t)y, (int32_t)x};
    }
    SB_DEVICE Source source(const sb_conv2d &conv, const sb_plane &in, const Place &place) const {
        if (place.n < 0) return {nullptr, 0, 0};
        return {pixel<SB_T>(in, place.n, 0, 0) + (int64_t)group * (conv.in_channels / conv.groups),
                (int32_t)y_axis.own(place.y) + y_axis.taps(phase_y).offset, (int32_t)x_axis.own(place.x) + x_axis.taps(phase_x).offset};
    }
};

/* A place in the sum: a tap, and a channel of the group. */
struct Term {
    int y, x, channel;

    SB_DEVICE void advance(int by, int channels, int taps_x) {
        channel += by;
        while (channel >= channels) {
            channel -= channels;
            if (++x == taps_x) x = 0, ++y;
        }
    }
};

/* Copies stages of a tile into shared memory; a thread always the same 16 bytes of them, of rows and columns PASS apart. Where they are
 * is computed when the tap changes, for all of them before the first is copied: a tap is several stages, most of the time. */
struct Loader {
    const sb_conv2d &conv;
    const sb_plane &in;
    bool vector;
    const Source *sources;               /* of the rows, from `first` on */
    int channels, first, place;          /* of the group; which row and column; where its 16 bytes are in a stage */
    int taps_y, taps_x, step_y, step_x;  /* of the phase; input pixels from one to the next */
    const SB_T *weights;                 /* of the group, column `first`, the phase's first tap */
    int weights_down, weights_along, tap; /* taps of the weights from one to the next, and how long one is */
    int cols;                            /* from `first` on that there are */
    Term term = {0, 0, 0};
    const SB_T *row[ROW_PASSES], *col; /* of the term's tap, channel 0; NULL where it counts as zero */

    SB_DEVICE Loader(const sb_conv2d &conv_, const sb_plane &in_, bool vector_, const Tile &tile, const Source *sources_, uint32_t thread)
        : conv(conv_), in(in_), vector(vector_), channels(conv.in_channels / conv.groups), first((int)(thread / PIECES)),
          cols(tile.out_group - tile.col - first) {
        const int piece = (int)(thread % PIECES);
        const Taps y = tile.y_axis.taps(tile.phase_y), x = tile.x_axis.taps(tile.phase_x);
        taps_y = y.count, taps_x = x.count, step_y = y.offset_step, step_x = x.offset_step;
        tap = tile.out_group * channels;
        weights = (const SB_T *)conv.packed_weight + (int64_t)((tile.group * conv.kernel_h + y.first) * conv.kernel_w + x.first) * tap +
                  (tile.col + first) * channels;
        weights_down = y.step * conv.kernel_w, weights_along = x.step;
        sources = sources_ + first;
        place = (int)(piece_of((SB_T *)nullptr, first, piece) - (SB_T *)nullptr);
        term.advance(piece * V, channels, taps_x);
        take_tap();
    }

    SB_DEVICE int depth() const { return taps_y * taps_x * channels; }

    /* A row's pixel of the term's tap, or a column's weights; NULL where it counts as zero. */
    SB_DEVICE const SB_T *of_row(const Source &source) const {
        if (term.y >= taps_y || !source.image) return nullptr;
        int y = source.top + term.y * step_y, x = source.left + term.x * step_x;
        if (conv.pad_mode != SB_PAD_CONSTANT)
            y = pad_source(y, in.h, conv.pad_mode), x = pad_source(x, in.w, conv.pad_mode);
        if (y < 0 || y >= in.h || x < 0 || x >= in.w) return nullptr;
        return source.image + y * in.stride_y + x * in.stride_x;
    }
    SB_DEVICE const SB_T *of_col() const {
        return term.y < taps_y ? weights + (int64_t)(term.y * weights_down + term.x * weights_along) * tap : nullptr;
    }
    SB_DEVICE void take_tap() {
        SB_UNROLL
        for (int pass = 0; pass < ROW_PASSES; ++pass) row[pass] = of_row(sources[pass * PASS]);
        col = of_col();
    }
    SB_DEVICE void advance(int by) {
        const bool leaves = term.channel + by >= channels;
        term.advance(by, channels, taps_x);
        if (leaves) take_tap();
    }

    /* The next stage. */
    SB_DEVICE void load(SB_T *stage) {
        static_assert(PASS % (2 * PIECES) == 0, "in all passes a piece lies in the same place of its row");
        SB_T *to_rows = stage + place, *to_cols = to_rows + ROWS * DEPTH;
        SB_NO_UNROLL
        for (int i = 0; i < V; i += vector ? V : 1) {
            if (vector) {
                SB_UNROLL
                for (int pass = 0; pass < ROW_PASSES; ++pass) copy(to_rows + pass * PASS * DEPTH, row[pass], row[pass]);
                SB_UNROLL
                for (int pass = 0; pass < COL_PASSES; ++pass)
                    if (has_col(pass)) copy(to_cols + pass * PASS * DEPTH, col + pass * PASS * channels, col && pass * PASS < cols);
            } else {
                SB_T of_rows[ROW_PASSES], of_cols[COL_PASSES];
                SB_UNROLL
                for (int pass = 0; pass < ROW_PASSES; ++pass) of_rows[pass] = row[pass] ? row[pass][term.channel] : SB_T{};
                SB_UNROLL
                for (int pass = 0; pass < COL_PASSES; ++pass)
                    of_cols[pass] = col && pass * PASS < cols ? col[pass * PASS * channels + term.channel] : SB_T{};
                SB_UNROLL
                for (int pass = 0; pass < ROW_PASSES; ++pass) to_rows[pass * PASS * DEPTH + i] = of_rows[pass];
                SB_UNROLL
                for (int pass = 0; pass < COL_PASSES; ++pass)
                    if (has_col(pass)) to_cols[pass * PASS * DEPTH + i] = of_cols[pass];
            }
            advance(vector ? DEPTH : i < V - 1 ? 1 : DEPTH - V + 1);
        }
    }

    /* Whether a thread has a column of a pass: where tiles have fewer than a group copies at a time, not all have. */
    SB_DEVICE bool has_col(int pass) const { return COLS % PASS == 0 || first + pass * PASS < COLS; }
    SB_DEVICE void copy(SB_T *to, const SB_T *from, bool valid) const {
        copy_async<16>(to, valid ? from + term.channel : (const SB_T *)conv.packed_weight, valid);
    }
};

/* Where a tile's sum is kept when all are there: eight by eight in another place of every row, for the banks. */
SB_DEVICE float *sum_of(float *sums, int row, int col) { return sums + row * COLS + ((col / 8 ^ row % 4) * 8 + col % 8); }

/* Makes of a tile's sums what is stored. `first` is the tile's first channel, of `channels` that are left of the group. */
SB_DEVICE void store(float *sums, const sb_epilogue &epilogue, const sb_plane &residual, bool combined, const sb_plane &out, bool vector,
                     const Place *places, int first, int channels) {
    SB_NO_UNROLL
    for (int i = thread_index(); i < ROWS * (COLS / V); i += SB_THREADS) {
        const int row = i / (COLS / V), col = i % (COLS / V) * V, there = (int)minimum(channels - col, V);
        const Place place = places[row];
        if (place.n < 0 || there <= 0) continue;
        const int64_t c = first + col;
        SB_T *to = pixel<SB_T>(out, place.n, place.y, place.x) + c;
        const SB_T *second = combined ? pixel<SB_T>(residual, place.n, place.y, place.x) + c * residual.stride_c : to;
        const float *sum = sum_of(sums, row, col);
        if (vector) {
            Vector<SB_T, V> values = {};
            if (combined) values = load_vector<V>(second);
            SB_UNROLL
            for (int k = 0; k < V; ++k)
                values[k] = from_float<SB_T>(finish(sum[k], combined, to_float(values[k]), epilogue, c + k));
            store_vector(to, values);
        } else
            SB_NO_UNROLL
            for (int k = 0; k < there; ++k) {
                const float other = combined ? to_float(second[k * residual.stride_c]) : 0.0f;
                to[k] = from_float<SB_T>(finish(sum[k], combined, other, epilogue, c + k));
            }
    }
}

/* The sums of a tile by tensor cores: a warp has those of a rectangle, in squares of 16 x 8. */
template <class M, int THREADS = SB_THREADS>
struct Sums {
    static constexpr int WARPS_ALONG = COLS > 64 ? COLS / 64 : 1, WARPS_DOWN = THREADS / WARP / WARPS_ALONG;
    static constexpr int HEIGHT = ROWS / WARPS_DOWN, WIDTH = COLS / WARPS_ALONG, DOWN = HEIGHT / 16, ALONG = WIDTH / 8;
    float sums[DOWN][ALONG][4] = {};

    SB_DEVICE static int row(uint32_t thread) { return (int)(thread / WARP / WARPS_ALONG) * HEIGHT; }
    SB_DEVICE static int col(uint32_t thread) { return (int)(thread / WARP % WARPS_ALONG) * WIDTH; }

    SB_DEVICE void add(SB_T *stage, uint32_t thread) {
        const int lane = (int)(thread % WARP), first_row = row(thread) + lane % 16, first_col = col(thread) + lane / 16 * 8 + lane % 8;
        SB_UNROLL
        for (int piece = 0; piece < PIECES; piece += 2) { /* a product is two pieces deep */
            uint32_t b[ALONG][2];
            SB_UNROLL
            for (int k = 0; k < ALONG; k += 2) {
                uint32_t two[4];
                load_matrix(two, piece_of(stage + ROWS * DEPTH, first_col + 8 * k, piece + lane / 8 % 2));
                round(two);
                b[k][0] = two[0], b[k][1] = two[1], b[k + 1][0] = two[2], b[k + 1][1] = two[3];
            }
            SB_UNROLL
            for (int i = 0; i < DOWN; ++i) {
                uint32_t a[4];
                load_matrix(a, piece_of(stage, first_row + 16 * i, piece + lane / 16));
                round(a);
                SB_UNROLL
                for (int k = 0; k < ALONG; ++k) multiply_add(sums[i][k], a, b[k], M());
            }
        }
    }
    /* What tensor cores would cut off of a float. */
    SB_DEVICE static void round(uint32_t (&values)[4]) {
        if (sizeof(SB_T) < 4) return;
        SB_UNROLL
        for (int i = 0; i < 4; ++i) values[i] = tf32_of_float(float_of_bits(values[i]));
    }

    SB_DEVICE void put(float *to, uint32_t thread) const {
        const int first_row = row(thread) + (int)(thread % WARP / 4), first_col = col(thread) + (int)(thread % 4 * 2);
        SB_UNROLL
        for (int i = 0; i < DOWN; ++i)
            SB_UNROLL
            for (int k = 0; k < ALONG; ++k)
                SB_UNROLL
                for (int r = 0; r < 4; ++r) *sum_of(to, first_row + 16 * i + r / 2 * 8, first_col + 8 * k + r % 2) = sums[i][k][r];
    }
};

/* The same by one product after another, in the order of the terms; a thread has sums of rows and columns 16 apart. */
template <>
struct Sums<float> {
    static constexpr int SIDE = 16, DOWN = ROWS / SIDE, ALONG = COLS / SIDE;
    float sums[DOWN][ALONG] = {};

    SB_DEVICE void add(SB_T *stage, uint32_t thread) {
        const int row = (int)(thread / SIDE), col = (int)(thread % SIDE);
        for (int piece = 0; piece < PIECES; ++piece) {
            Vector<SB_T, V> a[DOWN], b[ALONG];
            SB_UNROLL
            for (int i = 0; i < DOWN; ++i) a[i] = load_vector<V>(piece_of(stage, row + SIDE * i, piece));
            SB_UNROLL
            for (int k = 0; k < ALONG; ++k) b[k] = load_vector<V>(piece_of(stage + ROWS * DEPTH, col + SIDE * k, piece));
            SB_UNROLL
            for (int v = 0; v < V; ++v)
                SB_UNROLL
                for (int i = 0; i < DOWN; ++i)
                    SB_UNROLL
                    for (int k = 0; k < ALONG; ++k) sums[i][k] = fma(to_float(a[i][v]), to_float(b[k][v]), sums[i][k]);
        }
    }
    SB_DEVICE void put(float *to, uint32_t thread) const {
        const int row = (int)(thread / SIDE), col = (int)(thread % SIDE);
        SB_UNROLL
        for (int i = 0; i < DOWN; ++i)
            SB_UNROLL
            for (int k = 0; k < ALONG; ++k) *sum_of(to, row + SIDE * i, col + SIDE * k) = sums[i][k];
    }
};

SB_DEVICE void run(const sb_conv2d &conv, const sb_epilogue &epilogue, const sb_plane &in, const sb_plane &residual, bool combined,
                   const sb_blocks &blocks, const sb_plane &out, bool vector, bool vector_out) {
    static_assert(ROWS * COLS * sizeof(float) <= STAGES * STAGE * sizeof(SB_T), "sums are kept where the stages were");
    static_assert(SB_SHARED == STAGES * STAGE * sizeof(SB_T) + ROWS * (sizeof(Source) + sizeof(Place)), "and what rows are");
    const Regions regions(blocks, out);
    SB_T *stages = (SB_T *)shared_memory();
    Source *sources = (Source *)(stages + STAGES * STAGE);
    Place *places = (Place *)(sources + ROWS);
    for (int i = (int)group_index();; i += (int)group_count()) {
        Tile tile(conv, regions);
        if (i >= tile.count(conv)) return;
        tile.take(conv, i);
        const int thread = opaque(thread_index());
        SB_NO_UNROLL
        for (int row = thread; row < ROWS; row += SB_THREADS) {
            places[row] = tile.place(row);
            sources[row] = tile.source(conv, in, places[row]);
        }
        barrier();
        Loader loader(conv, in, vector, tile, sources, thread);
        const int chunks = (int)ceil_div(loader.depth(), DEPTH);
        Sums<SB_PRODUCT> sums;
        for (int chunk = 1 - STAGES; chunk < chunks; ++chunk) {
            if (chunk >= 0) {
                wait_copies<STAGES - 2>();
                barrier(); /* the chunk is there, and the one before has been multiplied */
            }
            if (chunk + STAGES - 1 < chunks) loader.load(stages + (uint32_t)(chunk + STAGES - 1) % STAGES * STAGE);
            commit_copies();
            if (chunk >= 0) sums.add(stages + (uint32_t)chunk % STAGES * STAGE, thread);
        }
        barrier(); /* all stages have been multiplied */
        sums.put((float *)stages, opaque(thread));
        barrier();
        tile.take(conv, opaque(i)); /* anew, so that it lay in no registers meanwhile */
        const int first = tile.group * tile.out_group + tile.col;
        store((float *)stages, epilogue, residual, combined, out, vector_out, places, first, tile.out_group - tile.col);
        barrier(); /* the pixels of this tile are known no more */
    }
}

} // namespace sb::SB_NAME

/* `vector`: whether x and the weights, `vector_out` whether out and the residual lie at multiples of 16 bytes in every group. */
SB_ENTRY(sb_conv2d conv, sb_epilogue epilogue, sb_plane x, sb_plane residual, int32_t combined, sb_blocks blocks, sb_plane out,
         int32_t vector, int32_t vector_out) {
    sb::await_kernels_before();
    sb::SB_NAME::run(conv, epilogue, x, residual, combined != 0, blocks, out, vector != 0, vector_out != 0);
}
