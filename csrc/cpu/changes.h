/* Marks of what changed, a byte for every pixel, and the lists of tiles that hold some. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "sparseblock.h"

namespace sb {

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static inline const uint8_t *next_mark(const uint8_t *from, const uint8_t *end) {
    return from < end ? (const uint8_t *)memchr(from, 1, end - from) : nullptr;
}

/* Lists the tiles with a marked pixel, in (n, y, x) order. */
void list_tiles(const sb_changes &value, int streams);

} // namespace sb
