/* Where a resized pixel comes from: one formula for interpolate.cpp and its gradient. */
#pragma once

#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

struct Source {
    int64_t near, far;
    float far_weight;
};

static inline Source source(const sb_interpolate &resize, float scale, int64_t place, int64_t size) {
    Source s;
    float position = (float)place * scale;
    if (resize.mode == SB_BILINEAR && !resize.align_corners) {
        position = scale * ((float)place + 0.5f) - 0.5f;
        position = position < 0.0f ? 0.0f : position;
    }
    s.near = minimum((int64_t)position, size - 1);
    s.far = minimum(s.near + 1, size - 1);
    const float weight = position - (float)s.near;
    s.far_weight = weight > 1.0f ? 1.0f : weight;
    return s;
}

} // namespace sb::SB_ISA
