/* The epilogue alone, on channels-last maps and from an image with its channels apart. */
#include "selftest.h"

void check_pointwise(Random &random, int number) {
    const int c = random.coin() ? 3 : random.between(1, 70);
    Map x = Map::source(random, random.between(1, 2), random.between(1, 20), random.between(1, 20), c, random.between(0, 1));
    Map residual = Map::source(random, x.n, x.h, x.w, c, 0);
    Map out = Map::target(random, x.n, x.h, x.w, c);
    const bool add = random.coin();
    const Epilogue epilogue(random, c, true);
    const sb_epilogue e = epilogue.get();
    sb_plane from = x.plane();
    const sb_plane addend = residual.plane();
    std::vector<float> apart; /* [n, c, h, w] */
    if (random.coin()) {
        apart.resize((size_t)x.n * c * x.h * x.w);
        float *place = apart.data();
        for (int n = 0; n < x.n; ++n)
            for (int k = 0; k < c; ++k)
                for (int y = 0; y < x.h; ++y)
                    for (int i = 0; i < x.w; ++i) *place++ = x.at(n, y, i, k);
        from.data = apart.data();
        from.stride_x = 1;
        from.stride_y = x.w;
        from.stride_c = (int64_t)x.h * x.w;
        from.stride_n = c * from.stride_c;
        from.border = 0;
    }
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) {
        sb_pointwise_run(&e, &from, add ? &addend : nullptr, blocks, &to, threads);
    };
    auto exact = [&](int n, int y, int xx, int k) {
        const double value = x.at(n, y, xx, k);
        return epilogue.apply({value, fabs(value), 0}, k, add ? residual.at(n, y, xx, k) : epilogue.neutral());
    };
    check("pointwise", number, random, out, kernel, exact);
}
