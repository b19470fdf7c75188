/* Which pixel of a map stands for one outside of it. */
#pragma once

#include "device.h"

namespace sb {

/* The place along an axis of `size` pixels that place i is read from; -1: a constant is. */
SB_DEVICE int pad_source(int i, int size, int mode) {
    if (i >= 0 && i < size) return i;
    switch (mode) {
    case SB_PAD_REFLECT: {
        const int period = size > 1 ? 2 * (size - 1) : 1, place = (i % period + period) % period;
        return place < size ? place : period - place;
    }
    case SB_PAD_REPLICATE:
        return i < 0 ? 0 : size - 1;
    case SB_PAD_CIRCULAR:
        return (i % size + size) % size;
    default:
        return -1;
    }
}

} // namespace sb
