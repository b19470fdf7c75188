/* What a convolution reads, transposed or not: csrc/cpu/conv2d.cpp. Output pixels of one axis fall into phases, stride of them when
 * transposed and one else; all pixels of a phase sum over the same taps, from input pixels that lie evenly. */
#pragma once

#include "maps.h"
#include "pad.h"

namespace sb {

/* The taps of a phase: `count` of the kernel's, from number `first` in steps of `step`. Tap i reads the input pixel that lies
 * `offset` + i * `offset_step` from the output pixel's own. */
struct Taps {
    int first, step, count, offset, offset_step;
};

struct Axis {
    int kernel, stride, pad, dilation;
    bool transposed;

    SB_DEVICE int phases() const { return transposed ? stride : 1; }
    SB_DEVICE Taps taps(int phase) const {
        if (!transposed) return {0, 1, kernel, -pad, dilation};
        int step = 1, first = 0;
        while (step * dilation % stride) ++step;
        while (first < step && (phase + pad - first * dilation) % stride) ++first;
        const int count = first < step ? (int)maximum(ceil_div(kernel - first, step), 0) : 0;
        return {first, step, count, (phase + pad - first * dilation) / stride, -(step * dilation / stride)};
    }
    /* The input pixel of output pixel `place`, from which the offsets count. */
    SB_DEVICE int64_t own(int64_t place) const { return transposed ? place / stride : place * stride; }
};

SB_DEVICE Axis axis_y(const sb_conv2d &c) { return {c.kernel_h, c.stride_h, c.pad_h, c.dilation_h, c.transposed != 0}; }
SB_DEVICE Axis axis_x(const sb_conv2d &c) { return {c.kernel_w, c.stride_w, c.pad_w, c.dilation_w, c.transposed != 0}; }

/* The first pixel of `phase` from `from` on. */
SB_DEVICE int64_t first_of_phase(int64_t from, int phase, int phases) { return from + (phase - from % phases + phases) % phases; }

} // namespace sb
