/* Where a convolution reads and writes: axes and their taps, bands of pixels that the same taps reach, runs of consecutive elements, and
 * windows in scratch. Shared by all microkernels; see conv2d.cpp. */
#pragma once

#include "conv2d.h"
#include "prefetch.h"

namespace sb::SB_ISA::geometry {

constexpr int64_t BANDED_TAPS = 5; /* along an axis: with more, bands are many and narrow */

struct AxisTap {
    int64_t offset, index; /* input pixel relative to the window's origin; position in the kernel */
};

/* Output pixels from `begin` to `end` along an axis, and the taps from `first` to `last` that reach the frame from there. */
struct Band {
    int64_t begin, end, first, last;
};

/* One axis: output pixel q*out_stride + phase sums over input pixels q*in_stride + offset of the phase's taps. */
struct Axis {
    int64_t kernel, in_stride, out_stride, pad, dilation;
    bool transposed;

    Axis(int64_t kernel_, int64_t stride, int64_t pad_, int64_t dilation_, bool transposed_)
        : kernel(kernel_), in_stride(transposed_ ? 1 : stride), out_stride(transposed_ ? stride : 1), pad(pad_),
          dilation(dilation_), transposed(transposed_) {}

    /* Writes the taps of a phase in ascending order of offset; returns how many. */
    int64_t taps(int64_t phase, AxisTap *out) const {
        int64_t count = 0;
        for (int64_t i = 0; i < kernel; ++i) {
            const int64_t r = transposed ? kernel - 1 - i : i;
            const int64_t reach = transposed ? phase + pad - r * dilation : r * dilation - pad;
            if (reach % out_stride == 0) out[count++] = {reach / out_stride, r};
        }
        return count;
    }
    /* Cuts `pixels` outputs of a map of `size` inputs into bands, of which there are at most most_bands(); returns how many. */
    int64_t bands(int64_t pixels, int64_t size, bool banded, Band *out) const {
        if (!banded) {
            *out = {0, pixels, 0, kernel};
            return 1;
        }
        int64_t count = 0;
        for (int64_t q = 0; q < pixels; q = out[count++].end) {
            const int64_t origin = q * in_stride - pad, left = size - origin; /* to the frame's end */
            const int64_t first = minimum(origin < 0 ? ceil_div(-origin, dilation) : 0, kernel);
            const int64_t last = maximum(minimum(left > 0 ? ceil_div(left, dilation) : 0, kernel), first);
            int64_t end = pixels; /* or where one tap more is inside, or one less */
            if (first > 0) end = minimum(end, ceil_div(pad - (first - 1) * dilation, in_stride));
            if (last > first) end = minimum(end, ceil_div(size + pad - (last - 1) * dilation, in_stride));
            out[count] = {q, end, first, last};
        }
        return count;
    }
    bool is_banded() const { return dilation > 1 && kernel <= BANDED_TAPS && !transposed; }
    static constexpr int64_t most_bands() { return 2 * BANDED_TAPS + 1; }
    /* Bounds of the offsets of all phases: for each tap the one phase that it reaches rounds up, as the division does. */
    int64_t lowest() const { return transposed ? (pad - (kernel - 1) * dilation) / out_stride : -pad; }
    int64_t highest() const { return transposed ? (out_stride - 1 + pad) / out_stride : (kernel - 1) * dilation - pad; }
    PrefetchAxis prefetch() const { return {in_stride, out_stride, minimum(in_stride, highest() - lowest() + 1)}; }
};

struct Shape {
    Axis y, x;
    int64_t in_channels, groups, in_group, out_group; /* channels per group */
    int64_t group_width, units_per_group, units;      /* channels of a group rounded up to vectors */
    int64_t unit_padding; /* steps of a unit are a multiple of it */
    bool depthwise;
    int pad_mode;

    explicit Shape(const sb_conv2d &c)
        : y(c.kernel_h, c.stride_h, c.pad_h, c.dilation_h, c.transposed), x(c.kernel_w, c.stride_w, c.pad_w, c.dilation_w, c.transposed) {
        pad_mode = c.pad_mode;
        in_channels = c.in_channels;
        depthwise = c.groups > 1 && c.groups == c.in_channels && c.groups == c.out_channels;
        groups = depthwise ? 1 : c.groups;
        in_group = c.in_channels / c.groups;
        out_group = c.out_channels / groups;
        group_width = ceil_div(out_group, W) * W;
        units_per_group = ceil_div(group_width, UNIT);
        units = groups * units_per_group;
        unit_padding = c.algorithm == SB_AMX ? AMX_STEPS : 1;
    }
    int64_t unit_steps(int64_t taps) const { return ceil_div(taps * in_group, unit_padding) * unit_padding; }
    /* A tap's channels are whole tiles of steps. Where they are not, the steps of some taps are not either. */
    bool whole_tiles() const { return in_group % unit_padding == 0; }
    bool is_banded(const Axis &axis) const { return pad_mode == SB_PAD_CONSTANT && whole_tiles() && axis.is_banded(); }
    int64_t packed_size() const { return unit_steps(y.kernel * x.kernel) * groups * group_width; }
};

/* An output phase, or of one without phases a band of rows and columns, with its runs for each layout of the input. */
struct Phase {
    int64_t y, x, weight, unit_steps; /* weight: where its packed weights begin; unit_steps: all taps * channels of a group */
    Band rows, cols;
    int64_t low_y, high_y, low_x, high_x; /* of its taps' offsets */
    int64_t steps, panels, panel_steps;   /* steps: the band's own taps * channels of a group */
    Run *runs[2];         /* 0: plane, 1: window */
    int32_t *panel_start[2]; /* [panels + 1], into runs */
};

/* Runs of the band's taps, cut where panels end. `y`, `x`: where the phase's taps lie from a pixel's base pointer, in elements. */
inline void build_runs(Phase &phase, int layout, const int64_t *y, const int64_t *x, int64_t n_cols, int64_t channels) {
    Run *runs = phase.runs[layout];
    int32_t *start = phase.panel_start[layout];
    int64_t filled = 0;
    int32_t n = 0;
    *start = 0;
    auto add = [&](int64_t offset, int64_t length, int64_t weight) {
        Run *last = n > *start ? runs + n - 1 : nullptr;
        if (last && last->offset + last->length == offset && last->weight + last->length == weight) last->length += length;
        else runs[n++] = {offset, length, weight};
    };
    for (int64_t r = phase.rows.first; r < phase.rows.last; ++r)
        for (int64_t s = phase.cols.first; s < phase.cols.last; ++s)
            for (int64_t c = 0; c < channels;) {
                const int64_t length = minimum(channels - c, phase.panel_steps - filled);
                add(y[r] + x[s] + c, length, (r * n_cols + s) * channels + c);
                c += length;
                filled += length;
                if (filled == phase.panel_steps) {
                    *++start = n;
                    filled = 0;
                }
            }
    if (filled || !phase.steps) *++start = n;
}

/* How the input pixels of a strip lie along one axis of its window: `segments` of `length` pixels, `step` apart in the plane.
 * One segment with everything between the first pixel and the last, or a segment per tap: where that is less, or where outputs
 * that follow one another are to read inputs that do (`per_tap`; not for transposed ones, whose phases have different taps). */
struct WindowAxis {
    int64_t segments, length, step;
    const AxisTap *taps; /* of the segments; NULL: one segment, from the lowest offset on */
    int64_t lowest;

    WindowAxis(const Axis &axis, const AxisTap *taps_, int64_t strip, bool per_tap) {
        const int64_t pixels = ceil_div(strip, axis.out_stride);
        segments = 1;
        length = (pixels - 1) * axis.in_stride + axis.highest() - axis.lowest() + 1;
        step = 1;
        taps = nullptr;
        lowest = axis.lowest();
        if (!axis.transposed && (per_tap || axis.kernel * pixels < length)) {
            segments = axis.kernel;
            length = pixels;
            step = axis.in_stride;
            taps = taps_;
        }
    }
    int64_t size() const { return segments * length; }
    /* How much of a segment a strip of `pixels` reads; fewer than the largest strip has. */
    int64_t used(int64_t pixels, const Axis &axis) const {
        return taps ? pixels : (pixels - 1) * axis.in_stride + axis.highest() - axis.lowest() + 1;
    }
    /* The segments that a band's taps read. */
    int64_t first(const Band &band) const { return taps ? band.first : 0; }
    int64_t last(const Band &band) const { return taps ? band.last : 1; }
    int64_t offset(int64_t segment) const { return taps ? taps[segment].offset : lowest; } /* of its first pixel, in the plane */
    int64_t place(const AxisTap *tap) const { return taps ? (tap - taps) * length : tap->offset - lowest; } /* in the window */
};

/* A strip's window: for each segment along x the rows of all segments along y, of x.length pixels that are `pitch` elements apart. */
struct Window {
    WindowAxis y, x;
    int64_t pitch;

    int64_t row() const { return x.length * pitch; }
    int64_t segment() const { return y.size() * row(); } /* of x */
    int64_t size() const { return x.segments * segment(); }
    /* Where a tap's input lies from that of a window's first tap, along each axis. */
    int64_t place_y(const AxisTap *tap) const { return y.place(tap) * row(); }
    int64_t place_x(const AxisTap *tap) const { return x.taps ? (tap - x.taps) * segment() : x.place(tap) * pitch; }
};

} // namespace sb::SB_ISA::geometry
