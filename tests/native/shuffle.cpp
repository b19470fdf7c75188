/* pixel_shuffle, pixel_unshuffle and channel_shuffle by any factor. */
#include "selftest.h"

void check_shuffle(Random &random, int number) {
    sb_shuffle shuffle = {};
    shuffle.kind = random.between(SB_PIXEL_SHUFFLE, SB_CHANNEL_SHUFFLE);
    const int f = shuffle.factor = random.between(1, 4), n = random.between(1, 2), c = random.between(1, 20);
    const int h = random.between(1, 8), w = random.between(1, 8);
    const bool up = shuffle.kind == SB_PIXEL_SHUFFLE, down = shuffle.kind == SB_PIXEL_UNSHUFFLE;
    Map x = Map::source(random, n, down ? h * f : h, down ? w * f : w, up ? c * f * f : down ? c : c * f, random.between(0, 2));
    Map out = Map::target(random, n, up ? h * f : h, up ? w * f : w, up ? c : down ? c * f * f : c * f);
    const sb_plane from = x.plane();
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_shuffle_run(&shuffle, &from, blocks, &to, threads); };
    auto exact = [&](int i, int y, int xx, int k) {
        if (up) return Exact{x.at(i, y / f, xx / f, (k * f + y % f) * f + xx % f), 0.0, 0};
        if (down) return Exact{x.at(i, y * f + k / f % f, xx * f + k % f, k / (f * f)), 0.0, 0};
        return Exact{x.at(i, y, xx, k % f * c + k / f), 0.0, 0};
    };
    check("shuffle", number, random, out, kernel, exact);
}
