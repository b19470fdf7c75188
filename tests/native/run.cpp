/* sb_run: two steps over one list, the second of which reads what the first wrote, against the same two operators called
 * one by one. */
#include "selftest.h"

void check_run(Random &random, int number) {
    Map x = Map::source(random, random.between(1, 2), random.between(1, 20), random.between(1, 20), random.between(1, 20), 1);
    Map middle(x.n, x.h, x.w, x.c, 0, 0, 0.0f), out = Map::target(random, x.n, x.h, x.w, x.c);
    const Epilogue first(random, x.c, false), second(random, x.c, false);
    const sb_epilogue epilogues[2] = {first.get(), second.get()};
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) {
        const int32_t none = 0;
        const sb_plane planes[3] = {x.plane(), middle.plane(), to};
        sb_step steps[2] = {};
        for (int i = 0; i < 2; ++i) {
            steps[i].op = SB_OP_POINTWISE;
            steps[i].x = i;
            steps[i].residual = i ? 0 : -1;
            steps[i].out = i + 1;
            steps[i].dense = !blocks;
            steps[i].block_h = blocks ? blocks->block_h : 0;
            steps[i].block_w = blocks ? blocks->block_w : 0;
            steps[i].epilogue = epilogues[i];
        }
        double seconds[2] = {-1.0, -1.0};
        const sb_list list = {blocks ? blocks->index : nullptr, blocks ? blocks->count : &none};
        sb_run(steps, 2, planes, &list, threads, seconds);
        if (seconds[0] < 0.0 || seconds[1] < 0.0) fail("run", number, "a step was not timed");
    };
    auto exact = [&](int n, int y, int xx, int k) {
        const double value = x.at(n, y, xx, k);
        return second.apply(first.apply({value, fabs(value), 0}, k, first.neutral()), k, value);
    };
    check("run", number, random, out, kernel, exact);
}
