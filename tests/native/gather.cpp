/* gather with a halo, value by value, and scatter, which must put its blocks back where they were. */
#include "selftest.h"

void check_gather_scatter(Random &random, int number) {
    Map x = Map::source(random, random.between(1, 2), random.between(1, 20), random.between(1, 20), random.between(1, 20), random.between(0, 1));
    Map out = Map::target(random, x.n, x.h, x.w, x.c);
    const sb_plane from = x.plane();
    const int halo = random.between(0, 3);
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) {
        const int32_t whole_index[6] = {0, 0, 0, 1, 0, 0};
        const sb_blocks whole = {whole_index, &x.n, x.h, x.w, 0, 0, 0};
        const sb_blocks &list = blocks ? *blocks : whole;
        for (const int margin : {halo, 0}) {
            const int rows = list.block_h + 2 * margin, cols = list.block_w + 2 * margin;
            std::vector<float> packed((size_t)*list.count * rows * cols * x.c, SENTINEL);
            sb_gather_run(&from, &list, margin, packed.data(), threads);
            const float *place = packed.data();
            for (int i = 0; i < *list.count; ++i)
                for (int r = 0; r < rows; ++r)
                    for (int s = 0; s < cols; ++s)
                        for (int k = 0; k < x.c; ++k) {
                            const int32_t *index = list.index + 3 * i;
                            if (*place++ != x.padded(index[0], index[1] * list.block_h + r - margin, index[2] * list.block_w + s - margin, k))
                                fail("gather", number, "a value is not the map's");
                        }
            if (margin == 0) sb_scatter_run(packed.data(), &list, &to, threads);
        }
    };
    auto exact = [&](int n, int y, int xx, int k) { return Exact{x.at(n, y, xx, k), 0.0, 0}; };
    check("scatter", number, random, out, kernel, exact);
}
