/* Residual gates: which of the tiles that read something changed are computed anew.
 *
 * Residuals are kept pixel by pixel, summed over the channels, and added up over what an output pixel reads. Only what reads a changed
 * pixel is decided anew: of all else the sum is what it was, when it was not over the threshold. */
#include "changes.h"
#include "kernels.h"
#include "parallel.h"
#include "scratch.h"
#include "sparseblock.h"

namespace {

using sb::next_mark;
using sb::smaller;

/* One convolution's gate at work. */
struct Gate {
    const sb_spread &spread;
    const sb_residual_gate &gate;
    const sb_conv2d &conv;
    const sb_plane &x;
    const sb_changes *changes;
    const sb_changes &out;

    int64_t place(int64_t n, int64_t y, int64_t column) const { return (n * x.h + y) * x.w + column; }
    uint8_t *marks(int64_t n, int64_t y) const { return out.pixels + (n * out.h + y) * out.w; }
    float *seen(int64_t pixel) const { return out.reference + pixel * x.c; }

    /* The channels of an input pixel: where they lie, or copied together. */
    const float *channels(int64_t n, int64_t y, int64_t column) const {
        const float *at = (const float *)x.data + n * x.stride_n + y * x.stride_y + column * x.stride_x;
        if (x.stride_c == 1) return at;
        float *copy = (float *)sb::scratch(sb::SCRATCH_RUNS, sizeof(float) * x.c);
        for (int64_t c = 0; c < x.c; ++c) copy[c] = at[c * x.stride_c];
        return copy;
    }
    void see(int64_t n, int64_t y, int64_t column) const {
        memcpy(seen(place(n, y, column)), channels(n, y, column), sizeof(float) * x.c);
    }

    /* Calls visit(column) for the pixels of an input row that changed; for some of them more than once, where it has several sources. What
     * runs on torch has one mark for all of its pixels. */
    template <class Visit>
    void each_changed(int64_t n, int64_t y, Visit visit) const {
        for (int i = 0; i < spread.n_sources; ++i) {
            const sb_changes &in = changes[spread.sources[i].value];
            if (in.h != x.h || in.w != x.w) {
                for (int64_t column = 0; column < x.w && in.pixels[n * in.h * in.w]; ++column) visit(column);
                continue;
            }
            const uint8_t *row = in.pixels + (n * x.h + y) * x.w;
            for (const uint8_t *hit = row; (hit = next_mark(hit, row + x.w)); ++hit) visit(hit - row);
        }
    }
    /* How far the changed pixels of a row are from the reference. */
    void measure(int64_t n, int64_t y) const {
        each_changed(n, y, [&](int64_t column) {
            const int64_t pixel = place(n, y, column);
            out.difference[pixel] = sb::distance(channels(n, y, column), seen(pixel), x.c);
        });
    }

    /* The sum of magnitudes of the residual over what an output pixel reads. */
    float norm(int64_t n, int64_t y, int64_t column) const {
        float sum = gate.since_update ? out.carried[(n * out.h + y) * out.w + column] : 0.0f;
        for (int32_t i = gate.rows.start[y]; i < gate.rows.start[y + 1]; ++i) {
            const float *row = out.difference + place(n, gate.rows.index[i], 0);
            for (int32_t j = gate.cols.start[column]; j < gate.cols.start[column + 1]; ++j) sum += row[gate.cols.index[j]];
        }
        return sum;
    }
    float product(int64_t n, int64_t y, int64_t column) const {
        float sum = gate.bias;
        for (int64_t r = 0; r < conv.kernel_h; ++r)
            for (int64_t s = 0; s < conv.kernel_w; ++s) {
                const int64_t in_y = y * conv.stride_h - conv.pad_h + r * conv.dilation_h;
                const int64_t in_x = column * conv.stride_w - conv.pad_w + s * conv.dilation_w;
                if (in_y < 0 || in_y >= x.h || in_x < 0 || in_x >= x.w) continue;
                const float *weight = gate.weight + (r * conv.kernel_w + s) * x.c;
                sum += sb::weighted_difference(weight, channels(n, in_y, in_x), seen(place(n, in_y, in_x)), x.c);
            }
        return sum;
    }
    /* A NaN opens. */
    bool opens(int64_t n, int64_t y, int64_t column) const {
        const float sum = norm(n, y, column);
        if (!gate.weight) return !(sum <= gate.threshold);
        return !(sum <= 0.0f) && !(product(n, y, column) <= 0.0f);
    }
    /* Marks all of a tile, or nothing. */
    void decide(const int32_t *tile) const {
        const int64_t n = tile[0], top = (int64_t)tile[1] * out.tile, left = (int64_t)tile[2] * out.tile;
        const int64_t bottom = smaller(top + out.tile, out.h), right = smaller(left + out.tile, out.w);
        bool open = false;
        for (int64_t y = top; y < bottom && !open; ++y)
            for (int64_t column = left; column < right && !open; ++column) open = marks(n, y)[column] && opens(n, y, column);
        for (int64_t y = top; y < bottom; ++y) memset(marks(n, y) + left, open, right - left);
    }

    /* Calls visit(pixel of the output) for those that read a pixel of the input, until it returns true; whether it did. */
    template <class Visit>
    bool any_reader(int64_t n, int64_t y, int64_t column, Visit visit) const {
        for (int32_t i = gate.row_readers.start[y]; i < gate.row_readers.start[y + 1]; ++i)
            for (int32_t j = gate.col_readers.start[column]; j < gate.col_readers.start[column + 1]; ++j)
                if (visit((n * out.h + gate.row_readers.index[i]) * out.w + gate.col_readers.index[j])) return true;
        return false;
    }
    /* Calls visit(column) for the pixels of an input row that differ from the reference and that something open reads. */
    template <class Visit>
    void each_moving(int64_t n, int64_t y, Visit visit) const {
        for (int64_t column = 0; column < x.w; ++column)
            if (out.difference[place(n, y, column)] != 0.0f && any_reader(n, y, column, [&](int64_t i) { return out.pixels[i]; }))
                visit(column);
    }
    /* Lets closed pixels of the output that read this one of the input keep in mind how far it moves. */
    void carry(int64_t n, int64_t y, int64_t column) const {
        const float moved = out.difference[place(n, y, column)];
        any_reader(n, y, column, [&](int64_t i) {
            if (!out.pixels[i]) out.carried[i] += moved;
            return false;
        });
    }
    /* The reference of what changed is the frame before: this one, from now on. */
    void see_changed(int64_t n, int64_t y) const {
        each_changed(n, y, [&](int64_t column) {
            see(n, y, column);
            out.difference[place(n, y, column)] = 0.0f;
        });
    }
    void carry_all(int64_t n) const {
        for (int64_t y = 0; y < x.h; ++y)
            each_moving(n, y, [&](int64_t column) { carry(n, y, column); });
        for (int64_t y = 0; y < out.h; ++y)
            for (const uint8_t *row = marks(n, y), *hit = row; (hit = next_mark(hit, row + out.w)); ++hit)
                out.carried[(n * out.h + y) * out.w + (hit - row)] = 0.0f;
    }
    void see_moving(int64_t n, int64_t y) const {
        each_moving(n, y, [&](int64_t column) {
            see(n, y, column);
            out.difference[place(n, y, column)] = 0.0f;
        });
    }
    void see_all(int64_t n) const {
        for (int64_t y = 0; y < x.h; ++y)
            for (int64_t column = 0; column < x.w; ++column) see(n, y, column);
        memset(out.difference + place(n, 0, 0), 0, sizeof(float) * x.h * x.w);
        if (out.carried) memset(out.carried + n * out.h * out.w, 0, sizeof(float) * out.h * out.w);
    }
};

} // namespace

void sb_residual_gate_run(const sb_spread *spread, const sb_conv2d *conv, const sb_plane *x, const sb_changes *changes, int streams,
                          const uint8_t *whole, int threads) {
    const sb_changes &out = changes[spread->value];
    const Gate gate = {*spread, *spread->gate, *conv, *x, changes, out};
    /* Row by row of the input, of the streams that do not run whole. */
    auto each_row = [&](auto visit) {
        sb::parallel_for(streams * x->h, threads, [&](int64_t i) {
            if (!whole[i / x->h]) visit(i / x->h, i % x->h);
        });
    };
    if (*out.count) each_row([&](int64_t n, int64_t y) { gate.measure(n, y); });
    sb::parallel_for(*out.count, threads, [&](int64_t i) {
        const int32_t *tile = out.index + 3 * i;
        if (!whole[tile[0]]) gate.decide(tile);
    });
    if (gate.gate.since_update) {
        for (int n = 0; n < streams; ++n)
            if (!whole[n]) gate.carry_all(n);
        each_row([&](int64_t n, int64_t y) { gate.see_moving(n, y); });
    } else each_row([&](int64_t n, int64_t y) { gate.see_changed(n, y); });
    for (int n = 0; n < streams; ++n)
        if (whole[n]) gate.see_all(n);
    if (*out.count) sb::list_tiles(out, streams);
}
