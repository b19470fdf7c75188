/* conv2d of one group on Hopper's tensor cores, sm_90a: the product of matrices of conv2d.cu, by wgmma on what the tensor memory
 * accelerator copies. A warp copies for two warpgroups that multiply; they meet at signals, not at barriers.
 *
 * A tile's rows are units: rectangles of 2^a x 2^b output pixels of a block. What a unit reads is one box of x, zeros where it lies
 * outside of it. With `shared` boxes (stride 1) one copy has all pixels that all taps read, and a tap is a shift within it: then the
 * eight rows of a matrix of eight lie side by side in x, and the next eight one line of the box below. Without, every tap has a copy
 * of its own, whose pixels are the unit's, close together.
 *
 * A stage of A is 64 channels of a tile's boxes, a stage of B the weights of a tap for these; rings hold as many as there is room for.
 * A value is summed over channels by 64, over taps, and over 16 channels at a time, whatever the units are. */
#include "epilogue.h"
#include "hopper.h"
#include "maps.h"

/* How a convolution is cut. */
struct sb_units {
    int32_t width_log, height_log; /* of a unit, pixels */
    int32_t across, down;          /* units of a block */
    int32_t shared;                /* whether a box serves all taps */
    int32_t pitch;                 /* pixels of a line of a box */
    int32_t box_bytes, unit_bytes; /* of a box, and from one to the next */
    int32_t stages_a, stages_b;
};

namespace sb::SB_NAME {

constexpr int ROWS = SB_ROWS, COLS = SB_COLS;
constexpr int WARPGROUP = 128, MULTIPLIERS = SB_THREADS / WARPGROUP - 1, WARPS = MULTIPLIERS * WARPGROUP / WARP;
constexpr int SQUARE = 64, DOWN = ROWS / SQUARE / MULTIPLIERS; /* rows of one product; as many of them has a warpgroup */
constexpr int LINE = 128, DEPTH = LINE / sizeof(SB_T), STEP = 32; /* bytes of a row; channels; bytes of a row in one product */
constexpr int STEPS = SB_STEPS; /* products of a row: fewer than are in it where channels end before */
constexpr int V = 16 / sizeof(SB_T);
constexpr int MOST_STAGES = 12;
constexpr int PASTED = 64, STAGING = 16 * PASTED; /* columns, and sums, of a warp that are stored at a time */
constexpr int RING = SB_SHARED - WARPS * STAGING * sizeof(float) - 4 * MOST_STAGES * sizeof(Signal);

/* A place in a ring of stages, and how often it went round. */
struct Turn {
    int stages, at = 0, round = 0;

    SB_DEVICE explicit Turn(int stages_) : stages(stages_) {}
    SB_DEVICE void advance() {
        if (++at == stages) at = 0, round ^= 1;
    }
};

/* Signals of a ring: a stage was filled, a stage was emptied by every warp. */
struct Ring {
    char *stages;
    int bytes;
    Signal *filled, *emptied;

    SB_DEVICE char *stage(const Turn &turn) const { return stages + turn.at * bytes; }
};

struct Unit {
    int n, y, x, bottom, right; /* output pixels: of the first, and where the block ends; n < 0: there is none */
};

struct Tiles {
    const sb_units &units;
    const Regions &regions;
    int in_tile, in_block, columns, all; /* units of a tile, of a block; tiles side by side; units */

    SB_DEVICE Tiles(const sb_units &units_, const Regions &regions_, int channels)
        : units(units_), regions(regions_), in_tile(ROWS >> (units.width_log + units.height_log)), in_block(units.across * units.down),
          columns((channels + COLS - 1) / COLS), all(shuffle((int)regions.count(), 0) * in_block) {}

    /* Tiles that follow each other read the same pixels. */
    SB_DEVICE int count() const { return (all + in_tile - 1) / in_tile * columns; }
    SB_DEVICE int column(int tile) const { return tile % columns * COLS; }
    /* Unit i of a tile. Found by division and from the list, so once: each lane keeps one. */
    SB_DEVICE Unit unit(int tile, int i) const {
        const int number = tile / columns * in_tile + i;
        if (i >= in_tile || number >= all) return {-1, 0, 0, 0, 0};
        const int in = number % in_block;
        const Region region(regions, number / in_block);
        const int y = (int)region.y0 + (in / units.across << units.height_log), x = (int)region.x0 + (in % units.across << units.width_log);
        if (y >= region.y1 || x >= region.x1) return {-1, 0, 0, 0, 0};
        return {(int)region.n, y, x, (int)region.y1, (int)region.x1};
    }
};

/* One warp: all boxes of all tiles, each of which one lane asks for. */
SB_DEVICE void copy(const sb_conv2d &conv, const sb_units &units, const Tiles &tiles, const TensorMap &x, const TensorMap &weights,
                    const Ring &a, const Ring &b) {
    const int taps = conv.kernel_h * conv.kernel_w, loads = units.shared ? 1 : taps, lane = lane_index();
    Turn of_a(units.stages_a), of_b(units.stages_b);
    const int count = tiles.count();
    for (int tile = (int)group_index(); tile < count; tile += (int)group_count()) {
        const Unit unit = tiles.unit(tile, lane);
        const int boxes = bit_count(vote(unit.n >= 0)), top = unit.y * conv.stride_h - conv.pad_h, left = unit.x * conv.stride_w - conv.pad_w;
        for (int channel = 0; channel < conv.in_channels; channel += DEPTH)
            for (int load = 0; load < loads; ++load) {
                wait(&a.emptied[of_a.at], of_a.round ^ 1);
                if (lane == 0) arrive_and_expect(&a.filled[of_a.at], boxes * units.box_bytes);
                warp_barrier();
                const int ky = load / conv.kernel_w, kx = load % conv.kernel_w;
                if (unit.n >= 0)
                    copy_box(a.stage(of_a) + lane * units.unit_bytes, x, &a.filled[of_a.at], channel, left + kx * conv.dilation_w,
                             top + ky * conv.dilation_h, unit.n);
                of_a.advance();
                for (int tap = load; tap < (units.shared ? taps : load + 1); ++tap) {
                    wait(&b.emptied[of_b.at], of_b.round ^ 1);
                    if (lane == 0) {
                        arrive_and_expect(&b.filled[of_b.at], COLS * LINE);
                        copy_box(b.stage(of_b), weights, &b.filled[of_b.at], channel, tiles.column(tile), tap, 0);
                    }
                    of_b.advance();
                }
            }
    }
}

/* A warpgroup's share of a tile: DOWN x 64 rows. */
struct Share {
    const sb_units &units;
    int first; /* square of the tile */

    /* Bytes from the beginning of a stage of A to square i's first row of the first tap. */
    SB_DEVICE int square(int i) const {
        const int square = first + i;
        if (!units.shared) return square * SQUARE * LINE;
        const int along = units.width_log - 3, in = square & ((1 << (along + units.height_log - 3)) - 1);
        const int y = in >> along << 3, x = (in & ((1 << along) - 1)) << 3;
        return (square >> (along + units.height_log - 3)) * units.unit_bytes + (y * units.pitch + x) * LINE;
    }
    /* The unit of a row of square i, and its pixel there. */
    SB_DEVICE void pixel(int i, int row, int &unit, int &y, int &x) const {
        const int square = first + i;
        if (units.shared) {
            const int along = units.width_log - 3, in = square & ((1 << (along + units.height_log - 3)) - 1);
            unit = square >> (along + units.height_log - 3);
            y = (in >> along << 3) + row / 8, x = ((in & ((1 << along) - 1)) << 3) + row % 8;
        } else {
            const int all = square * SQUARE + row, in = all & ((1 << (units.width_log + units.height_log)) - 1);
            unit = all >> (units.width_log + units.height_log);
            y = in >> units.width_log, x = in & ((1 << units.width_log) - 1);
        }
    }
};

typedef float Sums[DOWN][COLS / 8][4];

/* The sums of a tile. Stages are given back when the products that read them are known to have ended: one product later. */
SB_DEVICE void multiply(Sums &sums, const sb_conv2d &conv, const Share &share, const Ring &a, Turn &of_a, const Ring &b, Turn &of_b) {
    const sb_units &units = share.units;
    const int taps = conv.kernel_h * conv.kernel_w, loads = units.shared ? 1 : taps;
    const int group_bytes = (units.shared ? units.pitch : 8) * LINE;
    const bool speaks = lane_index() == 0;
    Signal *last_a = nullptr, *last_b = nullptr; /* that the products before still read */
    SB_UNROLL
    for (int i = 0; i < DOWN; ++i) hold(sums[i]);
    for (int channel = 0; channel < conv.in_channels; channel += DEPTH) {
        for (int load = 0; load < loads; ++load) {
            wait(&a.filled[of_a.at], of_a.round);
            for (int tap = load; tap < (units.shared ? taps : load + 1); ++tap) {
                wait(&b.filled[of_b.at], of_b.round);
                const int shift =
                    units.shared ? (tap / conv.kernel_w * conv.dilation_h * units.pitch + tap % conv.kernel_w * conv.dilation_w) * LINE : 0;
                const Matrix of_rows = matrix(a.stage(of_a) + shift, group_bytes), of_cols = matrix(b.stage(of_b), 8 * LINE);
                begin_products();
                SB_UNROLL
                for (int step = 0; step < STEPS; ++step) /* a condition here would make products wait for each other */
                    SB_UNROLL
                    for (int i = 0; i < DOWN; ++i)
                        multiply_add(sums[i], ahead(of_rows, share.square(i) + step * STEP), ahead(of_cols, step * STEP), SB_T());
                commit_products();
                wait_products<1>();
                if (speaks && last_b) arrive(last_b);
                if (speaks && last_a) arrive(last_a);
                last_b = &b.emptied[of_b.at], last_a = nullptr;
                of_b.advance();
            }
            last_a = &a.emptied[of_a.at];
            of_a.advance();
        }
    }
    wait_products<0>();
    SB_UNROLL
    for (int i = 0; i < DOWN; ++i) hold(sums[i]);
    if (speaks) arrive(last_b), arrive(last_a);
}

/* Where a sum is kept to be stored, of 16 rows and PASTED columns: eight by eight in another place of every row, for the banks. */
SB_DEVICE float *sum_of(float *staging, int row, int col) { return staging + row * PASTED + ((col / 8 ^ row % 8) * 8 + col % 8); }

SB_DEVICE void put(const float (&sums)[COLS / 8][4], int part, float *staging) {
    const int lane = lane_index();
    SB_UNROLL
    for (int k = 0; k < PASTED / 8; ++k)
        SB_UNROLL
        for (int r = 0; r < 2; ++r) {
            const float(&four)[4] = sums[part * (PASTED / 8) + k];
            store_vector(sum_of(staging, lane / 4 + 8 * r, 8 * k + lane % 4 * 2), Vector<float, 2>{{four[2 * r], four[2 * r + 1]}});
        }
}

/* `mine` is the unit that a lane keeps. */
SB_DEVICE void store(const Sums &sums, float *staging, const sb_epilogue &epilogue, const sb_plane &residual, bool combined,
                     const sb_plane &out, bool vector, int column, const Share &share, const Unit &mine) {
    constexpr int LANES = PASTED / V, PARTS = COLS / PASTED, PASSES = 16 * LANES / WARP; /* that store a row; rows of a lane */
    const int lane = lane_index(), warp = thread_index() / WARP % 4, channels = out.c;
    const bool relu = epilogue.activation == SB_RELU, affine = epilogue.scale || epilogue.shift;
    const bool plain = (relu || epilogue.activation == SB_IDENTITY) && epilogue.combine == SB_ADD; /* finish() without its choices */
    SB_NO_UNROLL
    for (int turn = 0; turn < DOWN * PARTS; ++turn) {
        warp_barrier(); /* what was there has been stored */
        SB_UNROLL
        for (int i = 0; i < DOWN; ++i)
            SB_UNROLL
            for (int part = 0; part < PARTS; ++part)
                if (turn == i * PARTS + part) put(sums[i], part, staging);
        warp_barrier();
        const int c = column + turn % PARTS * PASTED + lane % LANES * V, there = (int)minimum(channels - c, V);
        SB_T *to[PASSES];
        const SB_T *second[PASSES];
        SB_UNROLL
        for (int pass = 0; pass < PASSES; ++pass) {
            int number, y, x;
            share.pixel(turn / PARTS, warp * 16 + pass * (WARP / LANES) + lane / LANES, number, y, x);
            const int n = shuffle(mine.n, number), bottom = shuffle(mine.bottom, number), right = shuffle(mine.right, number);
            y += shuffle(mine.y, number), x += shuffle(mine.x, number);
            const bool stored = n >= 0 && y < bottom && x < right && there > 0;
            to[pass] = stored ? pixel<SB_T>(out, n, y, x) + c : nullptr;
            second[pass] = stored && combined ? pixel<SB_T>(residual, n, y, x) + c * residual.stride_c : to[pass];
        }
        if (!plain) {
            SB_NO_UNROLL
            for (int i = 0; i < PASSES * V; ++i) {
                const int pass = i / V, k = i % V;
                SB_T *place = nullptr;
                const SB_T *other = nullptr;
                SB_UNROLL
                for (int p = 0; p < PASSES; ++p)
                    if (p == pass) place = to[p], other = second[p];
                if (!place || k >= there) continue;
                const float sum = *sum_of(staging, pass * (WARP / LANES) + lane / LANES, lane % LANES * V + k);
                place[k] = from_float<SB_T>(finish(sum, combined, combined ? to_float(other[k * residual.stride_c]) : 0.0f, epilogue, c + k));
            }
            continue;
        }
        float bias[V], scale[V], shift[V];
        SB_UNROLL
        for (int k = 0; k < V; ++k) {
            bias[k] = epilogue.bias && k < there ? epilogue.bias[c + k] : 0.0f;
            scale[k] = epilogue.scale && k < there ? epilogue.scale[c + k] : 1.0f;
            shift[k] = epilogue.shift && k < there ? epilogue.shift[c + k] : 0.0f;
        }
        SB_UNROLL
        for (int pass = 0; pass < PASSES; ++pass) {
            if (!to[pass]) continue;
            const float *sum = sum_of(staging, pass * (WARP / LANES) + lane / LANES, lane % LANES * V);
            Vector<SB_T, V> values = {};
            if (combined && vector) values = load_vector<V>(second[pass]);
            else if (combined)
                SB_UNROLL
                for (int k = 0; k < V; ++k)
                    if (k < there) values[k] = second[pass][k * residual.stride_c];
            SB_UNROLL
            for (int k = 0; k < V; ++k) {
                float v = sum[k];
                if (epilogue.bias) v += bias[k];
                if (combined) v += to_float(values[k]);
                if (affine) v = fma(v, scale[k], shift[k]);
                values[k] = from_float<SB_T>(relu ? at_least(0.0f, v) : v);
            }
            if (vector) store_vector(to[pass], values);
            else
                SB_UNROLL
                for (int k = 0; k < V; ++k)
                    if (k < there) to[pass][k] = values[k];
        }
    }
}

SB_DEVICE void run(const sb_conv2d &conv, const sb_epilogue &epilogue, const sb_units &units, const TensorMap &x, const TensorMap &weights,
                   const sb_plane &residual, bool combined, const sb_blocks &blocks, const sb_plane &out, bool vector) {
    static_assert(DOWN * SQUARE * MULTIPLIERS == ROWS && COLS % PASTED == 0, "warpgroups share a tile evenly");
    char *shared = shared_memory();
    float *staging = (float *)(shared + RING);
    Signal *signals = (Signal *)(staging + WARPS * STAGING);
    const int a_bytes = (ROWS >> (units.width_log + units.height_log)) * units.unit_bytes;
    const Ring a = {shared, a_bytes, signals, signals + MOST_STAGES};
    const Ring b = {shared + units.stages_a * a_bytes, COLS * LINE, signals + 2 * MOST_STAGES, signals + 3 * MOST_STAGES};
    const int thread = thread_index();
    const Regions regions(blocks, out);
    const Tiles tiles(units, regions, out.c); /* what it reads comes while signals are prepared */
    if (thread == 0) prefetch(x), prefetch(weights);
    if (thread < MOST_STAGES) {
        prepare(&a.filled[thread], 1), prepare(&a.emptied[thread], WARPS);
        prepare(&b.filled[thread], 1), prepare(&b.emptied[thread], WARPS);
        signals_are_prepared();
    }
    barrier();
    const int warpgroup = shuffle(thread / WARPGROUP, 0); /* which the compiler now knows to be the same in a warp */
    if (warpgroup == 0) {
        give_registers_back<40>();
        if (thread < WARP) copy(conv, units, tiles, x, weights, a, b);
    } else {
        take_registers<232>();
        const Share share = {units, (warpgroup - 1) * DOWN};
        Turn of_a(units.stages_a), of_b(units.stages_b);
        const int count = tiles.count();
        for (int tile = (int)group_index(); tile < count; tile += (int)group_count()) {
            const Unit mine = tiles.unit(tile, lane_index());
            Sums sums = {};
            multiply(sums, conv, share, a, of_a, b, of_b);
            store(sums, staging + (thread - WARPGROUP) / WARP * STAGING, epilogue, residual, combined, out, vector, tiles.column(tile), share,
                  mine);
        }
    }
}

} // namespace sb::SB_NAME

/* `vector`: whether out and the residual lie at multiples of 16 bytes. */
SB_ENTRY(sb_conv2d conv, sb_epilogue epilogue, sb_units units, SB_CONSTANT sb::TensorMap x, SB_CONSTANT sb::TensorMap weights,
         sb_plane residual, int32_t combined, sb_blocks blocks, sb_plane out, int32_t vector) {
    sb::SB_NAME::run(conv, epilogue, units, x, weights, residual, combined != 0, blocks, out, vector != 0);
}
