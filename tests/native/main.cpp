/* Every family of kernels against plain loops, on every instruction set that this processor and build have. Needs nothing but the
 * C interface, so it runs where Python does not: under an emulator, under a sanitizer. */
#include "selftest.h"

int main(int count, char **arguments) {
    const int cases = count > 1 ? atoi(arguments[1]) : 200;
    const struct {
        const char *name;
        void (*check)(Random &, int);
    } families[] = {
        {"conv2d", check_conv2d},       {"pool2d", check_pool2d},          {"interpolate", check_interpolate},
        {"pointwise", check_pointwise}, {"statistics", check_statistics}, {"pad", check_pad},
        {"shuffle", check_shuffle},     {"channel_norm", check_channel_norm},
        {"gather", check_gather_scatter}, {"run", check_run},              {"halves", check_halves},
        {"policy", check_policy},         {"subnormals", check_subnormals},
    };
    int sets = 0;
    for (const char *isa : {"avx512", "avx2", "neon", "generic"}) {
        if (sb_set_isa(isa)) continue;
        ++sets;
        for (const auto &family : families)
            for (int i = 0; i < cases; ++i) {
                Random random = {(uint64_t)i * 2654435761u + 1};
                family.check(random, i);
            }
        printf("%s: %d cases of each family passed\n", isa, cases);
    }
    return sets ? 0 : 1;
}
