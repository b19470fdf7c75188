/* The convolution microkernel on AMX's tiles of bfloat16: 2 x 2 products of 16 pixels and 16 output channels, 32 steps deep.
 *
 * Every output is one chain, 32 steps after 32 in the order of the packed weights, whatever lies in the tile's other rows. Within
 * these the sums of even and of odd steps are kept apart and added at the end; products are exact in float32, each sum is
 * rounded to nearest even, and subnormal operands and results count as zero. The bias is added after the last step, as floats are. */
#include "amx.h"
#include "conv2d.h"
#include "prefetch.h"

namespace sb::SB_ISA {
namespace {

constexpr int TILE_PIXELS = 2 * AMX_ROWS;
constexpr int64_t LINE = 64; /* bytes */
constexpr int PIXEL_LINES = 8; /* of the next tile's pixels, fetched after a step */
constexpr int64_t NEAR_BYTES = 1 << 20; /* weights up to here stay in the second-level cache while all units go by */
static_assert(W == AMX_ROWS, "a vector of channels is a tile wide");

/* Eight tiles of 16 rows of 64 bytes. Static: for GCC 12 the instruction reads no more than a pointer, and stores before it may go. */
const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} CONFIG = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/* bfloat16 as the processor's own instruction rounds to it, which takes subnormals for zero as the products do. */
struct flushed {
    uint16_t bits;
};
SB_INLINE vec widen(halves h, flushed) { return widen(h, bf16()); }
SB_INLINE halves narrow(vec v, flushed) { return (halves)_mm512_cvtneps_pbh((__m512)v); }
SB_INLINE __m512i narrow(vec a, vec b, flushed) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }

/* What is done between the steps of tiles, while these multiply: sums that have left the tiles before become outputs, a few
 * pixels at a time, and what will be read is fetched: lines of the planes, pixels of the next tile. (Weights lie one after the other: the
 * processor fetches them by itself, and better.) In few instructions: steps of tiles leave room for little. */
class Pending {
public:
    /* `turns`: steps of a tile. */
    Pending(Prefetch<bf16> &prefetch, int64_t lines_of_tile, int64_t turns)
        : at_once_((int)ceil_div(TILE_PIXELS, turns)), prefetch_(prefetch), lines_(ceil_div(lines_of_tile, turns)) {}
    /* Into the first-level cache, of the next tile's pixels what the last run reads: under the kernel's last row, or its last tap, lies what no
     * tile before has read. Not where most of what lies between the pixels are other channels. */
    void fetch_pixels(const AmxRows &rows, const Tile<bf16, bf16> &unit) {
        pixel_ = pixels_end_ = nullptr;
        if (rows.copied || unit.runs == unit.runs_end) return;
        const Run &run = unit.runs_end[-1];
        if (rows.stride > 2 * (int64_t)sizeof(bf16) * run.length) return;
        pixel_ = (const char *)(rows.first + run.offset);
        pixels_end_ = pixel_ + TILE_PIXELS * rows.stride;
    }
    /* `pixels` of a unit's, from `first` on, whose sums are in `sums`. */
    void finish_later(const Tile<bf16, bf16> &unit, int64_t first, int pixels, float *sums) {
        unit_ = &unit;
        first_ = first;
        left_ = pixels;
        sums_ = sums;
        finish_ = unit.vectors > 1 ? way<2>(unit) : way<1>(unit);
    }
    void step() {
        prefetch_.advance(lines_);
        for (int i = 0; i < PIXEL_LINES && pixel_ < pixels_end_; ++i, pixel_ += LINE) __builtin_prefetch(pixel_);
        if (left_) finish(left_ < at_once_ ? left_ : at_once_);
    }
    void end() {
        if (left_) finish(left_);
    }

private:
    typedef void (*Finish)(const Tile<bf16, bf16> &unit, int64_t first, int pixels, float *sums);

    void finish(int pixels) {
        finish_(*unit_, first_, pixels, sums_);
        first_ += pixels;
        left_ -= pixels;
        sums_ += pixels * UNIT;
    }

    template <int V>
    static Finish way(const Tile<bf16, bf16> &unit) {
        const EpilogueParams<UNIT> &e = *unit.epilogue;
        const bool adds = !unit.residual || (unit.residual_c && !e.multiply);
        if (!adds || e.lanes < V * W || e.activation > SB_CLAMP) return finish_any<V>;
        if (unit.residual) return e.affine ? finish_whole<V, true, true> : finish_whole<V, true, false>;
        return e.affine ? finish_whole<V, false, true> : finish_whole<V, false, false>;
    }

    template <int V>
    static void finish_any(const Tile<bf16, bf16> &unit, int64_t first, int pixels, float *sums) {
        for (int p = 0; p < pixels; ++p, ++first, sums += UNIT) {
            const flushed *const *residual = unit.residual ? (const flushed *const *)unit.residual + first : nullptr;
            const Tile<flushed, bf16> tile = {nullptr, residual, unit.residual_c, (flushed *const *)unit.out + first, nullptr, nullptr, nullptr,
                                              nullptr, unit.epilogue, 0, unit.out_channel, 1, V, true, true, unit.stream};
            vec acc[1][V];
            for (int v = 0; v < V; ++v) acc[0][v] = load(sums + v * W) + load(unit.epilogue->bias + v * W);
            finish_sums(tile, acc);
        }
    }

    /* The same for whole units, activations that are bounds, and residuals that have channels and are added. */
    template <int V, bool RESIDUAL, bool AFFINE>
    static void finish_whole(const Tile<bf16, bf16> &unit, int64_t first, int pixels, float *sums) {
        const EpilogueParams<UNIT> &e = *unit.epilogue;
        const vec low = splat(e.activation == SB_CLAMP ? e.low : e.activation == SB_RELU ? 0.0f : -__builtin_inff());
        const vec high = splat(e.activation == SB_CLAMP ? e.high : __builtin_inff());
        vec bias[V], scale[V], shift[V];
        for (int v = 0; v < V; ++v) {
            bias[v] = load(e.bias + v * W);
            if (AFFINE) scale[v] = load(e.scale + v * W);
            if (AFFINE) shift[v] = load(e.shift + v * W);
        }
        for (int p = 0; p < pixels; ++p, sums += UNIT) {
            vec sum[V];
            for (int v = 0; v < V; ++v) {
                sum[v] = load(sums + v * W) + bias[v];
                if (RESIDUAL) sum[v] += load((const flushed *)unit.residual[first + p] + unit.out_channel + v * W);
                if (AFFINE) sum[v] = fma(sum[v], scale[v], shift[v]);
                sum[v] = min(high, max(low, sum[v]));
            }
            flushed *out = (flushed *)unit.out[first + p] + unit.out_channel;
            if constexpr (V == 1) store(out, sum[0]);
            else if (unit.stream) stream(out, sum[0], sum[1]);
            else store(out, sum[0], sum[1]);
        }
    }

    const Tile<bf16, bf16> *unit_; /* to finish: `left_` pixels from `first_` on */
    Finish finish_;
    int64_t first_;
    float *sums_;
    int left_ = 0;                 /* pixels */
    const int at_once_;            /* pixels after a step */
    Prefetch<bf16> &prefetch_;
    const int64_t lines_;          /* after a step */
    const char *pixel_ = nullptr, *pixels_end_ = nullptr;
};

/* M groups of pixels x V of output channels. Tiles 0 to 3 are sums, 4 and 5 pixels, 6 and 7 weights. */
template <int M, int V>
void multiply(const Tile<bf16, bf16> &t, const AmxRows *rows, float *sums, Pending &pending) {
    tile_zero(0);
    if constexpr (V > 1) tile_zero(1);
    if constexpr (M > 1) tile_zero(2);
    if constexpr (M > 1 && V > 1) tile_zero(3);
    const bf16 *a = rows[0].first, *b = rows[M - 1].first;
    const int64_t stride_a = rows[0].stride, stride_b = rows[M - 1].stride;
    for (const Run *run = t.runs; run != t.runs_end; ++run) {
        if (!rows[0].copied) a = rows[0].first + run->offset;
        if (M > 1 && !rows[1].copied) b = rows[1].first + run->offset;
        const float *weight = t.weight + run->weight / 2 * V * W;
        for (int64_t i = 0; i < run->length; i += AMX_STEPS) {
            tile_load(6, weight, 64);
            tile_load(4, a, stride_a);
            if constexpr (V > 1) tile_load(7, weight + W * AMX_ROWS, 64);
            if constexpr (M > 1) tile_load(5, b, stride_b);
            tile_multiply(0, 4, 6);
            if constexpr (V > 1) tile_multiply(1, 4, 7);
            if constexpr (M > 1) tile_multiply(2, 5, 6);
            if constexpr (M > 1 && V > 1) tile_multiply(3, 5, 7);
            weight += V * W * AMX_ROWS;
            a += AMX_STEPS;
            b += AMX_STEPS;
            pending.step();
        }
    }
    pending.end();
    constexpr int64_t row = sizeof(float) * UNIT;
    tile_store(0, sums, row);
    if constexpr (V > 1) tile_store(1, sums + W, row);
    if constexpr (M > 1) tile_store(2, sums + AMX_ROWS * UNIT, row);
    if constexpr (M > 1 && V > 1) tile_store(3, sums + AMX_ROWS * UNIT + W, row);
}

} // namespace

void amx_begin() { tile_configure(CONFIG); }

void amx_end() { tile_release(); }

void amx_rows(const bf16 *const *x, int64_t channel, int64_t pixels, const Run *runs, const Run *runs_end, bool whole_runs, int64_t steps,
              bf16 *copies, AmxRows *rows) {
    const int64_t copy_stride = amx_copy_stride(steps), rest = steps % AMX_STEPS;
    for (; pixels > 0; pixels -= AMX_ROWS, x += AMX_ROWS, copies += AMX_ROWS * copy_stride, ++rows) {
        const int count = (int)minimum(AMX_ROWS, pixels);
        const int64_t stride = (char *)x[1 % count] - (char *)x[0];
        /* A row that spans two lines takes twice as long. */
        if (whole_runs && count == AMX_ROWS && ((uintptr_t)(x[0] + channel) | stride) % LINE == 0) {
            int64_t uneven = 0; /* without an early exit the loop is vectors */
            for (int i = 1; i < AMX_ROWS; ++i) uneven |= ((char *)x[i] - (char *)x[i - 1]) ^ stride;
            if (!uneven) {
                *rows = {x[0] + channel, stride, false};
                continue;
            }
        }
        if (rest) /* zeros past the last step, where weights are zero too */
            for (int i = 0; i < count; ++i) _mm512_storeu_si512(copies + i * copy_stride + steps - rest, _mm512_setzero_si512());
        bf16 *to = copies;
        for (const Run *run = runs; run != runs_end; to += run++->length) {
            const int64_t whole = run->length / AMX_STEPS * AMX_STEPS;
            const __mmask32 tail = (1u << run->length % AMX_STEPS) - 1;
            for (int i = 0; i < count; ++i) {
                const bf16 *from = x[i] + channel + run->offset;
                bf16 *row = to + i * copy_stride;
                for (int64_t k = 0; k < whole; k += AMX_STEPS) _mm512_storeu_si512(row + k, _mm512_loadu_si512(from + k));
                if (tail) _mm512_mask_storeu_epi16(row + whole, tail, _mm512_maskz_loadu_epi16(tail, from + whole));
            }
        }
        *rows = {copies, copy_stride * (int64_t)sizeof(bf16), true};
    }
}

void conv2d_amx_tiles(const Tile<bf16, bf16> *units, int64_t count, const AmxRows *rows, int64_t pixels, int64_t steps,
                      int64_t unit_bytes, Prefetch<bf16> &prefetch, int64_t lines) {
    alignas(64) float sums[2][TILE_PIXELS * UNIT];
    const int64_t tiles = ceil_div(pixels, TILE_PIXELS);
    const bool near = unit_bytes * count <= NEAR_BYTES; /* all units of a tile then, while its pixels are in the first-level cache */
    Pending pending(prefetch, lines, maximum(ceil_div(steps, AMX_STEPS), 1));
    int64_t turn = 0;
    auto tile = [&](int64_t i, const Tile<bf16, bf16> &unit) {
        const int64_t first = i * TILE_PIXELS;
        const int in_tile = (int)minimum(TILE_PIXELS, pixels - first);
        const bool two = in_tile > AMX_ROWS, wide = unit.vectors > 1;
        float *to = sums[turn++ % 2];
        const bool first_unit = &unit == units; /* the others find the pixels in the cache */
        if (first_unit && i + 1 < tiles) pending.fetch_pixels(rows[2 * (i + 1)], unit);
        if (two) (wide ? multiply<2, 2> : multiply<2, 1>)(unit, rows + 2 * i, to, pending);
        else (wide ? multiply<1, 2> : multiply<1, 1>)(unit, rows + 2 * i, to, pending);
        pending.finish_later(unit, first, in_tile, to);
    };
    if (near) {
        for (int64_t i = 0; i < tiles; ++i)
            for (int64_t k = 0; k < count; ++k) tile(i, units[k]);
    } else {
        for (int64_t k = 0; k < count; ++k)
            for (int64_t i = 0; i < tiles; ++i) tile(i, units[k]);
    }
    pending.end();
}

} // namespace sb::SB_ISA
