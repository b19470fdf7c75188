/* Where a resized pixel comes from: one formula for interpolate.cu and its gradient. */
#pragma once

#include "maps.h"

namespace sb {

/* The two pixels along an axis between which an output pixel lies. */
struct Source {
    int near, far;
    float far_weight;

    SB_DEVICE Source(const sb_interpolate &resize, float scale, int place, int size) {
        float position = (float)place * scale;
        if (resize.mode == SB_BILINEAR && !resize.align_corners) {
            position = scale * ((float)place + 0.5f) - 0.5f;
            position = position < 0.0f ? 0.0f : position;
        }
        near = (int)minimum((int)position, size - 1);
        far = (int)minimum(near + 1, size - 1);
        const float weight = position - (float)near;
        far_weight = weight > 1.0f ? 1.0f : weight;
    }
};

} // namespace sb
