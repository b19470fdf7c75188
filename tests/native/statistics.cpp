/* Moments and norms of cells, and what is made of them: the mean of the map, and group normalization. Against one loop over the whole map. */
#include "selftest.h"

void check_statistics(Random &random, int number) {
    sb_group_norm norm = {};
    norm.groups = random.between(1, 5);
    norm.eps = 1e-3f;
    const int c = norm.groups * random.between(1, 12);
    Map x = Map::source(random, random.between(1, 2), random.between(1, 20), random.between(1, 20), c, random.between(0, 1));
    sb_moments &moments = norm.moments;
    moments = {x.h, x.w, random.between(1, x.h + 1), random.between(1, x.w + 1), 2};
    const int rows = (x.h + moments.block_h - 1) / moments.block_h, cols = (x.w + moments.block_w - 1) / moments.block_w;
    const sb_plane from = x.plane();

    /* The sum of f over the pixels [y0, y1) x [x0, x1) of channels [first, last), and how many they are. */
    auto sum = [&](int n, int y0, int y1, int x0, int x1, int first, int last, auto f) {
        double total = 0.0;
        for (int y = y0; y < y1; ++y)
            for (int xx = x0; xx < x1; ++xx)
                for (int k = first; k < last; ++k) total += f((double)x.at(n, y, xx, k));
        return total;
    };
    auto value = [](double v) { return v; };

    Map cells = Map::target(random, x.n, rows, cols, 2 * c);
    auto cell = [&](int n, int cy, int cx, int k) {
        const int y0 = cy * moments.block_h, x0 = cx * moments.block_w;
        const int y1 = fmin(y0 + moments.block_h, x.h), x1 = fmin(x0 + moments.block_w, x.w);
        const double count = (double)(y1 - y0) * (x1 - x0), mean = sum(n, y0, y1, x0, x1, k % c, k % c + 1, value) / count;
        const double squares = sum(n, y0, y1, x0, x1, k % c, k % c + 1, [&](double v) { return (v - mean) * (v - mean); });
        return k < c ? Exact{mean, 2.0, 1} : Exact{squares, squares + 1e-9, 1};
    };
    auto of_cells = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_block_moments_run(&moments, &from, blocks, &to, threads); };
    check("block_moments", number, random, cells, of_cells, cell);
    of_cells(cells.plane(), nullptr, 1);

    const sb_block_norm block_norm = {random.between(SB_NORM_L1, SB_NORM_MAX), moments.block_h, moments.block_w};
    Map y = Map::source(random, x.n, x.h, x.w, c, 0), norms = Map::target(random, x.n, rows, cols, 1);
    const sb_plane other = y.plane();
    auto of_norms = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_block_norm_run(&block_norm, &from, &other, blocks, &to, threads); };
    check("block_norm", number, random, norms, of_norms, [&](int n, int cy, int cx, int) {
        double total = 0.0;
        for (int py = cy * moments.block_h; py < fmin((cy + 1) * moments.block_h, x.h); ++py)
            for (int px = cx * moments.block_w; px < fmin((cx + 1) * moments.block_w, x.w); ++px)
                for (int k = 0; k < c; ++k) {
                    const double d = fabs((double)x.at(n, py, px, k) - y.at(n, py, px, k));
                    total = block_norm.norm == SB_NORM_MAX ? fmax(total, d) : total + (block_norm.norm == SB_NORM_L2 ? d * d : d);
                }
        if (block_norm.norm == SB_NORM_L2) total = sqrt(total);
        return Exact{total, total + 1e-9, 1};
    });

    Map means = Map::target(random, x.n, 1, 1, c);
    const sb_plane first = cells.plane();
    auto of_map = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_global_avg_pool2d_run(&moments, &first, blocks, &to, threads); };
    check("global_avg_pool2d", number, random, means, of_map, [&](int n, int, int, int k) {
        return Exact{sum(n, 0, x.h, 0, x.w, k, k + 1, value) / (x.h * x.w), 2.0, 2};
    });

    Map out = Map::target(random, x.n, x.h, x.w, c);
    const Epilogue epilogue(random, c, false);
    const sb_epilogue e = epilogue.get();
    auto normalize = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_group_norm_run(&norm, &e, &from, &first, blocks, &to, threads); };
    check("group_norm", number, random, out, normalize, [&](int n, int y, int xx, int k) {
        const int width = c / norm.groups, begin = k / width * width;
        const double count = (double)x.h * x.w * width, mean = sum(n, 0, x.h, 0, x.w, begin, begin + width, value) / count;
        const double squares = sum(n, 0, x.h, 0, x.w, begin, begin + width, [&](double v) { return (v - mean) * (v - mean); });
        const double deviation = sqrt(squares / count + norm.eps);
        /* The means of cells were rounded, relative to values of at most 2: all is off as if the map were, over the deviation. */
        return epilogue.apply({(x.at(n, y, xx, k) - mean) / deviation, 8.0 / deviation, 1}, k, epilogue.neutral());
    });
}
