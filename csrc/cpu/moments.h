/* From the moments of cells to those of the map: sums over all cells in one order, in double precision. Planes of moments are
 * float, whatever the map's storage type is. */
#pragma once

#include "regions.h"
#include "sparseblock.h"
#include "vec.h"

namespace sb::SB_ISA {

template <class T>
SB_INLINE vec load_lanes(const T *p, int lanes) { return lanes == W ? load(p) : load(p, lanes); }

/* Pixels of the cell in column or row i. */
SB_INLINE int64_t cell_side(int64_t i, int64_t block, int64_t size) { return minimum(block, size - i * block); }

/* Calls f(cell's values, its number of pixels) for every cell of image n, row by row. */
template <class F>
SB_INLINE void for_each_cell(const sb_moments &moments, const sb_plane &cells, int64_t n, F &&f) {
    for (int64_t y = 0; y < cells.h; ++y) {
        const int64_t rows = cell_side(y, moments.block_h, moments.height);
        for (int64_t x = 0; x < cells.w; ++x)
            f(pixel<float>(cells, n, y, x), (double)(rows * cell_side(x, moments.block_w, moments.width)));
    }
}

/* Sum over the map of `lanes` channels. */
SB_INLINE wide_vec map_sum(const sb_moments &moments, const sb_plane &cells, int64_t n, int64_t channel, int lanes) {
    wide_vec total = {};
    for_each_cell(moments, cells, n, [&](const float *cell, double pixels) { total += widen(load_lanes(cell + channel, lanes)) * pixels; });
    return total;
}

} // namespace sb::SB_ISA
