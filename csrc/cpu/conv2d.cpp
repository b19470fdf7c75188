/* conv2d and conv_transpose2d over active blocks.
 *
 *   out[n, y, x, k] = epilogue( sum over taps (r, s), then c, of w[k, c, r, s] * x[n, y*stride - pad + r*dilation, ..., c] )
 *
 * Planes are NHWC and read in place. A transposed convolution is stride_h * stride_w ordinary ones, its phases: the output
 * pixels with equal (y, x) modulo the stride, each with the taps that reach it.
 *
 * Taps that fall outside of the frame, of a window with dilation and zeros around, are left out: the frame is cut into bands of
 * rows and of columns that the same taps reach, so what a pixel sums over depends on its place alone. At a dilation that is
 * near the frame's size they are most of the taps.
 *
 * Packed weights: [phase][unit][tap][c][unit's channels], a unit being up to UNIT output channels of one group, padded with
 * zeros to whole vectors. Taps are in ascending order of the input pixel, so that where pixels are contiguous the taps of a
 * kernel row (their s and c axes) are one run. Long sums are cut into panels of weights that stay in the L2 cache
 * while all pixels of a chunk pass; partial sums wait in scratch (as stored floats: no rounding is added).
 *
 * Work: chunk of strips of blocks (about the same number of pixels each) x range of units. Where a chunk's windows leave
 * the plane and its border, or where the plane does not hold what the microkernel reads (floats, but for those on bfloat16),
 * they are first copied into scratch as such with zeros around; sums keep their order, so the bits too.
 *
 * For AMX the steps of a unit are padded to whole tiles of AMX_STEPS, there are no panels (sums stay in tiles), and an item first
 * brings its pixels into rows that tiles can be loaded from, in place where they lie so. In narrow blocks they do not: there a window
 * has a copy per tap of a kernel row, in which the pixels of all rows follow one another. */
#include "conv2d_geometry.h"

#include <string.h>

#include "kernels.h"
#include "pad.h"
#include "parallel.h"
#include "prefetch.h"
#include "regions.h"
#include "scratch.h"

namespace sb::SB_ISA {

using namespace geometry;

namespace {

constexpr int64_t PANEL_FLOATS = 64 << 10; /* weights of a panel: 256 KiB */
constexpr int64_t CHUNK_FLOATS = 128 << 10; /* input of a chunk: 512 KiB, halo included */
constexpr int64_t CHUNK_PIXELS = 256, AMX_CHUNK_PIXELS = 512;
constexpr int64_t STRIP_COLUMNS = 64;
constexpr int64_t ITEMS_PER_THREAD = 8, AMX_ITEMS_PER_THREAD = 1; /* at least; each of the latter copies its pixels */
constexpr int64_t SHARED_BYTES = 128 << 10; /* weights for AMX that all threads read rather than share */
constexpr int64_t LEAST_STRIP = 128;        /* pixels, of strips that are made finer for that */
constexpr int64_t COPY_BYTES = 1 << 20;     /* of a chunk's pixels copied for AMX: half of the second-level cache */
constexpr int64_t PREFETCH_BYTES = 16 << 20; /* of a plane's active part: from here on it is fetched ahead, less waits in the caches */

/* `count` elements, widened where they are to be floats. */
template <class To, class T>
void copy_elements(To *dst, const T *src, int64_t count) {
    if constexpr (sizeof(To) == sizeof(T)) {
        typedef vec elements __attribute__((aligned(2), may_alias)); /* only moved */
        constexpr int64_t WHOLE = sizeof(vec) / sizeof(T);
        int64_t i = 0;
        for (; i + WHOLE <= count; i += WHOLE) *(elements *)(dst + i) = *(const elements *)(src + i);
        if (i < count) memcpy((void *)(dst + i), (const void *)(src + i), sizeof(T) * (count - i));
    } else {
        int64_t i = 0;
        for (; i + W <= count; i += W) store(dst + i, load(src + i));
        if (i < count) store(dst + i, load(src + i, (int)(count - i)), (int)(count - i));
    }
}

/* What the microkernel of an sb_algorithm reads. */
template <int ALGORITHM>
struct InputOf {
    typedef bf16 type;
};
template <>
struct InputOf<SB_DIRECT> {
    typedef float type;
};

/* On planes of T, by the microkernel of an sb_algorithm. */
template <class T, int ALGORITHM>
struct Run2d {
    typedef typename InputOf<ALGORITHM>::type In;
    static constexpr int64_t TILE = ALGORITHM == SB_AMX ? 2 * AMX_ROWS : TILE_P; /* pixels */

    const Shape &shape;
    const sb_epilogue &epilogue;
    const sb_plane &x, *residual, &out;
    const Regions regions, ahead; /* ahead: what comes after these as well */
    const float *weight;
    Phase *phases;
    int64_t n_phases;
    Window window;
    bool always; /* strips are copied to windows: in the plane their rows are no whole AMX_ROWS pixels, there all pixels lie in a row */
    int64_t chunks = 1, strips = 0; /* strips: at most, of a chunk */
    int64_t pixels = 0;             /* that this call writes, of a chain all its pieces */
    bool stream = false;
    int64_t prefetch_lines = 0; /* per chunk */

    int64_t first_strip(int64_t chunk) const { return chunk * regions.count / chunks; }
    bool fetches(const sb_plane &plane) const {
        const double per_pixel = (double)sizeof(T) * plane.h * plane.w * plane.c / ((double)out.h * out.w);
        return plane.n && pixels * per_pixel >= PREFETCH_BYTES;
    }
    bool fetches_residual() const { return residual && fetches(*residual); }
    bool fetches_out() const { return !stream && fetches(out) && !(residual && residual->data == out.data); }
    /* `next`: the chunk that this thread will probably compute next; past those of `ahead`: none. */
    void item(int64_t chunk, int64_t next, int64_t first_unit, int64_t last_unit) const;
    void copy_window(const Phase &phase, const Region &region, In *to) const;
    void copy_segment(const T *row, int64_t left, int64_t length, In *to) const;
    int64_t locate(const Phase &phase, int64_t chunk, const In **in, const T **res, T **dst, bool &windows) const;
    Tile<T, In> tile_of(const Phase &phase, int64_t unit, const T *const *res, EpilogueParams<UNIT> &params) const;
    void sum(const Phase &phase, int64_t unit, bool windows, int64_t pixels, const In *const *in, const T *const *res,
             T *const *dst, Prefetch<T> &prefetch, int64_t lines) const;
    void sum_amx(const Phase &phase, int64_t first_unit, int64_t last_unit, bool windows, int64_t pixels, const In *const *in,
                 const T *const *res, T *const *dst, Prefetch<T> &prefetch, int64_t lines) const;
    const AmxRows *arrange(const Phase &phase, int64_t group, bool windows, int64_t pixels, const In *const *in) const;
};

/* The window of a strip's part in the phase: what its taps read. */
template <class T, int ALGORITHM>
void Run2d<T, ALGORITHM>::copy_window(const Phase &phase, const Region &region, In *to) const {
    const WindowAxis &wy = window.y, &wx = window.x;
    const int64_t top = region.y0 * shape.y.in_stride, left = region.x0 * shape.x.in_stride;
    const int64_t rows = wy.used(region.y1 - region.y0, shape.y), cols = wx.used(region.x1 - region.x0, shape.x);
    for (int64_t r = wy.first(phase.rows); r < wy.last(phase.rows); ++r)
        for (int64_t i = 0; i < rows; ++i) {
            const int64_t source = pad_source(top + wy.offset(r) + i * wy.step, x.h, shape.pad_mode);
            for (int64_t s = wx.first(phase.cols); s < wx.last(phase.cols); ++s) {
                In *row = to + s * window.segment() + (r * wy.length + i) * window.row();
                if (source < 0) memset((void *)row, 0, sizeof(In) * cols * window.pitch);
                else copy_segment(pixel<T>(x, region.n, source, 0), left + wx.offset(s), cols, row);
            }
        }
}

/* `length` pixels of one segment of a row; the first one is at column `left`. Outside of the frame they are as the padding mode says. */
template <class T, int ALGORITHM>
void Run2d<T, ALGORITHM>::copy_segment(const T *row, int64_t left, int64_t length, In *to) const {
    const int64_t channels = shape.in_channels, step = window.x.step;
    const int64_t begin = minimum(left < 0 ? ceil_div(-left, step) : 0, length);
    const int64_t end = maximum(minimum(left < x.w ? ceil_div(x.w - left, step) : 0, length), begin);
    auto outside = [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const int64_t col = pad_source(left + i * step, x.w, shape.pad_mode);
            if (col < 0) memset((void *)(to + i * window.pitch), 0, sizeof(In) * channels);
            else copy_elements(to + i * window.pitch, row + col * x.stride_x, channels);
        }
    };
    outside(0, begin);
    if (step * x.stride_x == channels && window.pitch == channels) {
        copy_elements(to + begin * channels, row + left * x.stride_x + begin * channels, (end - begin) * channels);
    } else {
        for (int64_t i = begin; i < end; ++i)
            copy_elements(to + i * window.pitch, row + (left + i * step) * x.stride_x, channels);
    }
    outside(end, length);
}

/* Base pointers of the chunk's pixels of one phase; returns how many. `windows`: they point into scratch. */
template <class T, int ALGORITHM>
int64_t Run2d<T, ALGORITHM>::locate(const Phase &phase, int64_t chunk, const In **in, const T **res, T **dst, bool &windows) const {
    const Axis &ay = shape.y, &ax = shape.x;
    const int64_t begin = first_strip(chunk), end = first_strip(chunk + 1);
    auto phase_region = [&](int64_t i) {
        Region r = regions[i];
        r.y0 = maximum(ceil_div(r.y0 - phase.y, ay.out_stride), phase.rows.begin);
        r.x0 = maximum(ceil_div(r.x0 - phase.x, ax.out_stride), phase.cols.begin);
        r.y1 = minimum(ceil_div(r.y1 - phase.y, ay.out_stride), phase.rows.end);
        r.x1 = minimum(ceil_div(r.x1 - phase.x, ax.out_stride), phase.cols.end);
        return r;
    };
    const int64_t border = shape.pad_mode == SB_PAD_CONSTANT ? x.border : 0; /* it holds zeros */
    windows = always || sizeof(T) != sizeof(In);
    for (int64_t i = begin; i < end && !windows; ++i) {
        const Region r = phase_region(i);
        windows = r.y0 < r.y1 && r.x0 < r.x1 &&
                  (r.y0 * ay.in_stride + phase.low_y < -border || (r.y1 - 1) * ay.in_stride + phase.high_y >= x.h + border ||
                   r.x0 * ax.in_stride + phase.low_x < -border || (r.x1 - 1) * ax.in_stride + phase.high_x >= x.w + border);
    }
    In *copy = nullptr;
    if (windows) copy = (In *)scratch(SCRATCH_WINDOW, sizeof(In) * strips * window.size());

    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) {
        const Region r = phase_region(i);
        if (r.y0 >= r.y1 || r.x0 >= r.x1) continue;
        const In *base;
        int64_t step_y, step_x;
        if (windows) {
            copy_window(phase, r, copy);
            base = copy;
            step_y = ay.in_stride / window.y.step * window.row();
            step_x = ax.in_stride / window.x.step * window.pitch;
            copy += window.size();
        } else {
            base = pixel<In>(x, r.n, r.y0 * ay.in_stride, r.x0 * ax.in_stride);
            step_y = ay.in_stride * x.stride_y;
            step_x = ax.in_stride * x.stride_x;
        }
        const int64_t out_x = r.x0 * ax.out_stride + phase.x, out_step = ax.out_stride * out.stride_x;
        const int64_t res_step = residual ? ax.out_stride * residual->stride_x : 0;
        for (int64_t qy = r.y0; qy < r.y1; ++qy, base += step_y) {
            const int64_t out_y = qy * ay.out_stride + phase.y, pixels = r.x1 - r.x0;
            T *to = pixel<T>(out, r.n, out_y, out_x);
            for (int64_t i = 0; i < pixels; ++i) {
                in[count + i] = base + i * step_x;
                dst[count + i] = to + i * out_step;
            }
            if (residual) {
                const T *from = pixel<T>(*residual, r.n, out_y, out_x);
                for (int64_t i = 0; i < pixels; ++i) res[count + i] = from + i * res_step;
            }
            count += pixels;
        }
    }
    return count;
}

/* A chunk's pixels of one group as AMX loads them, AMX_ROWS at a time. */
template <class T, int ALGORITHM>
const AmxRows *Run2d<T, ALGORITHM>::arrange(const Phase &phase, int64_t group, bool windows, int64_t pixels, const In *const *in) const {
    const int64_t count = ceil_div(pixels, AMX_ROWS), stride = amx_copy_stride(phase.steps);
    AmxRows *rows = (AmxRows *)scratch(SCRATCH_TILES, sizeof(AmxRows) * count);
    In *copies = (In *)scratch(SCRATCH_COPIES, sizeof(In) * count * AMX_ROWS * stride);
    const Run *runs = phase.runs[windows] + phase.panel_start[windows][0], *runs_end = phase.runs[windows] + phase.panel_start[windows][1];
    bool whole_runs = shape.whole_tiles(); /* else the steps are those of copies, even where runs happen to be whole */
    for (const Run *run = runs; run != runs_end; ++run) whole_runs &= run->offset % AMX_STEPS == 0;
    amx_rows(in, group * shape.in_group, pixels, runs, runs_end, whole_runs, phase.steps, copies, rows);
    return rows;
}

/* What all tiles of a unit have in common. */
template <class T, int ALGORITHM>
auto Run2d<T, ALGORITHM>::tile_of(const Phase &phase, int64_t unit, const T *const *res, EpilogueParams<UNIT> &params) const -> Tile<T, In> {
    const int64_t group = unit / shape.units_per_group, first = unit % shape.units_per_group * UNIT;
    const int lanes = (int)minimum(UNIT, shape.out_group - first);
    constexpr int64_t PER_FLOAT = ALGORITHM == SB_DIRECT ? 1 : 2; /* steps whose weights of a channel take a float */
    Tile<T, In> tile;
    tile.out_channel = group * shape.out_group + first;
    params = EpilogueParams<UNIT>(epilogue, tile.out_channel, lanes);
    tile.epilogue = &params;
    tile.channel = shape.depthwise ? first : group * shape.in_group;
    tile.vectors = (int)ceil_div(lanes, W);
    tile.stream = stream;
    tile.weight = weight + (phase.weight + phase.unit_steps * (group * shape.group_width + first)) / PER_FLOAT;
    tile.residual = residual ? res : nullptr;
    tile.residual_c = residual ? residual->stride_c : 0;
    return tile;
}

/* All pixels of a chunk, one unit of output channels. `lines` of `prefetch` per tile. */
template <class T, int ALGORITHM>
void Run2d<T, ALGORITHM>::sum(const Phase &phase, int64_t unit, bool windows, int64_t pixels, const In *const *in, const T *const *res,
                              T *const *dst, Prefetch<T> &prefetch, int64_t lines) const {
    EpilogueParams<UNIT> params;
    Tile<T, In> tile = tile_of(phase, unit, res, params);
    float *sums = phase.panels > 1 ? (float *)scratch(SCRATCH_SUMS, sizeof(float) * pixels * UNIT) : nullptr;
    /* Tiles of nearly equal size rather than full ones and a rest: small tiles are the slow ones. */
    const int64_t tiles = ceil_div(pixels, TILE);
    for (int64_t panel = 0; panel < phase.panels; ++panel) {
        tile.first = panel == 0;
        tile.last = panel == phase.panels - 1;
        tile.runs = phase.runs[windows] + phase.panel_start[windows][panel];
        tile.runs_end = phase.runs[windows] + phase.panel_start[windows][panel + 1];
        for (int64_t i = 0; i < tiles; ++i) {
            prefetch.advance(lines);
            const int64_t begin = i * pixels / tiles;
            tile.pixels = (int)((i + 1) * pixels / tiles - begin);
            tile.x = in + begin;
            if (residual) tile.residual = res + begin;
            tile.out = dst + begin;
            tile.sums = sums + begin * UNIT;
            if constexpr (ALGORITHM == SB_PAIRS) conv2d_pairs_tile(tile);
            else if (shape.depthwise) conv2d_depthwise_tile(tile);
            else conv2d_tile(tile);
        }
    }
}

/* All pixels of a chunk, all units. */
template <class T, int ALGORITHM>
void Run2d<T, ALGORITHM>::sum_amx(const Phase &phase, int64_t first_unit, int64_t last_unit, bool windows, int64_t pixels,
                                  const In *const *in, const T *const *res, T *const *dst, Prefetch<T> &prefetch, int64_t lines) const {
    const Run whole = {0, phase.unit_steps, 0}; /* of copies whose taps are no whole tiles */
    const int64_t most = minimum(shape.units_per_group, last_unit - first_unit);
    Tile<T, In> *tiles = (Tile<T, In> *)scratch(SCRATCH_SUMS, (sizeof(Tile<T, In>) + sizeof(EpilogueParams<UNIT>)) * most);
    EpilogueParams<UNIT> *params = (EpilogueParams<UNIT> *)(tiles + most);
    for (int64_t unit = first_unit; unit < last_unit;) {
        const int64_t group = unit / shape.units_per_group, end = minimum((group + 1) * shape.units_per_group, last_unit);
        int64_t count = 0;
        for (; unit < end; ++unit, ++count) {
            tiles[count] = tile_of(phase, unit, res, params[count]);
            tiles[count].out = dst;
            tiles[count].runs = phase.runs[windows] + phase.panel_start[windows][0];
            tiles[count].runs_end = phase.runs[windows] + phase.panel_start[windows][1];
            if (!shape.whole_tiles()) {
                tiles[count].runs = &whole;
                tiles[count].runs_end = &whole + 1;
            }
        }
        const AmxRows *rows = arrange(phase, group, windows, pixels, in);
        conv2d_amx_tiles(tiles, count, rows, pixels, phase.steps, (int64_t)sizeof(T) * phase.unit_steps * UNIT, prefetch, lines);
    }
}

template <class T, int ALGORITHM>
void Run2d<T, ALGORITHM>::item(int64_t chunk, int64_t next, int64_t first_unit, int64_t last_unit) const {
    const int64_t most = strips * regions.strip_h * regions.strip_w;
    const In **in = (const In **)scratch(SCRATCH_PIXELS, sizeof(void *) * 3 * most);
    const T **res = (const T **)(in + most);
    T **dst = (T **)(res + most);
    const int64_t begin = first_strip(next), end = first_strip(next + 1);
    Prefetch<T> written(ahead, out, SAME_PIXELS, SAME_PIXELS, begin, fetches_out() ? end : begin);
    Prefetch<T> added(ahead, residual ? *residual : out, SAME_PIXELS, SAME_PIXELS, begin, fetches_residual() ? end : begin, &written);
    Prefetch<T> prefetch(ahead, x, shape.y.prefetch(), shape.x.prefetch(), begin, fetches(x) ? end : begin, &added);
    int64_t left = 0; /* pixels; most chunks have all of theirs in one band */
    for (int64_t i = first_strip(chunk); i < first_strip(chunk + 1); ++i) {
        const Region r = regions[i];
        left += maximum(r.y1 - r.y0, 0) * maximum(r.x1 - r.x0, 0);
    }
    if constexpr (ALGORITHM == SB_AMX) amx_begin();
    for (int64_t i = 0; i < n_phases && left; ++i) {
        bool windows;
        const int64_t pixels = locate(phases[i], chunk, in, res, dst, windows);
        if (!pixels) continue;
        left -= pixels;
        const int64_t tiles = ceil_div(pixels, TILE) * phases[i].panels * (last_unit - first_unit);
        const int64_t lines = ceil_div(prefetch_lines, tiles);
        if constexpr (ALGORITHM == SB_AMX)
            sum_amx(phases[i], first_unit, last_unit, windows, pixels, in, res, dst, prefetch, lines);
        else
            for (int64_t unit = first_unit; unit < last_unit; ++unit) sum(phases[i], unit, windows, pixels, in, res, dst, prefetch, lines);
    }
    if constexpr (ALGORITHM == SB_AMX) amx_end();
    if (stream) stream_end();
}

/* Whether the list is of all blocks, in order. */
bool is_complete(const sb_blocks &blocks, const sb_plane &out) {
    const int64_t rows = ceil_div(out.h, blocks.block_h), cols = ceil_div(out.w, blocks.block_w);
    bool complete = *blocks.count == out.n * rows * cols;
    for (int64_t i = 0; i < *blocks.count && complete; ++i) {
        const int32_t *index = blocks.index + 3 * i;
        complete = (index[0] * rows + index[1]) * cols + index[2] == i;
    }
    return complete;
}

template <class T, int ALGORITHM>
void run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual,
         const sb_blocks *blocks, const sb_plane &out, int threads) {
    if (blocks && is_complete(*blocks, out)) blocks = nullptr; /* strips may be wider than a block then */
    const Shape shape(conv);
    const Axis &ay = shape.y, &ax = shape.x;
    const int64_t phases_count = ay.out_stride * ax.out_stride, taps = ay.kernel * ax.kernel;

    /* Pixels of a chunk so that its input, with a margin of one half for the halo, stays in the cache. */
    const int64_t elements_per_pixel = maximum(ay.in_stride * ax.in_stride * shape.in_channels * 3 / 2, 1);
    const int64_t width = blocks ? minimum(blocks->block_w, out.w) : out.w, strip_w = ceil_div(width, ceil_div(width, STRIP_COLUMNS));
    const bool narrow = ALGORITHM == SB_AMX && shape.whole_tiles() && strip_w % AMX_ROWS;
    int64_t most = minimum(CHUNK_PIXELS, CHUNK_FLOATS / elements_per_pixel);
    if (ALGORITHM == SB_AMX) {
        const int64_t row = amx_copy_stride(taps * shape.in_group), windows = ax.kernel * amx_copy_stride(shape.in_channels) * 3 / 2;
        const int64_t copied = narrow ? minimum(windows, row) : shape.whole_tiles() ? elements_per_pixel : row;
        most = minimum(AMX_CHUNK_PIXELS, COPY_BYTES / ((int64_t)sizeof(T) * copied));
    }
    const int64_t chunk = maximum(most, 4 * TILE_P) * phases_count;
    /* Few weights all threads read, each for pixels of its own: in strips so fine that these are about as many for each. Else threads share the
     * channels of a lone chunk: then all copy its pixels, and each finds half of them in another's cache. */
    const bool share_pixels = ALGORITHM == SB_AMX && threads > 1 && (int64_t)sizeof(T) * taps * shape.in_group * conv.out_channels <= SHARED_BYTES;
    int64_t strip = chunk; /* pixels */
    for (; share_pixels && strip > LEAST_STRIP * phases_count; strip /= 2) {
        const int64_t count = Regions(blocks, out, strip, STRIP_COLUMNS).count;
        if (count % threads == 0 || count >= 4 * threads) break;
    }
    const Regions regions(blocks, out, strip, STRIP_COLUMNS);
    if (!regions.count) return;

    Band bands_y[Axis::most_bands()], bands_x[Axis::most_bands()];
    const int64_t n_bands_y = ay.bands(out.h, x.h, shape.is_banded(ay), bands_y), n_bands_x = ax.bands(out.w, x.w, shape.is_banded(ax), bands_x);
    const int64_t bands = n_bands_y * n_bands_x, n_phases = bands * phases_count; /* one of the two is 1 */

    const int64_t panel_limit = ALGORITHM == SB_AMX ? taps * shape.in_group : PANEL_FLOATS / UNIT, full_panels = ceil_div(taps * shape.in_group, panel_limit);
    const int64_t most_runs = bands * (taps + full_panels) + n_phases;
    const size_t bytes = sizeof(Phase) * n_phases + 2 * sizeof(Run) * most_runs +
                         2 * sizeof(int32_t) * (bands * full_panels + 2 * n_phases) +
                         (sizeof(AxisTap) + sizeof(int64_t)) * (ay.kernel + ax.kernel);
    Phase *phases = (Phase *)scratch(SCRATCH_RUNS, bytes);
    AxisTap *rows = (AxisTap *)(phases + n_phases), *cols = rows + ay.kernel;
    int64_t *tap_y = (int64_t *)(cols + ax.kernel), *tap_x = tap_y + ay.kernel;
    Run *runs = (Run *)(tap_x + ax.kernel);
    int32_t *starts = (int32_t *)(runs + 2 * most_runs);

    const bool always = narrow && regions.strip_h * regions.strip_w % AMX_ROWS == 0;
    const Window window{WindowAxis(ay, rows, regions.strip_h, always && ay.in_stride > 1), WindowAxis(ax, cols, regions.strip_w, always),
                        ALGORITHM == SB_AMX && shape.whole_tiles() ? amx_copy_stride(shape.in_channels) : shape.in_channels};
    Regions ahead = regions;
    if (blocks) ahead.count += blocks->next * regions.rows * regions.cols;
    Run2d<T, ALGORITHM> run{shape, epilogue, x, residual, out, regions, ahead, packed, phases, n_phases, window, always};
    /* Chunks of about one size, as many for each thread. */
    const int64_t fewest = ceil_div(regions.count, maximum(chunk / (regions.strip_h * regions.strip_w), 1));
    if (fewest > 1 || share_pixels) run.chunks = minimum(ceil_div(fewest, threads) * threads, regions.count);
    run.strips = ceil_div(regions.count, run.chunks);
    run.pixels = blocks && blocks->whole ? (int64_t)blocks->whole * blocks->block_h * blocks->block_w
                                         : regions.count * regions.strip_h * regions.strip_w;
    run.stream = !(blocks && blocks->again) && is_streamed<T>(out, residual, shape.out_group, run.pixels);
    if (run.fetches(x)) run.prefetch_lines += run.strips * Prefetch<T>::lines(regions, x, ay.prefetch(), ax.prefetch());
    if (run.fetches_residual()) run.prefetch_lines += run.strips * Prefetch<T>::lines(regions, *residual, SAME_PIXELS, SAME_PIXELS);
    if (run.fetches_out()) run.prefetch_lines += run.strips * Prefetch<T>::lines(regions, out, SAME_PIXELS, SAME_PIXELS);

    int64_t weight = 0;
    for (int64_t i = 0; i < n_phases; ++i) {
        Phase &phase = phases[i];
        phase.y = i / bands / ax.out_stride;
        phase.x = i / bands % ax.out_stride;
        phase.rows = bands_y[i % bands / n_bands_x];
        phase.cols = bands_x[i % n_bands_x];
        const int64_t n_rows = ay.taps(phase.y, rows), n_cols = ax.taps(phase.x, cols);
        phase.rows.last = minimum(phase.rows.last, n_rows);
        phase.cols.last = minimum(phase.cols.last, n_cols);
        const int64_t used_rows = phase.rows.last - phase.rows.first, used_cols = phase.cols.last - phase.cols.first;
        phase.low_y = used_rows ? rows[phase.rows.first].offset : 0;
        phase.high_y = used_rows ? rows[phase.rows.last - 1].offset : 0;
        phase.low_x = used_cols ? cols[phase.cols.first].offset : 0;
        phase.high_x = used_cols ? cols[phase.cols.last - 1].offset : 0;
        phase.weight = weight;
        phase.unit_steps = shape.unit_steps(n_rows * n_cols);
        phase.steps = used_rows * used_cols * shape.in_group;
        phase.panels = maximum(ceil_div(phase.steps, panel_limit), 1);
        phase.panel_steps = ceil_div(ceil_div(phase.steps, phase.panels), 2) * 2; /* pairs stay together */
        for (int layout = 0; layout < 2; ++layout) {
            phase.runs[layout] = runs;
            phase.panel_start[layout] = starts;
            for (int64_t r = 0; r < n_rows; ++r)
                tap_y[r] = layout ? window.place_y(rows + r) : rows[r].offset * x.stride_y;
            for (int64_t s = 0; s < n_cols; ++s)
                tap_x[s] = layout ? window.place_x(cols + s) : cols[s].offset * x.stride_x;
            build_runs(phase, layout, tap_y, tap_x, n_cols, shape.in_group);
            runs += used_rows * used_cols + phase.panels;
            starts += phase.panels + 1;
        }
        if (i % bands == bands - 1) weight += phase.unit_steps * shape.groups * shape.group_width;
    }
    /* The largest band first: most chunks lie in it. */
    Phase *largest = phases;
    auto area = [](const Phase &phase) { return (phase.rows.end - phase.rows.begin) * (phase.cols.end - phase.cols.begin); };
    for (Phase *phase = phases; phase < phases + n_phases; ++phase)
        if (area(*phase) > area(*largest)) largest = phase;
    const Phase first = *phases;
    *phases = *largest;
    *largest = first;

    const int64_t chunks = run.chunks;
    int64_t shares = 1;
    const int64_t wanted = ALGORITHM == SB_AMX ? AMX_ITEMS_PER_THREAD : ITEMS_PER_THREAD;
    if (threads > 1) shares = minimum(ceil_div(wanted * threads, chunks), shape.units);
    const int64_t items = chunks * shares;
    parallel_for(items, threads, [&](int64_t i) {
        const CountSubnormalsAsZero mode;
        const int64_t share = i / chunks;
        const int64_t after = next_item(i, items, threads);
        const int64_t next = blocks && blocks->next ? i % chunks + chunks : after < items ? after % chunks : chunks;
        run.item(i % chunks, next, share * shape.units / shares, (share + 1) * shape.units / shares);
    });
}

/* Calls f(width, place) for every step of every unit, in the order of packed weights: place(lane) is where the weight of the unit's
 * lane lies, -1 past its channels. */
template <class F>
void each_step(const sb_conv2d &conv, F f) {
    const Shape s(conv);
    const int64_t taps = s.y.kernel * s.x.kernel;
    AxisTap *rows = (AxisTap *)scratch(SCRATCH_RUNS, sizeof(AxisTap) * (s.y.kernel + s.x.kernel)), *cols = rows + s.y.kernel;
    for (int64_t py = 0; py < s.y.out_stride; ++py) {
        const int64_t n_rows = s.y.taps(py, rows);
        for (int64_t px = 0; px < s.x.out_stride; ++px) {
            const int64_t n_cols = s.x.taps(px, cols);
            for (int64_t unit = 0; unit < s.units; ++unit) {
                const int64_t group = unit / s.units_per_group, first = unit % s.units_per_group * UNIT;
                const int64_t lanes = minimum(UNIT, s.out_group - first), width = ceil_div(lanes, W) * W;
                for (int64_t tap = 0; tap < n_rows * n_cols; ++tap) {
                    const int64_t in_kernel = rows[tap / n_cols].index * s.x.kernel + cols[tap % n_cols].index;
                    for (int64_t c = 0; c < s.in_group; ++c) {
                        f(width, [&](int64_t lane) -> int64_t {
                            const int64_t k = first + lane;
                            /* [k, c/groups, r, s]; transposed [c, k/groups, r, s], alike where a group is one channel. */
                            const int64_t row = conv.transposed && !s.depthwise
                                                    ? (group * s.in_group + c) * s.out_group + k
                                                    : (group * s.out_group + k) * s.in_group + c;
                            return lane < lanes ? row * taps + in_kernel : -1;
                        });
                    }
                }
            }
        }
    }
}

} // namespace

int64_t conv2d_packed_size(const sb_conv2d &conv) { return Shape(conv).packed_size(); }

void conv2d_pack(const sb_conv2d &conv, const float *weight, float *packed) {
    each_step(conv, [&](int64_t width, auto place) {
        for (int64_t lane = 0; lane < width; ++lane) {
            const int64_t from = place(lane);
            packed[lane] = from < 0 ? 0.0f : weight[from];
        }
        packed += width;
    });
}

void conv2d_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,
                const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads) {
    with_storage(out.dtype,
                 [&](auto zero) { run<decltype(zero), SB_DIRECT>(conv, packed, epilogue, x, residual, blocks, out, threads); });
}

#if SB_WIDTH == 16
/* Weights are rounded to bfloat16; those of a pair of channels lie side by side, as the channels do. */
int64_t pairs_packed_size(const sb_conv2d &conv) { return Shape(conv).packed_size() / 2; }

void pairs_pack(const sb_conv2d &conv, const float *weight, float *packed) {
    bf16 *to = (bf16 *)packed;
    bool second = false;
    each_step(conv, [&](int64_t width, auto place) {
        for (int64_t lane = 0; lane < width; ++lane) {
            const int64_t from = place(lane);
            store(to + 2 * lane + second, splat(from < 0 ? 0.0f : weight[from]), 1);
        }
        if (second) to += 2 * width;
        second = !second;
    });
}

void pairs_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual,
               const sb_blocks *blocks, const sb_plane &out, int threads) {
    run<bf16, SB_PAIRS>(conv, packed, epilogue, x, residual, blocks, out, threads);
}

/* As of pairs, in tiles: those of AMX_STEPS steps of one vector of channels lie together. */
int64_t amx_packed_size(const sb_conv2d &conv) { return Shape(conv).packed_size() / 2; }

void amx_pack(const sb_conv2d &conv, const float *weight, float *packed) {
    const int64_t steps = conv.kernel_h * conv.kernel_w * Shape(conv).in_group;
    memset(packed, 0, sizeof(float) * amx_packed_size(conv));
    bf16 *to = (bf16 *)packed; /* of the tiles that the step belongs to */
    int64_t step = 0;
    each_step(conv, [&](int64_t width, auto place) {
        const int64_t row = step % AMX_STEPS / 2;
        for (int64_t lane = 0; lane < width; ++lane) {
            const int64_t from = place(lane), tile = lane / W;
            store(to + ((tile * AMX_ROWS + row) * W + lane % W) * 2 + step % 2, splat(from < 0 ? 0.0f : weight[from]), 1);
        }
        if (++step == steps || step % AMX_STEPS == 0) to += width * AMX_STEPS;
        if (step == steps) step = 0;
    });
}

void amx_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual,
             const sb_blocks *blocks, const sb_plane &out, int threads) {
    run<bf16, SB_AMX>(conv, packed, epilogue, x, residual, blocks, out, threads);
}
#endif

} // namespace sb::SB_ISA
