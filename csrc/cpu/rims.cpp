/* Rims: what is kept of a map whose memory other values take until the next frame. Of every block as many rows and columns along its
 * edges as readers of its neighbours see. Once the map's active blocks are written, each saves its rims, and the skipped blocks next to
 * one get back, in the map, those that it will see. So every pixel has one writer, whatever is active.
 *
 * The rows of a block, its first `below` and its last `above`, lie one after the other in the plane `rows`, in full width; its columns,
 * the first `right` and the last `left`, in `cols`, as rows too: a block's column is in one piece. */
#include "rims.h"

#include <string.h>

#include "parallel.h"
#include "scratch.h"

namespace {

int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rims of one map, in whose rows pixels lie without gaps, as in those of what is kept. A part of its blocks is named by (dy, dx), where its
 * neighbour that sees it lies: -1, 0 or 1 along each axis. */
struct Rims {
    const sb_rims &of;
    const sb_plane &map, *rows, *cols;
    int64_t block_h, block_w, n_rows, n_cols;
    int64_t bytes; /* of an element */

    char *at(const sb_plane &plane, int64_t n, int64_t y, int64_t x) const {
        return (char *)plane.data + bytes * (n * plane.stride_n + y * plane.stride_y + x * plane.stride_x);
    }
    void move(const sb_plane &kept, int64_t n, int64_t y, int64_t x, int64_t kept_y, int64_t kept_x, int64_t pixels, bool save) const {
        char *in_map = at(map, n, y, x), *in_kept = at(kept, n, kept_y, kept_x);
        char *to = save ? in_kept : in_map;
        const char *from = save ? in_map : in_kept;
        int64_t left = pixels * bytes * map.c;
        /* By lines: most pieces are a pixel, and a call takes longer than to copy it. */
        for (; left >= 64; left -= 64, to += 64, from += 64) memcpy(to, from, 64);
        memcpy(to, from, left);
    }

    /* What the neighbour at (dy, dx) sees of the block: from the map to where it is kept, or back. */
    void part(int64_t n, int64_t row, int64_t col, int dy, int dx, bool save) const {
        const int64_t y0 = row * block_h, y1 = minimum(y0 + block_h, map.h), x0 = col * block_w, x1 = minimum(x0 + block_w, map.w);
        /* The neighbour above sees the block below itself. */
        const int64_t high = dy < 0 ? of.below : of.above, wide = dx < 0 ? of.right : of.left;
        const int64_t left = dx > 0 ? x1 - minimum(wide, x1 - x0) : x0, right = dx < 0 ? x0 + minimum(wide, x1 - x0) : x1;
        if (dy) {
            const int64_t count = minimum(high, y1 - y0), first = dy < 0 ? y0 : y1 - count;
            const int64_t to = row * (of.above + of.below) + (dy < 0 ? 0 : of.below);
            for (int64_t i = 0; i < count; ++i) move(*rows, n, first + i, left, to + i, left, right - left, save);
        } else if (wide) {
            const int64_t to = col * (of.left + of.right) + (dx < 0 ? 0 : of.right);
            for (int64_t x = left; x < right; ++x)
                for (int64_t y = y0; y < y1; ++y) move(*cols, n, y, x, to + x - left, y, 1, save);
        }
    }

    /* The zeros around the map along the block's edges. */
    void clear_border(int64_t n, int64_t row, int64_t col) const {
        const int64_t b = map.border;
        const bool first_row = row == 0, last_row = row == n_rows - 1, first_col = col == 0, last_col = col == n_cols - 1;
        const int64_t y0 = row * block_h, y1 = minimum(y0 + block_h, map.h), x0 = col * block_w, x1 = minimum(x0 + block_w, map.w);
        auto clear = [&](int64_t top, int64_t bottom, int64_t left, int64_t right) {
            for (int64_t y = top; y < bottom; ++y)
                for (int64_t x = left; x < right; ++x) memset(at(map, n, y, x), 0, bytes * map.c);
        };
        const int64_t left = first_col ? -b : x0, right = last_col ? map.w + b : x1;
        if (first_row) clear(-b, 0, left, right);
        if (last_row) clear(map.h, map.h + b, left, right);
        if (first_col) clear(y0, y1, -b, 0);
        if (last_col) clear(y0, y1, map.w, map.w + b);
    }

    void block(const uint8_t *active, int64_t n, int64_t row, int64_t col) const {
        auto is_active = [&](int64_t r, int64_t c) {
            return r >= 0 && r < n_rows && c >= 0 && c < n_cols && active[(n * n_rows + r) * n_cols + c];
        };
        const bool own = is_active(row, col);
        bool seen = own;
        for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx) {
                if (!dy && !dx) continue;
                if (own ? !(dy && dx) : is_active(row + dy, col + dx)) { /* rows are saved with their corners */
                    part(n, row, col, dy, dx, own);
                    seen = true;
                }
            }
        if (seen && map.border) clear_border(n, row, col);
    }
};

} // namespace

void sb::rims_run(const sb_rims &rims, const sb_plane *planes, const sb_blocks &blocks, const sb_plane &map, int threads) {
    const int64_t n_rows = (map.h + blocks.block_h - 1) / blocks.block_h, n_cols = (map.w + blocks.block_w - 1) / blocks.block_w;
    const int64_t count = map.n * n_rows * n_cols;
    uint8_t *active = (uint8_t *)scratch(SCRATCH_ACTIVE, count);
    memset(active, 0, count);
    for (const int32_t *i = blocks.index; i < blocks.index + 3 * *blocks.count; i += 3) active[(i[0] * n_rows + i[1]) * n_cols + i[2]] = 1;
    const sb_plane *rows = rims.above + rims.below ? &planes[rims.rows] : nullptr;
    const sb_plane *cols = rims.left + rims.right ? &planes[rims.cols] : nullptr;
    const Rims of = {rims, map, rows, cols, blocks.block_h, blocks.block_w, n_rows, n_cols, map.dtype == SB_F32 ? 4 : 2};
    sb::parallel_for(count, threads, [&](int64_t i) { of.block(active, i / (n_rows * n_cols), i / n_cols % n_rows, i % n_cols); });
}
