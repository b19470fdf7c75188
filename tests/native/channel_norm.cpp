/* softmax, L2 norm and layer normalization over the channels of a pixel. */
#include "selftest.h"

void check_channel_norm(Random &random, int number) {
    const int c = random.between(1, 70);
    Map x = Map::source(random, random.between(1, 2), random.between(1, 20), random.between(1, 20), c, random.between(0, 1));
    Map out = Map::target(random, x.n, x.h, x.w, c);
    const sb_channel_norm norm = {random.between(SB_SOFTMAX, SB_UNIT_VARIANCE), 1e-3f};
    Epilogue epilogue(random, c, false);
    epilogue.combine = SB_ADD;
    const sb_epilogue e = epilogue.get();
    const sb_plane from = x.plane();
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) { sb_channel_norm_run(&norm, &e, &from, blocks, &to, threads); };
    auto exact = [&](int n, int y, int xx, int k) {
        auto sum = [&](auto f) {
            double total = 0.0;
            for (int i = 0; i < c; ++i) total += f((double)x.at(n, y, xx, i));
            return total;
        };
        double v = x.at(n, y, xx, k);
        if (norm.kind == SB_SOFTMAX) v = exp(v) / sum([](double u) { return exp(u); });
        else if (norm.kind == SB_UNIT_LENGTH) v /= fmax(sqrt(sum([](double u) { return u * u; })), norm.eps);
        else {
            const double mean = sum([](double u) { return u; }) / c;
            v = (v - mean) / sqrt(sum([&](double u) { return (u - mean) * (u - mean); }) / c + norm.eps);
        }
        return epilogue.apply({v, fabs(v), 6}, k, 0.0); /* of a softmax: d of at most 4 rounds, and so do two exponentials */
    };
    check("channel_norm", number, random, out, kernel, exact);
}
