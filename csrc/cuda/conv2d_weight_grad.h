/* How the pixels of all active blocks, one after another, are shared out where they are summed over. Shares have sums of their own, which
 * are added up afterwards: how many there are follows from shapes, so no bits depend on what runs when, or on the GPU. */
#pragma once

#include "maps.h"

namespace sb {

struct Share {
    int64_t first, last; /* pixels, in steps of `step` to the first */

    SB_DEVICE Share(int64_t pixels, int shares, int step, int64_t i) {
        const int64_t size = ceil_div(ceil_div(pixels, shares), step) * step;
        first = minimum(i * size, pixels), last = minimum(first + size, pixels);
    }
};

/* Walks through such pixels. */
struct Pixels {
    const Regions &regions;
    Divisor width;
    int64_t area, block;
    int64_t place; /* in the block */

    SB_DEVICE Pixels(const Regions &regions_, int64_t number)
        : regions(regions_), width((int)regions.width()), area(regions.height() * regions.width()), block(number / area),
          place(number % area) {}
    SB_DEVICE void advance(int by) {
        place += by;
        while (place >= area) place -= area, ++block;
    }
    /* Calls f(n, y, x) where the block's pixel lies in the frame. */
    template <class F>
    SB_DEVICE void visit(const F &f) const {
        const Region region(regions, block);
        int along;
        const int64_t y = region.y0 + width.divide((uint32_t)place, along), x = region.x0 + along;
        if (y < region.y1 && x < region.x1) f(region.n, y, x);
    }
};

} // namespace sb
