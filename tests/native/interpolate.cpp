/* Nearest and bilinear resize at any ratio. */
#include "selftest.h"

void check_interpolate(Random &random, int number) {
    Map x = Map::source(random, random.between(1, 2), random.between(1, 20), random.between(1, 20), random.between(1, 40), random.between(0, 1));
    Map out = Map::target(random, x.n, random.between(1, 40), random.between(1, 40), x.c);
    sb_interpolate resize = {};
    resize.mode = random.coin() ? SB_NEAREST : SB_BILINEAR;
    resize.align_corners = resize.mode == SB_BILINEAR && random.coin();
    auto scale = [&](int size, int out_size) {
        if (!resize.align_corners) return (float)size / (float)out_size;
        return out_size > 1 ? (float)(size - 1) / (float)(out_size - 1) : 0.0f;
    };
    resize.scale_h = scale(x.h, out.h);
    resize.scale_w = scale(x.w, out.w);
    const sb_plane from = x.plane();
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_interpolate_run(&resize, &from, blocks, &to, threads); };

    struct Axis {
        int near, far;
        double weight, slack; /* slack: what rounding the position may do to the weight */
    };
    auto axis = [&](int place, float scale, int size) {
        if (resize.mode == SB_NEAREST) { /* a position that rounds to a whole number decides: the same float32 product */
            const int near = (int)fmin(floorf((float)place * scale), size - 1);
            return Axis{near, near, 0.0, 0.0};
        }
        double position = resize.align_corners ? (double)place * scale : fmax(scale * (place + 0.5) - 0.5, 0.0);
        position = fmin(position, size - 1);
        const int near = (int)position;
        return Axis{near, near + 1 < size ? near + 1 : near, position - near, 2 * 1.1920929e-7 * (position + 1.0)};
    };
    auto exact = [&](int n, int oy, int ox, int k) {
        const Axis ay = axis(oy, resize.scale_h, x.h), ax = axis(ox, resize.scale_w, x.w);
        auto row = [&](int y) { return (1.0 - ax.weight) * x.at(n, y, ax.near, k) + ax.weight * x.at(n, y, ax.far, k); };
        const double value = (1.0 - ay.weight) * row(ay.near) + ay.weight * row(ay.far);
        if (resize.mode == SB_NEAREST) return Exact{value, 0.0, 0};
        /* Values lie in [-2, 2], so neighbours differ by at most 4. */
        return Exact{value, 2.0 + 4.0 * (ay.slack + ax.slack) / (1.1920929e-7 * 7), 6};
    };
    check("interpolate", number, random, out, kernel, exact);
}
