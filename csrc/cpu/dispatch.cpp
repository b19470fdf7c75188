/* Which instruction set runs. Decided once: the best that the processor has, or the one that SPARSEBLOCK_ISA names. */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* SB_ANY: one that every build of this architecture has. */
#if defined(__x86_64__)
#define SB_FOR_EACH_ISA(X) X(avx512) X(avx2) X(generic)
#define SB_ANY generic
#elif defined(__aarch64__)
#define SB_FOR_EACH_ISA(X) X(neon)
#define SB_ANY neon
#else
#define SB_FOR_EACH_ISA(X) X(generic)
#define SB_ANY generic
#endif

#define SB_NAMESPACE(isa)  \
    namespace sb::isa {    \
    SB_DECLARE_KERNELS     \
    }
SB_FOR_EACH_ISA(SB_NAMESPACE)
#if defined(__x86_64__)
namespace sb::avx512 {
SB_DECLARE_BF16
}
#endif

namespace {

struct Kernels {
    const char *name;
    bool (*supported)();
    struct {
        decltype(&sb::SB_ANY::conv2d_packed_size) packed_size;
        decltype(&sb::SB_ANY::conv2d_pack) pack;
        decltype(&sb::SB_ANY::conv2d_run) run;
    } conv2d[5]; /* of each sb_algorithm; none where the instruction set lacks it */
    decltype(&sb::SB_ANY::pool2d_run) pool2d_run;
    decltype(&sb::SB_ANY::interpolate_run) interpolate_run;
    decltype(&sb::SB_ANY::pointwise_run) pointwise_run;
    decltype(&sb::SB_ANY::block_moments_run) block_moments_run;
    decltype(&sb::SB_ANY::block_norm_run) block_norm_run;
    decltype(&sb::SB_ANY::global_avg_pool2d_run) global_avg_pool2d_run;
    decltype(&sb::SB_ANY::group_norm_run) group_norm_run;
    decltype(&sb::SB_ANY::channel_norm_run) channel_norm_run;
    decltype(&sb::SB_ANY::pad_run) pad_run;
    decltype(&sb::SB_ANY::shuffle_run) shuffle_run;
    decltype(&sb::SB_ANY::within) within;
    decltype(&sb::SB_ANY::distance) distance;
    decltype(&sb::SB_ANY::weighted_difference) weighted_difference;
    decltype(&sb::SB_ANY::conv2d_weight_grad_run) conv2d_weight_grad_run;
    decltype(&sb::SB_ANY::pool2d_input_grad_run) pool2d_input_grad_run;
    decltype(&sb::SB_ANY::interpolate_input_grad_run) interpolate_input_grad_run;
    decltype(&sb::SB_ANY::area_mean) area_mean;
    decltype(&sb::SB_ANY::channel_moments) channel_moments;
    decltype(&sb::SB_ANY::picture_distance) picture_distance;
    decltype(&sb::SB_ANY::policy_inputs) policy_inputs;
};

#if defined(__x86_64__)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
}
/* Linux gives a process the tiles' registers when it asks for them, once for all of its threads. */
bool has_amx() {
#if defined(SB_PLAIN_TILES)
    return __builtin_cpu_supports("avx512bf16");
#endif
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & bit_AMX_BF16) || !(d & bit_AMX_TILE)) return false;
#if defined(__linux__)
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18;
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
#else
    return false;
#endif
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
#endif
#if defined(__aarch64__)
bool has_neon() { return true; }
#else
bool has_generic() { return true; }
#endif

/* Best first. */
#define SB_DIRECT_ROW(isa) {sb::isa::conv2d_packed_size, sb::isa::conv2d_pack, sb::isa::conv2d_run}
#define SB_WINOGRAD_ROW(isa) {sb::isa::winograd_packed_size, sb::isa::winograd_pack, sb::isa::winograd_run}
#define SB_BF16_ROWS_avx512                                                                \
    {sb::avx512::pairs_packed_size, sb::avx512::pairs_pack, sb::avx512::pairs_run},        \
    {sb::avx512::amx_packed_size, sb::avx512::amx_pack, sb::avx512::amx_run}
#define SB_BF16_ROWS_avx2 {}, {}
#define SB_BF16_ROWS_neon {}, {}
#define SB_BF16_ROWS_generic {}, {}
#define SB_ROW(isa)                                                                                \
    {#isa,                                                                                         \
     has_##isa,                                                                                    \
     {SB_DIRECT_ROW(isa), SB_WINOGRAD_ROW(isa), SB_WINOGRAD_ROW(isa), SB_BF16_ROWS_##isa},         \
     sb::isa::pool2d_run,                                                                          \
     sb::isa::interpolate_run,                                                                     \
     sb::isa::pointwise_run,                                                                       \
     sb::isa::block_moments_run,                                                                   \
     sb::isa::block_norm_run,                                                                      \
     sb::isa::global_avg_pool2d_run,                                                               \
     sb::isa::group_norm_run,                                                                      \
     sb::isa::channel_norm_run,                                                                    \
     sb::isa::pad_run,                                                                             \
     sb::isa::shuffle_run,                                                                         \
     sb::isa::within,                                                                              \
     sb::isa::distance,                                                                            \
     sb::isa::weighted_difference,                                                                 \
     sb::isa::conv2d_weight_grad_run,                                                              \
     sb::isa::pool2d_input_grad_run,                                                               \
     sb::isa::interpolate_input_grad_run,                                                          \
     sb::isa::area_mean,                                                                           \
     sb::isa::channel_moments,                                                                     \
     sb::isa::picture_distance,                                                                    \
     sb::isa::policy_inputs},
const Kernels table[] = {SB_FOR_EACH_ISA(SB_ROW)};
constexpr int table_size = sizeof(table) / sizeof(table[0]);

const Kernels *find(const char *name) {
    for (const Kernels &k : table)
        if ((!name || !strcmp(name, k.name)) && k.supported()) return &k;
    return nullptr;
}

struct Choice {
    const Kernels *kernels;
    char problem[256] = "";

    Choice() {
        const char *name = getenv("SPARSEBLOCK_ISA");
        if (name && !*name) name = nullptr;
        kernels = find(name);
        if (kernels) return;
        char available[64] = "";
        for (const Kernels &k : table)
            if (k.supported()) {
                if (*available) strcat(available, ", ");
                strcat(available, k.name);
            }
        snprintf(problem, sizeof(problem), "SPARSEBLOCK_ISA is %.32s; this processor and build have %s; set one of these, or unset it",
                 name, available);
    }
};

Choice &choice() {
    static Choice c;
    return c;
}

const Kernels &current() {
    const Choice &c = choice();
    if (!c.kernels) {
        fprintf(stderr, "sparseblock: %s\n", c.problem);
        abort();
    }
    return *c.kernels;
}

/* Packed weights begin with the number of the instruction set that packed them and their algorithm, and run on these:
 * choosing another instruction set later leaves them valid. */
constexpr int64_t HEADER = 16;

} // namespace

const char *sb_isa(void) { return choice().kernels ? choice().kernels->name : nullptr; }

const char *sb_isa_problem(void) { return choice().kernels ? nullptr : choice().problem; }

int sb_set_isa(const char *name) {
    const Kernels *kernels = find(name);
    if (!kernels) return -1;
    choice().kernels = kernels;
    return 0;
}

int sb_conv2d_has(int algorithm) {
#if defined(__x86_64__)
    if (algorithm == SB_PAIRS && !__builtin_cpu_supports("avx512bf16")) return 0;
    static const bool amx = has_amx();
    if (algorithm == SB_AMX && !amx) return 0;
#endif
    return algorithm >= SB_DIRECT && algorithm <= SB_AMX && current().conv2d[algorithm].run;
}

int64_t sb_conv2d_packed_size(const sb_conv2d *conv) { return HEADER + current().conv2d[conv->algorithm].packed_size(*conv); }

void sb_conv2d_pack(const sb_conv2d *conv, const float *weight, float *packed) {
    memset(packed, 0, sizeof(float) * HEADER);
    packed[0] = (float)(&current() - table);
    packed[1] = (float)conv->algorithm;
    current().conv2d[conv->algorithm].pack(*conv, weight, packed + HEADER);
}

void sb_conv2d_run(const sb_conv2d *conv, const sb_epilogue *epilogue, const sb_plane *x, const sb_plane *residual,
                   const sb_blocks *blocks, const sb_plane *out, int threads) {
    const float *packed = conv->packed_weight;
    sb_conv2d packed_for = *conv;
    packed_for.algorithm = (int32_t)packed[1];
    table[(int)packed[0]].conv2d[packed_for.algorithm].run(packed_for, packed + HEADER, *epilogue, *x, residual, blocks, *out, threads);
}

void sb_pool2d_run(const sb_pool2d *pool, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().pool2d_run(*pool, *x, blocks, *out, threads);
}

void sb_interpolate_run(const sb_interpolate *resize, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().interpolate_run(*resize, *x, blocks, *out, threads);
}

void sb_pointwise_run(const sb_epilogue *epilogue, const sb_plane *x, const sb_plane *residual, const sb_blocks *blocks,
                      const sb_plane *out, int threads) {
    current().pointwise_run(*epilogue, *x, residual, blocks, *out, threads);
}

void sb_block_moments_run(const sb_moments *moments, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().block_moments_run(*moments, *x, blocks, *out, threads);
}
void sb_block_norm_run(const sb_block_norm *norm, const sb_plane *x, const sb_plane *y, const sb_blocks *blocks, const sb_plane *out,
                       int threads) {
    current().block_norm_run(*norm, *x, y, blocks, *out, threads);
}

void sb_global_avg_pool2d_run(const sb_moments *moments, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().global_avg_pool2d_run(*moments, *x, blocks, *out, threads);
}

void sb_group_norm_run(const sb_group_norm *norm, const sb_epilogue *epilogue, const sb_plane *x, const sb_plane *moments,
                       const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().group_norm_run(*norm, *epilogue, *x, *moments, blocks, *out, threads);
}

void sb_channel_norm_run(const sb_channel_norm *norm, const sb_epilogue *epilogue, const sb_plane *x, const sb_blocks *blocks,
                         const sb_plane *out, int threads) {
    current().channel_norm_run(*norm, *epilogue, *x, blocks, *out, threads);
}

void sb_pad_run(const sb_pad *pad, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().pad_run(*pad, *x, blocks, *out, threads);
}

void sb_shuffle_run(const sb_shuffle *shuffle, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads) {
    current().shuffle_run(*shuffle, *x, blocks, *out, threads);
}

bool sb::within(int dtype, const void *a, const void *b, int64_t n, float tolerance, float *largest) {
    return current().within(dtype, a, b, n, tolerance, largest);
}

float sb::distance(const float *a, const float *b, int64_t n) { return current().distance(a, b, n); }

float sb::weighted_difference(const float *weight, const float *a, const float *b, int64_t n) {
    return current().weighted_difference(weight, a, b, n);
}

void sb_conv2d_weight_grad_run(const sb_conv2d *conv, const sb_plane *x, const sb_plane *grad_out, const sb_blocks *blocks,
                               float *grad_weight, float *grad_bias, int threads) {
    current().conv2d_weight_grad_run(*conv, *x, *grad_out, blocks, grad_weight, grad_bias, threads);
}

void sb_pool2d_input_grad_run(const sb_pool2d *pool, const sb_plane *x, const sb_plane *grad_out, const sb_blocks *blocks,
                              const sb_plane *grad_x, int threads) {
    current().pool2d_input_grad_run(*pool, *x, *grad_out, blocks, *grad_x, threads);
}

void sb_interpolate_input_grad_run(const sb_interpolate *resize, const sb_plane *grad_out, const sb_blocks *blocks,
                                   const sb_plane *grad_x, int threads) {
    current().interpolate_input_grad_run(*resize, *grad_out, blocks, *grad_x, threads);
}

int sb_area_mean_run(const sb_plane *x, int window, float *out, int rows, int cols) {
    return current().area_mean(x, window, out, rows, cols);
}

void sb_channel_moments_run(const float *x, int c, int64_t n, float *mean, float *variance) {
    current().channel_moments(x, c, n, mean, variance);
}

float sb_picture_distance_run(const float *a, const float *b, int c, int64_t n, float most) {
    return current().picture_distance(a, b, c, n, most);
}

void sb_policy_inputs_run(const sb_policy_inputs *inputs, const sb_plane *features, float *pixels, float *summary, float *level) {
    current().policy_inputs(*inputs, *features, pixels, summary, level);
}
