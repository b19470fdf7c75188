/* Padding of every mode, and cropping. */
#include "selftest.h"

void check_pad(Random &random, int number) {
    sb_pad pad = {};
    pad.mode = random.between(SB_PAD_CONSTANT, SB_PAD_CIRCULAR);
    const int least = pad.mode == SB_PAD_CONSTANT ? -2 : 0;
    pad.top = random.between(least, 4);
    pad.left = random.between(least, 4);
    pad.value = random.coin() ? 0.0f : -1.5f;
    Map x = Map::source(random, random.between(1, 2), random.between(6, 20), random.between(6, 20), random.between(1, 40), random.between(0, 2));
    Map out = Map::target(random, x.n, x.h + pad.top + random.between(least, 4), x.w + pad.left + random.between(least, 4), x.c);
    const sb_plane from = x.plane();
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_pad_run(&pad, &from, blocks, &to, threads); };
    auto exact = [&](int n, int oy, int ox, int k) {
        const int y = oy - pad.top, xx = ox - pad.left;
        const bool constant = pad.mode == SB_PAD_CONSTANT && !x.inside(y, xx);
        return Exact{constant ? pad.value : x.padded(n, y, xx, k, pad.mode), 0.0, 0};
    };
    check("pad", number, random, out, kernel, exact);
}
