/* The window of a pooled pixel: one formula for pool2d.cpp and its gradient. */
#pragma once

#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

/* Indices [first, last) of a window's taps that lie in [0, size). */
struct Taps {
    int64_t first, last;
    Taps(int64_t origin, int64_t kernel, int64_t dilation, int64_t size) {
        first = origin < 0 ? ceil_div(-origin, dilation) : 0;
        last = origin < size ? minimum(kernel, ceil_div(size - origin, dilation)) : 0;
        last = maximum(first, last);
    }
};

/* The windows of one axis. */
struct Axis {
    int64_t kernel, stride, pad, dilation, size, out;
    bool adaptive;

    int64_t origin(int64_t i) const { return adaptive ? i * size / out : i * stride - pad; }
    int64_t length(int64_t i) const { return adaptive ? ceil_div((i + 1) * size, out) - i * size / out : kernel; }
    int64_t longest() const { return adaptive ? size / out + 2 : kernel; }
};
SB_INLINE Axis vertical(const sb_pool2d &pool, const sb_plane &x, const sb_plane &out) {
    return {pool.kernel_h, pool.stride_h, pool.pad_h, pool.adaptive ? 1 : pool.dilation_h, x.h, out.h, pool.adaptive != 0};
}
SB_INLINE Axis horizontal(const sb_pool2d &pool, const sb_plane &x, const sb_plane &out) {
    return {pool.kernel_w, pool.stride_w, pool.pad_w, pool.adaptive ? 1 : pool.dilation_w, x.w, out.w, pool.adaptive != 0};
}

/* What an average over the window from (top, left), of which `taps` lie in the frame, is divided by. */
SB_INLINE float divisor(const sb_pool2d &pool, const sb_plane &x, int64_t top, int64_t left, int64_t taps) {
    if (pool.divisor) return (float)pool.divisor;
    if (pool.count_include_pad && !pool.adaptive)
        taps = (minimum(top + pool.kernel_h, x.h + pool.pad_h) - top) * (minimum(left + pool.kernel_w, x.w + pool.pad_w) - left);
    return (float)maximum(taps, 1);
}

} // namespace sb::SB_ISA
