/* What the families share: random cases, maps whose surroundings tell on a kernel, and the comparison.
 *
 * A map lies in memory of its own, with a zero border, and with channels of a stranger behind each pixel: NaN where the map
 * is read, a sentinel where it is written. A kernel that reads or writes what is not its own shows in the values, and one
 * that leaves the memory shows under the address sanitizer. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "sparseblock.h"

struct Random {
    uint64_t state;

    uint64_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return state >> 33;
    }
    int between(int low, int high) { return low + (int)(next() % (uint64_t)(high - low + 1)); }
    bool coin() { return between(0, 1); }
    float value() { return (float)between(-1000, 1000) / 500.0f; }
    std::vector<float> values(size_t count) {
        std::vector<float> v(count);
        for (float &x : v) x = value();
        return v;
    }
};

constexpr float SENTINEL = -7777.25f;

struct Map {
    int n, h, w, c, border, pixel; /* pixel: floats from one pixel to the next */
    std::vector<float> memory;

    Map(int n_, int h_, int w_, int c_, int border_, int strangers, float fill)
        : n(n_), h(h_), w(w_), c(c_), border(border_), pixel(c_ + strangers),
          memory((size_t)n_ * (h_ + 2 * border_) * (w_ + 2 * border_) * pixel, fill) {}

    /* To be read: random values, zeros in the border, NaN in the strangers' channels. */
    static Map source(Random &random, int n, int h, int w, int c, int border) {
        Map map(n, h, w, c, border, random.between(0, 3), NAN);
        for (int i = 0; i < n; ++i)
            for (int y = -border; y < h + border; ++y)
                for (int x = -border; x < w + border; ++x)
                    for (int k = 0; k < c; ++k) map.at(i, y, x, k) = map.inside(y, x) ? random.value() : 0.0f;
        return map;
    }
    /* To be written: sentinels everywhere. */
    static Map target(Random &random, int n, int h, int w, int c) { return Map(n, h, w, c, random.between(0, 1), random.between(0, 3), SENTINEL); }

    bool inside(int y, int x) const { return y >= 0 && y < h && x >= 0 && x < w; }
    size_t place(int i, int y, int x, int k) const {
        return (((size_t)i * (h + 2 * border) + y + border) * (w + 2 * border) + x + border) * pixel + k;
    }
    float &at(int i, int y, int x, int k) { return memory[place(i, y, x, k)]; }
    float at(int i, int y, int x, int k) const { return memory[place(i, y, x, k)]; }
    /* Zero outside of the frame. */
    double padded(int i, int y, int x, int k) const { return inside(y, x) ? at(i, y, x, k) : 0.0; }

    /* As a padding mode says. */
    double padded(int i, int y, int x, int k, int mode) const {
        if (mode == SB_PAD_CONSTANT) return padded(i, y, x, k);
        auto source = [&](int place, int size) {
            if (mode == SB_PAD_CIRCULAR) return (place + size) % size;
            if (mode == SB_PAD_REPLICATE) return place < 0 ? 0 : place < size ? place : size - 1;
            return place < 0 ? -place : place < size ? place : 2 * (size - 1) - place;
        };
        return at(i, source(y, h), source(x, w), k);
    }

    sb_plane plane() {
        sb_plane p = {};
        p.data = &at(0, 0, 0, 0);
        p.stride_x = pixel;
        p.stride_y = (int64_t)(w + 2 * border) * pixel;
        p.stride_n = (h + 2 * border) * p.stride_y;
        p.stride_c = 1;
        p.n = n, p.h = h, p.w = w, p.c = c, p.border = border;
        return p;
    }
};

/* Some of the blocks of a map, none, or all; in an order of chance. */
struct Active {
    int block_h, block_w, rows, cols;
    std::vector<uint8_t> mask;
    std::vector<int32_t> index;
    int32_t count = 0;

    Active(Random &random, const Map &map) {
        block_h = random.between(1, 9);
        block_w = random.between(1, 9);
        rows = (map.h + block_h - 1) / block_h;
        cols = (map.w + block_w - 1) / block_w;
        mask.resize((size_t)map.n * rows * cols);
        const int share = random.between(0, 4); /* of 4 */
        for (uint8_t &active : mask) active = random.between(1, 4) <= share;
        index.resize(3 * mask.size() + 3);
        sb_blocks_from_mask(mask.data(), map.n, rows, cols, index.data(), &count);
        for (int i = count - 1; i > 0; --i) {
            const int other = random.between(0, i);
            for (int k = 0; k < 3; ++k) {
                const int32_t kept = index[3 * i + k];
                index[3 * i + k] = index[3 * other + k];
                index[3 * other + k] = kept;
            }
        }
    }
    bool covers(int n, int y, int x) const { return mask[((size_t)n * rows + y / block_h) * cols + x / block_w]; }
    sb_blocks list() const { return {index.data(), &count, block_h, block_w, 0, 0}; }
};

/* A value as plain loops have it, in double, and the sum of the magnitudes that went into it. */
struct Exact {
    double value, magnitude;
    int terms;

    /* How far float32 may be off: each of `terms` operations rounds once, relative to at most `magnitude`. */
    double tolerance() const { return 1.1920929e-7 * (terms + 1) * magnitude; }
};

/* The epilogue with every pointer there or not, and what plain arithmetic makes of it. */
struct Epilogue {
    std::vector<float> bias, scale, shift, slope;
    int activation, combine;
    float low = 0.0f, high = 6.0f;

    Epilogue(Random &random, int channels, bool with_bias) {
        if (with_bias && random.coin()) bias = random.values(channels);
        if (random.coin()) scale = random.values(channels);
        if (random.coin()) shift = random.values(channels);
        combine = random.between(SB_ADD, SB_MULTIPLY);
        activation = random.between(SB_IDENTITY, SB_HARDSWISH);
        if (activation == SB_PRELU || activation == SB_ELU) {
            slope = random.values(channels);
            for (float &s : slope) s /= 2.0f; /* at most 1: an activation does not widen the tolerance */
        }
    }
    sb_epilogue get() const {
        auto pointer = [](const std::vector<float> &v) { return v.empty() ? nullptr : v.data(); };
        sb_epilogue e = {};
        e.bias = pointer(bias), e.scale = pointer(scale), e.shift = pointer(shift), e.slope = pointer(slope);
        e.activation = activation;
        e.combine = combine;
        e.low = low, e.high = high;
        return e;
    }
    /* The residual that changes nothing. */
    double neutral() const { return combine == SB_ADD ? 0.0 : 1.0; }
    Exact apply(Exact v, int k, double residual) const {
        if (!bias.empty()) v.value += bias[k], v.magnitude += fabs(bias[k]);
        if (combine == SB_ADD) v.value += residual, v.magnitude += fabs(residual);
        else v.value *= residual, v.magnitude *= fabs(residual);
        if (!scale.empty()) v.value *= scale[k], v.magnitude *= fabs(scale[k]);
        if (!shift.empty()) v.value += shift[k], v.magnitude += fabs(shift[k]);
        v.terms += 4;
        v.value = activate(v.value, k);
        if (activation > SB_PRELU) { /* slopes of at most 1.5, and errors of its own of at most 6 eps and 6 eps of the value */
            v.terms += 6;
            v.magnitude = 1.5 * v.magnitude + 1.0;
        }
        return v;
    }
    double activate(double v, int k) const {
        const double sigmoid = 1.0 / (1.0 + exp(-v)), hard = fmin(fmax(v + 3.0, 0.0), 6.0) / 6.0;
        switch (activation) {
        case SB_RELU: return fmax(v, 0.0);
        case SB_CLAMP: return fmin(fmax(v, low), high);
        case SB_PRELU: return v > 0.0 ? v : v * slope[k];
        case SB_ELU: return v > 0.0 ? v : slope[k] * expm1(v);
        case SB_SIGMOID: return sigmoid;
        case SB_TANH: return tanh(v);
        case SB_SILU: return v * sigmoid;
        case SB_GELU: return 0.5 * v * erfc(-v * sqrt(0.5));
        case SB_GELU_TANH: return 0.5 * v * (1.0 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
        case SB_MISH: return v * tanh(log1p(exp(v)));
        case SB_SOFTPLUS: return v > 30.0 ? v : log1p(exp(v));
        case SB_HARDSIGMOID: return hard;
        case SB_HARDSWISH: return v * hard;
        }
        return v;
    }
};

[[noreturn]] inline void fail(const char *family, int number, const char *what) {
    printf("%s: case %d on %s: %s\n", family, number, sb_isa(), what);
    exit(1);
}

/* Runs `kernel(out, blocks, threads)` over some blocks with one thread and with three, and over every pixel, and compares:
 * active elements with `exact(n, y, x, k)`, all others with what was there, bit for bit. */
template <class Kernel, class Oracle>
void check(const char *family, int number, Random &random, Map &out, Kernel kernel, Oracle exact) {
    const Active active(random, out);
    const sb_blocks list = active.list();
    const Map before = out;
    for (const bool dense : {false, true}) {
        Map once = before, thrice = before;
        const sb_plane first = once.plane(), second = thrice.plane();
        kernel(first, dense ? nullptr : &list, 1);
        kernel(second, dense ? nullptr : &list, 3);
        if (memcmp(once.memory.data(), thrice.memory.data(), sizeof(float) * once.memory.size()))
            fail(family, number, "three threads give other bits than one");
        for (int i = 0; i < out.n; ++i)
            for (int y = 0; y < out.h; ++y)
                for (int x = 0; x < out.w; ++x)
                    for (int k = 0; k < out.c; ++k) {
                        if (!dense && !active.covers(i, y, x)) continue;
                        const Exact wanted = exact(i, y, x, k);
                        const float got = once.at(i, y, x, k);
                        if (!(fabs(got - wanted.value) <= wanted.tolerance())) {
                            char line[200];
                            snprintf(line, sizeof(line), "[n=%d y=%d x=%d c=%d] is %.9g instead of %.9g, which is off by more than %.3g",
                                     i, y, x, k, got, wanted.value, wanted.tolerance());
                            fail(family, number, line);
                        }
                        once.at(i, y, x, k) = before.at(i, y, x, k);
                    }
        if (memcmp(once.memory.data(), before.memory.data(), sizeof(float) * once.memory.size()))
            fail(family, number, "something outside of the active blocks was written");
    }
}
