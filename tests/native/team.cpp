/* A team's calls, from within: every share of every call is done once and before the call returns, whichever member comes in time. */
#include "cpu/parallel.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "maps.h"

namespace {

constexpr int MOST = 7;

/* Shares that say how often they were done, for the call with this number; some take long, so that some members come late to the next. */
void check_call(Random &random, int number, int threads) {
    const int shares = random.between(1, MOST), slow = random.coin() ? random.between(0, shares - 1) : -1;
    std::atomic<int> done[MOST] = {}, begun{0};
    sb::on_threads(shares, [&, number](int t) {
        ++begun;
        if (t == slow) usleep(50);
        done[t] += number;
    });
    if (begun != shares) fail("team", number, "another number of shares was begun than there are");
    for (int t = 0; t < shares; ++t)
        if (done[t] != number) fail("team", number, "a share was not done once");

    const int items = random.between(0, 20);
    std::vector<std::atomic<int>> taken(items + 1);
    sb::parallel_for(items, threads, [&](int64_t i) {
        if (i == slow) usleep(20);
        ++taken[i];
    });
    for (int i = 0; i < items; ++i)
        if (taken[i] != 1) fail("team", number, "an item was not taken once");

    std::atomic<int> nested{0}; /* what members do may itself be shared: no call of the team */
    sb::on_threads(2, [&](int) { sb::on_threads(2, [&](int) { ++nested; }); });
    if (nested != 4) fail("team", number, "shares within shares were not all done");
}

} // namespace

int main(int count, char **arguments) {
    const int cases = count > 1 ? atoi(arguments[1]) : 200;
    for (int i = 0; i < cases; ++i) {
        Random random = {(uint64_t)i * 2654435761u + 1};
        const int threads = random.between(1, 4), calls = random.between(0, 20);
        int led = 0;
        sb::with_team(threads, [&] {
            for (int number = 1; number <= calls; ++number, ++led) check_call(random, number, threads);
        });
        if (led != calls) fail("team", i, "the leader did not lead once");
    }
    printf("%d teams passed\n", cases);
    return 0;
}
