/* Brings what a chunk of strips reads of a plane, or will write to it, into the second-level cache, a few lines at a time, while
 * another chunk computes.
 *
 * Only the pixels under the strips themselves, not their halo: neighbours mostly brought that already. Where the
 * window is smaller than the stride, only the pixels that are read. */
#pragma once

#include "regions.h"

namespace sb::SB_ISA {

struct PrefetchAxis {
    int64_t in_stride, out_stride, cell; /* cell: input pixels to bring per output pixel */
};
constexpr PrefetchAxis SAME_PIXELS = {1, 1, 1}; /* a plane that is read, or written, where the output is */

template <class T>
class Prefetch {
public:
    /* `then`: what comes after these lines, or NULL. */
    Prefetch(const Regions &regions, const sb_plane &x, PrefetchAxis y_axis, PrefetchAxis x_axis, int64_t first, int64_t last,
             Prefetch *then = nullptr)
        : regions_(regions), x_(x), y_axis_(y_axis), x_axis_(x_axis), strip_(first), last_(minimum(last, regions.count)), then_(then) {}

    /* About the number of lines of a whole strip. */
    static int64_t lines(const Regions &regions, const sb_plane &x, PrefetchAxis ay, PrefetchAxis ax) {
        const int64_t rows = ceil_div(regions.strip_h, ay.out_stride) * ay.cell, cols = ceil_div(regions.strip_w, ax.out_stride);
        const int64_t pixels = segment_pixels(x, ax, cols);
        return rows * (cols * ax.cell / pixels) * (((pixels - 1) * x.stride_x + x.c) / LINE + 1);
    }

    void advance(int64_t lines) {
        while (lines > 0) {
            if (line_ < end_) {
                __builtin_prefetch(line_, 0, 2);
                line_ += LINE;
                --lines;
            } else if (segment_ < segments_) {
                open_segment();
            } else if (strip_ < last_) {
                open_strip();
            } else {
                if (then_) then_->advance(lines);
                return;
            }
        }
    }

private:
    static constexpr int64_t LINE = 64 / sizeof(T); /* elements */

    void open_strip() {
        const Region r = regions_[strip_++];
        n_ = r.n;
        y0_ = r.y0 / y_axis_.out_stride;
        x0_ = r.x0 / x_axis_.out_stride;
        const int64_t rows = r.y1 > r.y0 ? (ceil_div(r.y1, y_axis_.out_stride) - y0_) * y_axis_.cell : 0;
        const int64_t cols = r.x1 > r.x0 ? ceil_div(r.x1, x_axis_.out_stride) - x0_ : 0;
        pixels_ = segment_pixels(x_, x_axis_, cols);
        row_segments_ = cols * x_axis_.cell / pixels_;
        segment_ = 0;
        segments_ = rows * row_segments_;
    }

    /* Pixels of a contiguous piece of a row: all of the strip's width, or the cell of one output pixel; only one where its channels are some
     * of a wider plane's, with lines between that are not wanted. */
    static int64_t segment_pixels(const sb_plane &x, PrefetchAxis axis, int64_t cols) {
        if (x.stride_x - x.c >= LINE) return 1;
        return axis.cell < axis.in_stride ? axis.cell : maximum(cols, 1) * axis.cell;
    }

    void open_segment() {
        const int64_t row = segment_ / row_segments_, column = segment_++ % row_segments_ * pixels_;
        const int64_t y = (y0_ + row / y_axis_.cell) * y_axis_.in_stride + row % y_axis_.cell;
        const int64_t x = (x0_ + column / x_axis_.cell) * x_axis_.in_stride + column % x_axis_.cell;
        if (y >= x_.h || x >= x_.w) return;
        line_ = pixel<T>(x_, n_, y, x);
        end_ = line_ + (minimum(pixels_, x_.w - x) - 1) * x_.stride_x + x_.c;
        line_ -= (uintptr_t)line_ / sizeof(T) % LINE; /* to the line's begin: else the last one is missed */
    }

    const Regions &regions_;
    const sb_plane &x_;
    const PrefetchAxis y_axis_, x_axis_;
    int64_t strip_, last_;
    int64_t n_ = 0, y0_ = 0, x0_ = 0, pixels_ = 1, row_segments_ = 1, segment_ = 0, segments_ = 0;
    const T *line_ = nullptr, *end_ = nullptr;
    Prefetch *const then_;
};

} // namespace sb::SB_ISA
