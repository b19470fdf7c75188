/* Changes from frame to frame: found in the frame (sb_compare_run), passed from the inputs of a step to its output
 * (sb_spread_run), and, where a tolerance says so, held back again (sb_run_changes). Gates are in residual_gate.cpp.
 *
 * Marks are bytes per pixel: coarser ones would grow by a whole tile at every 3x3. They are searched with memchr, so that
 * what did not change costs next to nothing. */
#include <string.h>

#include "changes.h"
#include "kernels.h"
#include "parallel.h"
#include "scratch.h"
#include "sparseblock.h"

namespace {

using sb::next_mark;
using sb::smaller;

int64_t element_bytes(const sb_plane &plane) { return plane.dtype == SB_F32 ? 4 : 2; }

/* Marks what reads a changed pixel of one source, in one stream. */
void spread(const sb_source &source, const sb_changes &in, const uint8_t *from, const sb_changes &out, uint8_t *to) {
    const int64_t w = in.w;
    uint8_t *touched = (uint8_t *)sb::scratch(sb::SCRATCH_RUNS, in.h + w), *line = touched + in.h;
    for (int64_t y = 0; y < in.h; ++y) touched[y] = next_mark(from + y * w, from + (y + 1) * w) != nullptr;
    for (int64_t y = 0; y < out.h; ++y, to += out.w) {
        const uint8_t *read = nullptr; /* the union of the input's rows that this one reads */
        for (int32_t i = source.rows.start[y]; i < source.rows.start[y + 1]; ++i) {
            const int64_t row = source.rows.index[i];
            if (!touched[row]) continue;
            const uint8_t *marks = from + row * w;
            if (!read) {
                read = marks;
                continue;
            }
            if (read != line) memcpy(line, read, w);
            for (int64_t x = 0; x < w; ++x) line[x] |= marks[x];
            read = line;
        }
        if (!read) continue;
        for (const uint8_t *hit = read; (hit = next_mark(hit, read + w)); ++hit)
            for (int32_t i = source.cols.start[hit - read]; i < source.cols.start[hit - read + 1]; ++i) to[source.cols.index[i]] = 1;
    }
}

/* Whether two runs of memory are the same for a tolerance; `largest` grows to the largest difference among them. */
bool same(int dtype, const char *a, const char *b, int64_t bytes, float tolerance, float &largest) {
    if (!memcmp(a, b, bytes)) return true;
    return tolerance > 0.0f && sb::within(dtype, a, b, bytes / (dtype == SB_F32 ? 4 : 2), tolerance, &largest);
}

/* Calls visit(run, bytes) for the memory of tile (n, y, x) of an NHWC plane, clipped to the frame: a run per row where pixels
 * have no gaps, else one per pixel. */
template <class Visit>
void each_run(const sb_plane &plane, const int32_t *place, int64_t height, int64_t width, Visit visit) {
    const int64_t bytes = element_bytes(plane), top = place[1] * height, left = place[2] * width;
    const int64_t bottom = smaller(top + height, plane.h), pixels = smaller(width, plane.w - left);
    const bool whole = plane.stride_x == plane.c;
    const int64_t runs = whole ? 1 : pixels, run = bytes * plane.c * (whole ? pixels : 1);
    for (int64_t y = top; y < bottom; ++y) {
        char *row = (char *)plane.data + bytes * (place[0] * plane.stride_n + y * plane.stride_y + left * plane.stride_x);
        for (int64_t i = 0; i < runs; ++i) visit(row + i * bytes * plane.stride_x, run);
    }
}

/* The tiles of a step's output as they were before it, copied aside one behind the other. */
struct Kept {
    const sb_plane &plane;
    const sb_changes &value;
    const sb_step &step;
    char *memory;
    int64_t tile_bytes;

    Kept(const sb_plane &plane_, const sb_changes &value_, const sb_step &step_) : plane(plane_), value(value_), step(step_) {
        tile_bytes = element_bytes(plane) * step.block_h * step.block_w * plane.c;
        memory = (char *)sb::scratch(sb::SCRATCH_KEPT, tile_bytes * *value.count);
    }
    /* Calls visit(run in the plane, run in the copy, bytes) for every run of tile i. */
    template <class Visit>
    void each(int64_t i, Visit visit) const {
        char *copy = memory + i * tile_bytes;
        each_run(plane, value.index + 3 * i, step.block_h, step.block_w, [&](char *run, int64_t bytes) {
            visit(run, copy, bytes);
            copy += bytes;
        });
    }
    void keep(int threads) const {
        sb::parallel_for(*value.count, threads, [&](int64_t i) {
            each(i, [](char *run, char *copy, int64_t bytes) { memcpy(copy, run, bytes); });
        });
    }
    void unmark(const int32_t *place) const {
        const int64_t top = (int64_t)place[1] * value.tile, left = (int64_t)place[2] * value.tile;
        for (int64_t y = top; y < smaller(top + value.tile, value.h); ++y)
            memset(value.pixels + (place[0] * (int64_t)value.h + y) * value.w + left, 0, smaller(value.tile, value.w - left));
    }
    /* Puts back the tiles that are the same for a tolerance, and unmarks them; returns the largest difference among them. */
    float put_back(float tolerance, const uint8_t *whole, int threads) const {
        float largest = 0.0f;
        int32_t held = 0;
        sb::on_threads(threads, [&](int t) {
            float most = 0.0f;
            int32_t back = 0;
            for (int64_t i = sb::stretch_end(*value.count, threads, t - 1); i < sb::stretch_end(*value.count, threads, t); ++i) {
                const int32_t *place = value.index + 3 * i;
                bool as_before = !whole[place[0]];
                float difference = 0.0f;
                each(i, [&](char *run, char *copy, int64_t bytes) {
                    as_before = as_before && same(plane.dtype, run, copy, bytes, tolerance, difference);
                });
                if (!as_before) continue;
                each(i, [](char *run, char *copy, int64_t bytes) { memcpy(run, copy, bytes); });
                unmark(place);
                most = difference > most ? difference : most;
                ++back;
            }
#pragma omp critical
            {
                largest = most > largest ? most : largest;
                held += back;
            }
        });
        *value.passed = *value.count - held;
        return largest;
    }
};

/* One step on what changed; returns the largest difference that was held back. */
float run_step(sb_step step, const sb_spread &spread, const sb_plane *planes, const sb_changes *changes, int streams, const uint8_t *whole,
               int threads, double *seconds) {
    const sb_changes &out = changes[spread.value];
    sb_spread_run(&spread, changes, streams, whole);
    if (spread.gate) sb_residual_gate_run(&spread, &step.u.conv2d, &planes[step.x], changes, streams, whole, threads);
    if (seconds) *seconds = 0.0;
    if (!*out.count) return 0.0f;
    const sb_list tiles = {out.index, out.count};
    step.list = 0;
    if (spread.tolerance < 0.0f) {
        sb_run(&step, 1, planes, &tiles, threads, seconds);
        return 0.0f;
    }
    const Kept kept(planes[step.out], out, step);
    kept.keep(threads);
    sb_run(&step, 1, planes, &tiles, threads, seconds);
    return kept.put_back(spread.tolerance, whole, threads);
}

} // namespace

void sb::list_tiles(const sb_changes &value, int streams) {
    const int64_t w = value.w, tile = value.tile;
    uint8_t *line = (uint8_t *)scratch(SCRATCH_RUNS, w);
    int32_t *place = value.index;
    for (int32_t n = 0; n < streams; ++n)
        for (int64_t top = 0; top < value.h; top += tile) {
            const uint8_t *rows = value.pixels + (n * (int64_t)value.h + top) * w;
            const int64_t height = smaller(tile, value.h - top);
            if (!next_mark(rows, rows + height * w)) continue;
            memcpy(line, rows, w);
            for (int64_t y = 1; y < height; ++y)
                for (int64_t x = 0; x < w; ++x) line[x] |= rows[y * w + x];
            const uint8_t *hit = line;
            while ((hit = next_mark(hit, line + w))) {
                const int64_t x = (hit - line) / tile;
                *place++ = n;
                *place++ = (int32_t)(top / tile);
                *place++ = (int32_t)x;
                hit = line + smaller((x + 1) * tile, w);
            }
        }
    *value.count = *value.passed = (int32_t)((place - value.index) / 3);
}

void sb_spread_run(const sb_spread *rule, const sb_changes *changes, int streams, const uint8_t *whole) {
    const sb_changes &out = changes[rule->value];
    const int64_t size = (int64_t)out.h * out.w;
    for (int64_t n = 0; n < streams; ++n) {
        uint8_t *pixels = out.pixels + n * size;
        memset(pixels, whole[n] ? 1 : 0, size);
        for (int i = 0; i < rule->n_sources && !whole[n]; ++i) {
            const sb_source &source = rule->sources[i];
            const sb_changes &in = changes[source.value];
            spread(source, in, in.pixels + n * in.h * in.w, out, pixels);
        }
    }
    sb::list_tiles(out, streams);
}

void sb_compare_run(const sb_plane *x, const sb_plane *last, float tolerance, const sb_changes *found, const uint8_t *whole,
                    int threads) {
    const int64_t bytes = element_bytes(*x), offset = (char *)last->data - (char *)x->data;
    /* A row is one run of memory, or one per channel; a pixel a piece of it. */
    const bool planar = x->stride_x == 1;
    const int64_t runs = planar ? x->c : 1, piece = planar ? bytes : bytes * x->c, run = piece * x->w;
    sb::parallel_for((int64_t)x->n * x->h, threads, [&](int64_t i) {
        const int64_t n = i / x->h, y = i % x->h;
        uint8_t *pixels = found->pixels + i * x->w;
        memset(pixels, whole[n] ? 1 : 0, x->w);
        char *row = (char *)x->data + bytes * (n * x->stride_n + y * x->stride_y);
        float largest = 0.0f;
        for (int64_t c = 0; c < runs && !whole[n]; ++c) {
            const char *now = row + bytes * c * x->stride_c;
            if (!memcmp(now, now + offset, run)) continue; /* most rows of a video */
            for (int64_t p = 0; p < x->w; ++p)
                pixels[p] |= !same(x->dtype, now + p * piece, now + p * piece + offset, piece, tolerance, largest);
        }
        for (const uint8_t *hit = pixels; (hit = next_mark(hit, pixels + x->w)); ++hit)
            for (int64_t c = 0; c < runs; ++c) {
                const char *now = row + bytes * c * x->stride_c + (hit - pixels) * piece;
                memcpy((char *)now + offset, now, piece);
            }
    });
    sb::list_tiles(*found, x->n);
}

void sb_run_changes(const sb_step *steps, const sb_spread *spreads, int n_steps, const sb_plane *planes, const sb_changes *changes,
                    int streams, const uint8_t *whole, int threads, float *dropped, double *seconds) {
    sb::with_team(n_steps > 1 ? threads : 1, [&] {
        for (int i = 0; i < n_steps; ++i)
            dropped[i] = run_step(steps[i], spreads[i], planes, changes, streams, whole, threads, seconds ? seconds + i : nullptr);
    });
}
