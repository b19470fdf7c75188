/* Maximum and average pooling; the border of a plane must not count. */
#include "selftest.h"

void check_pool2d(Random &random, int number) {
    sb_pool2d pool = {};
    pool.kind = random.coin() ? SB_POOL_MAX : SB_POOL_AVG;
    pool.kernel_h = random.between(1, 4);
    pool.kernel_w = random.between(1, 4);
    pool.stride_h = random.between(1, 3);
    pool.stride_w = random.between(1, 3);
    pool.pad_h = random.between(0, pool.kernel_h / 2);
    pool.pad_w = random.between(0, pool.kernel_w / 2);
    pool.dilation_h = pool.dilation_w = pool.kind == SB_POOL_MAX ? random.between(1, 2) : 1;
    pool.count_include_pad = random.coin();
    pool.adaptive = random.between(0, 3) == 0;
    pool.outside = random.coin() ? -INFINITY : -3.0f;
    pool.divisor = pool.kind == SB_POOL_AVG && random.coin() ? random.between(1, 9) : 0;

    Map x = Map::source(random, random.between(1, 2), random.between(7, 20), random.between(7, 20), random.between(1, 40), random.between(0, 2));
    for (int i = 0; i < x.n; ++i) /* no maximum may come from the border's zeros */
        for (int y = 0; y < x.h; ++y)
            for (int xx = 0; xx < x.w; ++xx)
                for (int k = 0; k < x.c; ++k) x.at(i, y, xx, k) -= 3.0f;
    const bool ceil = random.coin(); /* a last window may hang over the end, but starts in the frame or its left padding */
    auto extent = [&](int size, int kernel, int stride, int pad, int dilation) {
        const int room = size + 2 * pad - dilation * (kernel - 1) - 1, whole = room / stride + 1;
        return whole + (ceil && room % stride && whole * stride < size + pad);
    };
    Map out = pool.adaptive ? Map::target(random, x.n, random.between(1, 22), random.between(1, 22), x.c)
                            : Map::target(random, x.n, extent(x.h, pool.kernel_h, pool.stride_h, pool.pad_h, pool.dilation_h),
                          extent(x.w, pool.kernel_w, pool.stride_w, pool.pad_w, pool.dilation_w), x.c);
    const sb_plane from = x.plane();
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_pool2d_run(&pool, &from, blocks, &to, threads); };
    auto exact = [&](int n, int oy, int ox, int k) {
        double sum = 0.0, magnitude = 0.0, largest = -INFINITY;
        int inside = 0, padded = 0;
        const int top = pool.adaptive ? oy * x.h / out.h : oy * pool.stride_h - pool.pad_h;
        const int left = pool.adaptive ? ox * x.w / out.w : ox * pool.stride_w - pool.pad_w;
        const int rows = pool.adaptive ? ((oy + 1) * x.h + out.h - 1) / out.h - top : pool.kernel_h;
        const int cols = pool.adaptive ? ((ox + 1) * x.w + out.w - 1) / out.w - left : pool.kernel_w;
        for (int r = 0; r < rows; ++r)
            for (int s = 0; s < cols; ++s) {
                const int y = top + r * (pool.adaptive ? 1 : pool.dilation_h), xx = left + s * (pool.adaptive ? 1 : pool.dilation_w);
                padded += y < x.h + pool.pad_h && xx < x.w + pool.pad_w;
                if (!x.inside(y, xx)) {
                    largest = fmax(largest, pool.outside);
                    continue;
                }
                const double value = x.at(n, y, xx, k);
                ++inside;
                sum += value;
                magnitude += fabs(value);
                largest = fmax(largest, value);
            }
        if (pool.kind == SB_POOL_MAX) return Exact{largest, 0.0, 0};
        const double divisor = pool.divisor ? pool.divisor : pool.count_include_pad && !pool.adaptive ? padded : inside;
        return Exact{sum / divisor, magnitude / divisor, rows * cols + 1};
    };
    check("pool2d", number, random, out, kernel, exact);
}
