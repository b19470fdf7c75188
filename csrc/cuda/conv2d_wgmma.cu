/* conv2d of one group on Hopper's tensor cores, sm_90a: the product of matrices of conv2d.cu, by wgmma on what the tensor memory
 * accelerator copies. A warpgroup copies for two that multiply; they meet at signals, not at barriers.
 *
 * A tile's rows are units: rectangles of 2^a x 2^b output pixels of a block. What a unit reads is one box of x, zeros where it lies
 * outside of it. With `shared` boxes (stride 1) one copy has all pixels that all taps read, and a tap is a shift within it: then the
 * eight rows of a matrix of eight lie side by side in x, and the next eight one line of the box below. Without, every tap has a copy
 * of its own, whose pixels are the unit's, close together: a box, or, of units so small that a box takes longer than its pixels, rows
 * that are `gathered`.
 *
 * A stage of A is 64 channels of a tile's boxes, a stage of B the weights of a tap for these; rings hold as many as there is room for.
 * A value is summed over channels by 64, over taps, and over 16 channels at a time, whatever the units and tiles are. So tiles are as
 * large as the number of active blocks has use for, which is known here alone.
 *
 * What the kernels before do not write, the list of blocks and the weights, is read before they have ended. */
#include "epilogue.h"
#include "hopper.h"
#include "maps.h"

/* How a convolution is cut. */
struct sb_units {
    int32_t width_log, height_log; /* of a unit, pixels */
    int32_t across, down;          /* units of a block */
    int32_t shared, gathered;      /* whether a box serves all taps; whether there are rows instead */
    int32_t pitch;                 /* pixels of a line of a box */
    int32_t box_bytes, unit_bytes; /* of a box, and from one to the next */
    int32_t stages[3][2];          /* of A and of B, by tiles: 256 x SB_COLS, 128 x SB_COLS, 128 x 64 */
};

namespace sb::SB_NAME {

constexpr int WARPGROUP = 128, MULTIPLIERS = SB_THREADS / WARPGROUP - 1, WARPS = MULTIPLIERS * WARPGROUP / WARP;
constexpr int SQUARE = 64; /* rows of one product */
constexpr int LINE = 128, DEPTH = LINE / sizeof(SB_T), STEP = 32; /* bytes of a row; channels; bytes of a row in one product */
constexpr int STEPS = SB_STEPS; /* products of a row: fewer than are in it where channels end before */
constexpr int V = 16 / sizeof(SB_T);
constexpr int MOST_STAGES = 12;
constexpr int PASTED = 64, STAGING = 16 * PASTED; /* columns, and sums, of a warp that are stored at a time */
constexpr int SIGNALS = SB_SHARED - 4 * MOST_STAGES * SIGNAL, RING = SIGNALS - WARPS * STAGING * (int)sizeof(float); /* bytes before them */
constexpr int ENDS = 4096; /* what beginning and ending a tile takes, in products of a row and a column */

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
    SharedAddress stages;
    int count, bytes;
    SharedAddress signals; /* of stages that are filled, and then of those that are emptied */

    SB_DEVICE SharedAddress stage(const Turn &turn) const { return stages + turn.at * bytes; }
    SB_DEVICE SharedAddress filled(const Turn &turn) const { return signals + turn.at * SIGNAL; }
    SB_DEVICE SharedAddress emptied(const Turn &turn) const { return signals + (MOST_STAGES + turn.at) * SIGNAL; }
};

struct Unit {
    int n, y, x, bottom, right; /* output pixels: of the first, and where the block ends; n < 0: there is none */
};

/* The units of all active blocks in tiles of ROWS pixels and COLS channels. */
template <int ROWS, int COLS>
struct Tiles {
    static constexpr int LOG = ROWS == 256 ? 8 : 7;
    static_assert(ROWS == 1 << LOG, "tiles have 128 or 256 rows");
    static constexpr int DOWN = ROWS / SQUARE / MULTIPLIERS; /* products side by side that a warpgroup has */
    static_assert(DOWN * SQUARE * MULTIPLIERS == ROWS && COLS % PASTED == 0, "warpgroups share a tile evenly");
    typedef float Sums[DOWN][COLS / 8][4];

    const sb_units &units;
    const Regions &regions;
    int in_tile_log, all = 0; /* units */
    Divisor columns, in_block, across; /* tiles side by side; units of a block, of its rows */

    SB_DEVICE Tiles(const sb_units &units_, const Regions &regions_)
        : units(units_), regions(regions_), in_tile_log(LOG - units.width_log - units.height_log),
          columns((regions.out.c + COLS - 1) / COLS), in_block(units.across * units.down), across(units.across) {}
    SB_DEVICE void begin(int blocks) { all = blocks * (int)in_block.by; }

    /* Tiles that follow each other read the same pixels. */
    SB_DEVICE int in_tile() const { return 1 << in_tile_log; }
    SB_DEVICE int count() const { return ((all + in_tile() - 1) >> in_tile_log) * (int)columns.by; }
    SB_DEVICE int column(int tile) const {
        int column;
        columns.divide(tile, column);
        return column * COLS;
    }
    /* Until the last is done: a group has one after another. */
    SB_DEVICE int64_t duration() const {
        const uint32_t groups = (uint32_t)group_count();
        return (int64_t)((count() + groups - 1) / groups) * (ROWS * COLS + ENDS);
    }
    /* Unit i of a tile. Found by division and from the list, so once: each lane keeps one. */
    SB_DEVICE Unit unit(int tile, int i) const {
        const int number = (columns(tile) << in_tile_log) + i;
        if (i >= in_tile() || number >= all) return {-1, 0, 0, 0, 0};
        int in, right;
        const Region region(regions, in_block.divide(number, in), true);
        const int down = across.divide(in, right);
        const int y = (int)region.y0 + (down << units.height_log), x = (int)region.x0 + (right << units.width_log);
        if (y >= region.y1 || x >= region.x1) return {-1, 0, 0, 0, 0};
        return {(int)region.n, y, x, (int)region.y1, (int)region.x1};
    }
};

/* A tap's weights for 64 channels, COLS columns of them: one lane asks for them. */
template <int COLS>
SB_DEVICE void copy_weights(const TensorMap &weights, const Ring &b, Turn &of_b, int channel, int column, int tap) {
    constexpr int ROWS = 64; /* of a box of them */
    wait(b.emptied(of_b), of_b.round ^ 1);
    if (lane_index() == 0) {
        arrive_and_expect(b.filled(of_b), COLS * LINE);
        SB_UNROLL
        for (int i = 0; i < COLS; i += ROWS)
            copy_box(b.stage(of_b) + i * LINE, weights, b.filled(of_b), channel, column + i, tap, 0);
    }
    of_b.advance();
}

/* The first weights of a group's first tile, which no kernel writes: as many as there are stages for, or fewer where there are no more. */
template <int COLS>
SB_DEVICE int copy_first_weights(const sb_conv2d &conv, const TensorMap &weights, const Ring &b, Turn &of_b, int column) {
    int copied = 0;
    for (int channel = 0; channel < conv.in_channels; channel += DEPTH)
        for (int tap = 0; tap < conv.kernel_h * conv.kernel_w && copied < b.count; ++tap, ++copied)
            copy_weights<COLS>(weights, b, of_b, channel, column, tap);
    return copied;
}

/* One warp: all boxes of all tiles, each of which one lane asks for. */
template <int ROWS, int COLS>
SB_DEVICE void copy(const sb_conv2d &conv, const Tiles<ROWS, COLS> &tiles, const TensorMap &x, const TensorMap &weights, const Ring &a,
                    const Ring &b) {
    const sb_units &units = tiles.units;
    const int taps = conv.kernel_h * conv.kernel_w, loads = units.shared ? 1 : taps, lane = lane_index();
    Turn of_a(a.count), of_b(b.count);
    const int count = tiles.count();
    int tile = (int)group_index(), early = 0; /* weights that were copied before their turn */
    Unit unit = tiles.unit(tile, lane);
    if (tile < count) early = copy_first_weights<COLS>(conv, weights, b, of_b, tiles.column(tile));
    await_kernels_before();
    for (; tile < count; tile += (int)group_count(), unit = tiles.unit(tile, lane)) {
        const int boxes = bit_count(vote(unit.n >= 0)), top = unit.y * conv.stride_h - conv.pad_h, left = unit.x * conv.stride_w - conv.pad_w;
        for (int channel = 0; channel < conv.in_channels; channel += DEPTH)
            for (int load = 0; load < loads; ++load) {
                wait(a.emptied(of_a), of_a.round ^ 1);
                if (lane == 0) arrive_and_expect(a.filled(of_a), boxes * units.box_bytes);
                warp_barrier();
                const int ky = load / conv.kernel_w, kx = load % conv.kernel_w;
                if (unit.n >= 0)
                    copy_box(a.stage(of_a) + lane * units.unit_bytes, x, a.filled(of_a), channel, left + kx * conv.dilation_w,
                             top + ky * conv.dilation_h, unit.n);
                of_a.advance();
                for (int tap = load; tap < (units.shared ? taps : load + 1); ++tap)
                    if (early > 0) --early;
                    else copy_weights<COLS>(weights, b, of_b, channel, tiles.column(tile), tap);
            }
    }
}

/* Four warps, each of which copies 32 rows of a tile of 128, eight lanes a row; of at most 32 taps. */
static_assert(WARPGROUP == 128, "a thread for every row of a tile");
template <int COLS>
SB_DEVICE void gather(const sb_conv2d &conv, const Tiles<128, COLS> &tiles, const sb_plane &x, const TensorMap &weights,
                      const Ring &a, const Ring &b) {
    constexpr int LANES = LINE / 16, EACH = LANES, APART = WARP / LANES; /* of a row; rows of a lane, and from one to the next */
    const sb_units &units = tiles.units;
    const int area_log = units.width_log + units.height_log;
    const uint32_t lane = lane_index(), chunk = lane % LANES * V;
    /* A lane's places in a stage: the swizzle of row r is r % 8, so every second row's is the other of two. */
    const uint32_t row = warp_index() * WARP + lane / LANES, place = row * LINE + (lane % LANES ^ lane / LANES) * 16;
    static_assert(APART == 4, "a lane's next row is four further, its swizzle the same but for that bit");
    Turn of_a(a.count), of_b(b.count);
    const int count = tiles.count();
    const uint32_t mine = warp_index() * WARP + lane, in = mine & ((1 << area_log) - 1); /* the row whose place this lane finds */
    int tile = (int)group_index(), early = 0; /* weights that were copied before their turn */
    Unit unit = tiles.unit(tile, mine >> area_log);
    if (warp_index() == 0 && tile < count) early = copy_first_weights<COLS>(conv, weights, b, of_b, tiles.column(tile));
    await_kernels_before();
    for (; tile < count; tile += (int)group_count(), unit = tiles.unit(tile, mine >> area_log)) {
        const int out_y = unit.y + (in >> units.width_log), out_x = unit.x + (in & ((1 << units.width_log) - 1));
        const int top = out_y * conv.stride_h - conv.pad_h, left = out_x * conv.stride_w - conv.pad_w;
        uint32_t taps_inside = 0, tap_bit = 1;
        if (unit.n >= 0 && out_y < unit.bottom && out_x < unit.right)
            for (int ky = 0; ky < conv.kernel_h; ++ky)
                for (int kx = 0; kx < conv.kernel_w; ++kx, tap_bit *= 2) {
                    const int y = top + ky * conv.dilation_h, from = left + kx * conv.dilation_w;
                    if ((uint32_t)y < (uint32_t)x.h && (uint32_t)from < (uint32_t)x.w) taps_inside |= tap_bit;
                }
        const int64_t at = unit.n * x.stride_n + top * x.stride_y + left * x.stride_x;
        uint32_t inside[EACH];
        const SB_T *from[EACH];
        SB_UNROLL
        for (int i = 0; i < EACH; ++i) {
            const int of = lane / LANES + APART * i;
            inside[i] = shuffle(taps_inside, of), from[i] = (const SB_T *)x.data + shuffle(at, of) + chunk;
        }
        for (int channel = 0; channel < conv.in_channels; channel += DEPTH) {
            const bool channels = channel + (int)chunk < conv.in_channels;
            for (int ky = 0, tap = 0; ky < conv.kernel_h; ++ky) {
                int64_t ahead = ky * conv.dilation_h * x.stride_y + channel;
                for (int kx = 0; kx < conv.kernel_w; ++kx, ++tap, ahead += conv.dilation_w * x.stride_x) {
                    if (early > 0) --early;
                    else if (warp_index() == 0) copy_weights<COLS>(weights, b, of_b, channel, tiles.column(tile), tap);
                    wait(a.emptied(of_a), of_a.round ^ 1);
                    const SharedAddress to = a.stage(of_a);
                    const uint32_t bit = channels ? 1u << tap : 0;
                    SB_UNROLL
                    for (int i = 0; i < EACH; ++i)
                        copy_async<16>(to + (place ^ i % 2 * APART * 16) + i * APART * LINE, from[i] + ahead, inside[i] & bit);
                    arrive_when_copied(a.filled(of_a));
                    of_a.advance();
                }
            }
        }
    }
}

/* A warpgroup's share of a tile: squares of 64 rows from `first` on. */
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
    SB_DEVICE void pixel(int i, uint32_t row, int &unit, int &y, int &x) const {
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

/* The sums of a tile. Stages are given back when the products that read them are known to have ended: one product later. */
template <int DOWN, int N>
SB_DEVICE void multiply(float (&sums)[DOWN][N][4], const sb_conv2d &conv, const Share &share, const Ring &a, Turn &of_a, const Ring &b,
                        Turn &of_b) {
    const sb_units &units = share.units;
    const int taps = conv.kernel_h * conv.kernel_w, loads = units.shared ? 1 : taps;
    const int group_bytes = (units.shared ? units.pitch : 8) * LINE;
    const int to_next_line = (conv.dilation_h * units.pitch - conv.kernel_w * conv.dilation_w) * LINE;
    const bool speaks = lane_index() == 0;
    SharedAddress last_a = {}, last_b = {}; /* that the products before still read */
    SB_UNROLL
    for (int i = 0; i < DOWN; ++i) hold(sums[i]);
    for (int channel = 0; channel < conv.in_channels; channel += DEPTH) {
        for (int load = 0; load < loads; ++load) {
            if (units.gathered) wait_for_copies(a.filled(of_a), of_a.round);
            else wait(a.filled(of_a), of_a.round);
            int shift = 0, along = 0; /* of a tap in its box, bytes; of its line, taps */
            for (int tap = load; tap < (units.shared ? taps : load + 1); ++tap) {
                wait(b.filled(of_b), of_b.round);
                const Matrix of_rows = matrix(a.stage(of_a) + shift, group_bytes), of_cols = matrix(b.stage(of_b), 8 * LINE);
                shift += conv.dilation_w * LINE;
                if (++along == conv.kernel_w) along = 0, shift += to_next_line;
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
                last_b = b.emptied(of_b), last_a = {};
                of_b.advance();
            }
            last_a = a.emptied(of_a);
            of_a.advance();
        }
    }
    wait_products<0>();
    SB_UNROLL
    for (int i = 0; i < DOWN; ++i) hold(sums[i]);
    if (speaks) arrive(last_b), arrive(last_a);
}

/* Where a sum is kept to be stored, of 16 rows and PASTED columns: eight by eight in another place of every row, for the banks. */
SB_DEVICE float *sum_of(float *staging, uint32_t row, uint32_t col) { return staging + row * PASTED + ((col / 8 ^ row % 8) * 8 + col % 8); }

template <int N>
SB_DEVICE void put(const float (&sums)[N][4], int part, float *staging, uint32_t lane) {
    SB_UNROLL
    for (int k = 0; k < PASTED / 8; ++k)
        SB_UNROLL
        for (int r = 0; r < 2; ++r) {
            const float(&four)[4] = sums[part * (PASTED / 8) + k];
            store_vector(sum_of(staging, lane / 4 + 8 * r, 8 * k + lane % 4 * 2), Vector<float, 2>{{four[2 * r], four[2 * r + 1]}});
        }
}

/* finish() without its choices; what is stored by vectors computes the same, to the bit. */
SB_DEVICE bool is_plain(const sb_epilogue &e) { return (e.activation == SB_RELU || e.activation == SB_IDENTITY) && e.combine == SB_ADD; }
SB_DEVICE float finish_plain(float v, bool combined, const SB_T *residual, const sb_epilogue &e, int c) {
    if (e.bias) v += e.bias[c];
    if (combined) v += to_float(*residual);
    if (e.scale || e.shift) v = fma(v, e.scale ? e.scale[c] : 1.0f, e.shift ? e.shift[c] : 0.0f);
    return e.activation == SB_RELU ? at_least(0.0f, v) : v;
}

/* Which pixel a row of a tile is. Each lane knows one of its warp's 16 rows of a square, from the units that lanes keep. */
struct Row {
    int n, y, x;
    bool stored;

    SB_DEVICE int64_t in(const sb_plane &plane) const { return n * plane.stride_n + y * plane.stride_y + x * plane.stride_x; }
};
SB_DEVICE Row row_of(const Share &share, int square, const Unit &unit, uint32_t lane) {
    int number, y, x;
    share.pixel(square, warp_index() % 4 * 16 + lane % 16, number, y, x);
    const int n = shuffle(unit.n, number), bottom = shuffle(unit.bottom, number), right = shuffle(unit.right, number);
    y += shuffle(unit.y, number), x += shuffle(unit.x, number);
    return {n, y, x, n >= 0 && y < bottom && x < right};
}

/* The residuals of a tile are on their way from memory while it is multiplied: a lane asks for 128 bytes of its row of every square. */
template <int DOWN, int N>
SB_DEVICE void fetch(const float (&)[DOWN][N][4], const sb_plane &residual, int column, const Share &share, const Unit &unit) {
    const uint32_t lane = opaque(lane_index()) % WARP;
    const int c = column + (int)lane / 16 * PASTED;
    SB_NO_UNROLL
    for (int i = 0; i < DOWN; ++i) {
        const Row row = row_of(share, i, unit, lane);
        if (row.stored && c < residual.c && (int)lane / 16 < N * 8 / PASTED)
            fetch_line((const SB_T *)residual.data + row.in(residual) + c * residual.stride_c);
    }
}

/* `unit` is that which a lane keeps; `vectors` whether V channels of all that is read and stored lie at multiples of 16 bytes. */
template <int DOWN, int N>
SB_DEVICE void store(const float (&sums)[DOWN][N][4], float *staging, const sb_epilogue &epilogue, const sb_plane &residual, bool combined,
                     const sb_plane &out, bool vectors, int column, const Share &share, const Unit &unit) {
    constexpr int LANES = PASTED / V, PARTS = N * 8 / PASTED, PASSES = 16 * LANES / WARP; /* that store a row; rows of a lane */
    constexpr int TOGETHER = DOWN * N > 16 ? 2 : PASSES; /* residuals that are on their way, as registers allow */
    const uint32_t lane = opaque(lane_index()) % WARP; /* or addresses would be known, and spilled, ahead of all tiles */
    const bool relu = epilogue.activation == SB_RELU, affine = epilogue.scale || epilogue.shift;
    const bool plain = is_plain(epilogue);
    SB_NO_UNROLL
    for (int turn = 0; turn < DOWN * PARTS; ++turn) {
        const Row mine = row_of(share, turn / PARTS, unit, lane);
        const int64_t place = mine.stored ? mine.in(out) : -1, other = mine.in(residual); /* elements */
        const int c = column + turn % PARTS * PASTED + (int)(lane % LANES) * V, there = out.c - c;
        warp_barrier(); /* what was there has been stored */
        SB_UNROLL
        for (int i = 0; i < DOWN; ++i)
            SB_UNROLL
            for (int part = 0; part < PARTS; ++part)
                if (turn == i * PARTS + part) put(sums[i], part, staging, lane);
        warp_barrier();
        if (!plain || !vectors) {
            SB_NO_UNROLL
            for (int row = (int)lane / LANES; row < 16; row += WARP / LANES) {
                const int64_t to = shuffle(place, row), second = shuffle(other, row);
                const int stored = to >= 0 ? (int)minimum(there, V) : 0;
                const SB_T *by = (const SB_T *)residual.data + second + c * residual.stride_c;
                SB_T *const at = (SB_T *)out.data + to + c;
                const float *sum = sum_of(staging, row, lane % LANES * V);
                if (plain)
                    SB_UNROLL
                    for (int k = 0; k < V; ++k) {
                        if (k < stored) at[k] = from_float<SB_T>(finish_plain(sum[k], combined, by + k * residual.stride_c, epilogue, c + k));
                    }
                else
                    SB_NO_UNROLL
                    for (int k = 0; k < stored; ++k) {
                        const float second = combined ? to_float(by[k * residual.stride_c]) : 0.0f;
                        at[k] = from_float<SB_T>(finish(sum[k], combined, second, epilogue, c + k));
                    }
            }
            continue;
        }
        const int read = there > 0 ? c : 0;
        Words<SB_T, V> others[TOGETHER] = {};
        SB_UNROLL
        for (int pass = 0; pass < PASSES; ++pass) {
            if (combined && pass % TOGETHER == 0)
                SB_UNROLL
                for (int p = pass; p < pass + TOGETHER; ++p) {
                    const int row = p * (WARP / LANES) + (int)lane / LANES;
                    const int64_t second = shuffle(other, row);
                    if (shuffle(place, row) >= 0) others[p % TOGETHER] = load_words<V>((const SB_T *)residual.data + second + read);
                }
            const int row = pass * (WARP / LANES) + (int)lane / LANES;
            const int64_t to = shuffle(place, row);
            const Vector<SB_T, V> values = others[pass % TOGETHER];
            const Vector<float, V> bias = parameters<V>(epilogue.bias, read, -0.0f);
            float v[V]; /* of a row that is not stored too: a condition here would make rows wait for each other */
            SB_UNROLL
            for (int k = 0; k < V; k += 4) {
                const Vector<float, 4> four = load_vector<4>(sum_of(staging, row, lane % LANES * V + k));
                SB_UNROLL
                for (int i = 0; i < 4; ++i) v[k + i] = four[i] + bias[k + i];
            }
            if (combined) change(v, [&](float sum, int k) { return sum + to_float(values[k]); });
            if (affine) {
                const Vector<float, V> scale = parameters<V>(epilogue.scale, read, 1.0f), shift = parameters<V>(epilogue.shift, read, 0.0f);
                change(v, [&](float sum, int k) { return fma(sum, scale[k], shift[k]); });
            }
            change(v, [&](float sum, int) { return relu ? at_least(0.0f, sum) : sum; });
            if (to >= 0 && there > 0) store_vector((SB_T *)out.data + to + c, from_floats<SB_T>(v));
        }
    }
}

/* What a kernel is given. */
struct Given {
    const sb_conv2d &conv;
    const sb_epilogue &epilogue;
    const sb_plane &x;
    const TensorMap &boxes, &weights;
    const sb_plane &residual;
    bool combined;
    const sb_plane &out;
    bool vectors;
};

/* All tiles. Sums of 256 rows need registers that the copying warps can spare. */
template <int ROWS, int COLS>
SB_DEVICE void run(const Given &given, const Tiles<ROWS, COLS> &tiles, const int32_t (&stages)[2]) {
    constexpr bool LARGE = ROWS > SQUARE * MULTIPLIERS;
    const sb_units &units = tiles.units;
    const int a_bytes = tiles.in_tile() * units.unit_bytes;
    const SharedAddress shared = shared_address(shared_memory()), signals = shared + SIGNALS;
    const Ring a = {shared, stages[0], a_bytes, signals};
    const Ring b = {shared + stages[0] * a_bytes, stages[1], COLS * LINE, signals + 2 * MOST_STAGES * SIGNAL};
    const int thread = thread_index(), warpgroup = shuffle(thread / WARPGROUP, 0); /* which the compiler now knows to be the same in a warp */
    if (warpgroup == 0) {
        if constexpr (LARGE) give_registers_back<40>();
        else if constexpr (COLS == PASTED)
            if (units.gathered) return gather(given.conv, tiles, given.x, given.weights, a, b);
        if (thread < WARP) copy(given.conv, tiles, given.boxes, given.weights, a, b);
        else await_kernels_before();
    } else {
        if constexpr (LARGE) take_registers<232>();
        float *staging = (float *)(shared_memory() + RING) + (thread - WARPGROUP) / WARP * STAGING;
        const Share share = {units, (warpgroup - 1) * tiles.DOWN};
        Turn of_a(a.count), of_b(b.count);
        const int count = tiles.count();
        int tile = (int)group_index();
        Unit unit = tiles.unit(tile, lane_index());
        await_kernels_before();
        for (; tile < count; tile += (int)group_count(), unit = tiles.unit(tile, lane_index())) {
            typename Tiles<ROWS, COLS>::Sums sums = {};
            if (given.combined) fetch(sums, given.residual, tiles.column(tile), share, unit);
            multiply(sums, given.conv, share, a, of_a, b, of_b);
            store(sums, staging, given.epilogue, given.residual, given.combined, given.out, given.vectors, tiles.column(tile), share, unit);
        }
    }
}

SB_DEVICE void run(const Given &given, const sb_units &units, const sb_blocks &blocks) {
    const int thread = thread_index();
    if (thread == 0) prefetch(given.boxes), prefetch(given.weights);
    if (thread < MOST_STAGES) {
        const SharedAddress signals = shared_address(shared_memory()) + SIGNALS + thread * SIGNAL;
        prepare(signals, units.gathered ? WARPGROUP : 1), prepare(signals + MOST_STAGES * SIGNAL, WARPS);
        prepare(signals + 2 * MOST_STAGES * SIGNAL, 1), prepare(signals + 3 * MOST_STAGES * SIGNAL, WARPS);
        signals_are_prepared();
    }
    barrier();
    const Regions regions(blocks, given.out);
    Tiles<256, SB_COLS> large(units, regions);
    Tiles<128, SB_COLS> middle(units, regions);
    Tiles<128, PASTED> small(units, regions);
    const int count = shuffle((int)regions.count_early(), 0);
    large.begin(count), middle.begin(count), small.begin(count);
    const int64_t least = units.gathered ? 0 : minimum(minimum(large.duration(), middle.duration()), small.duration());
    if (large.duration() == least) run(given, large, units.stages[0]);
    else if (SB_COLS > PASTED && middle.duration() == least) run(given, middle, units.stages[1]);
    else run(given, small, units.stages[2]);
}

} // namespace sb::SB_NAME

/* `vectors`: whether out, the residual and the parameters of channels lie at multiples of 16 bytes. */
SB_ENTRY(sb_conv2d conv, sb_epilogue epilogue, sb_units units, sb_plane x, SB_CONSTANT sb::TensorMap boxes,
         SB_CONSTANT sb::TensorMap weights, sb_plane residual, int32_t combined, sb_blocks blocks, sb_plane out, int32_t vectors) {
    sb::SB_NAME::run({conv, epilogue, x, boxes, weights, residual, combined != 0, out, vectors != 0}, units, blocks);
}
