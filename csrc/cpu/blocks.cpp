/* Mask of blocks to list of blocks, in (n, y, x) order. */
#include "sparseblock.h"

void sb_blocks_from_mask(const uint8_t *mask, int n, int rows, int cols, int32_t *index, int32_t *count) {
    int32_t active = 0;
    for (int32_t i = 0; i < n; ++i)
        for (int32_t y = 0; y < rows; ++y)
            for (int32_t x = 0; x < cols; ++x, ++mask)
                if (*mask) {
                    int32_t *place = index + 3 * (int64_t)active++;
                    place[0] = i;
                    place[1] = y;
                    place[2] = x;
                }
    *count = active;
}
