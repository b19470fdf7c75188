/* The kernels of one instruction set, and the table that dispatch.cpp picks from. `blocks` NULL: every pixel.
 *
 * A kernel is written once over the storage types of planes: float, bf16 and f16 (vec.h). Its code is a template over the
 * storage type T that reads planes with load(const T *) and writes them with store(T *, vec), float32 in between; its
 * entry picks T once, from the plane. pool2d.cpp is the shortest example:
 *
 *     void pool2d_run(..., const sb_plane &x, ..., const sb_plane &out, int threads) {
 *         with_storage(out.dtype, [&](auto zero) { run<decltype(zero)>(..., x, ..., out, threads); });
 *     } */
#pragma once

#include "sparseblock.h"

#define SB_DECLARE_KERNELS                                                                                                  \
    int64_t conv2d_packed_size(const sb_conv2d &conv);                                                                      \
    void conv2d_pack(const sb_conv2d &conv, const float *weight, float *packed);                                            \
    void conv2d_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,             \
                    const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads);                   \
    int64_t winograd_packed_size(const sb_conv2d &conv);                                                                    \
    void winograd_pack(const sb_conv2d &conv, const float *weight, float *packed);                                          \
    void winograd_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,           \
                      const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads);                 \
    void pool2d_run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads);   \
    void interpolate_run(const sb_interpolate &resize, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out,     \
                         int threads);                                                                                      \
    void pointwise_run(const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual, const sb_blocks *blocks,   \
                       const sb_plane &out, int threads);                                                                   \
    void block_moments_run(const sb_moments &moments, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out,      \
                           int threads);                                                                                    \
    void block_norm_run(const sb_block_norm &norm, const sb_plane &x, const sb_plane *y, const sb_blocks *blocks,           \
                        const sb_plane &out, int threads);                                                                  \
    void global_avg_pool2d_run(const sb_moments &moments, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out,  \
                               int threads);                                                                                \
    void group_norm_run(const sb_group_norm &norm, const sb_epilogue &epilogue, const sb_plane &x, const sb_plane &moments, \
                        const sb_blocks *blocks, const sb_plane &out, int threads);                                         \
    void channel_norm_run(const sb_channel_norm &norm, const sb_epilogue &epilogue, const sb_plane &x,                      \
                          const sb_blocks *blocks, const sb_plane &out, int threads);                                       \
    void pad_run(const sb_pad &pad, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads);          \
    void shuffle_run(const sb_shuffle &shuffle, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out,            \
                     int threads);                                                                                          \
    bool within(int dtype, const void *a, const void *b, int64_t n, float tolerance, float *largest);                       \
    float distance(const float *a, const float *b, int64_t n);                                                              \
    float weighted_difference(const float *weight, const float *a, const float *b, int64_t n);                              \
    void conv2d_weight_grad_run(const sb_conv2d &conv, const sb_plane &x, const sb_plane &grad_out, const sb_blocks *blocks, \
                                float *grad_weight, float *grad_bias, int threads);                                         \
    void pool2d_input_grad_run(const sb_pool2d &pool, const sb_plane &x, const sb_plane &grad_out, const sb_blocks *blocks, \
                               const sb_plane &grad_x, int threads);                                                        \
    void interpolate_input_grad_run(const sb_interpolate &resize, const sb_plane &grad_out, const sb_blocks *blocks,        \
                                    const sb_plane &grad_x, int threads);                                                   \
    int area_mean(const sb_plane *x, int window, float *out, int rows, int cols);                                           \
    void channel_moments(const float *x, int c, int64_t n, float *mean, float *variance);                                   \
    float picture_distance(const float *a, const float *b, int c, int64_t n, float most);                                   \
    void policy_inputs(const sb_policy_inputs &inputs, const sb_plane &features, float *pixels, float *summary, float *level);

/* Only of avx512, for processors with AVX512-BF16, and with AMX-BF16. */
#define SB_DECLARE_BF16                                                                                                     \
    int64_t pairs_packed_size(const sb_conv2d &conv);                                                                       \
    void pairs_pack(const sb_conv2d &conv, const float *weight, float *packed);                                             \
    void pairs_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,              \
                   const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads);                    \
    int64_t amx_packed_size(const sb_conv2d &conv);                                                                         \
    void amx_pack(const sb_conv2d &conv, const float *weight, float *packed);                                               \
    void amx_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,                \
                 const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads);

namespace sb {
/* Of the instruction set in force: whether |a - b| < tolerance, or a and b have the same bits, in all n elements. `largest`
 * grows to the largest difference below the tolerance. */
bool within(int dtype, const void *a, const void *b, int64_t n, float tolerance, float *largest);
/* Of the instruction set in force: sums of |a - b| and of weight * (a - b). */
float distance(const float *a, const float *b, int64_t n);
float weighted_difference(const float *weight, const float *a, const float *b, int64_t n);
} // namespace sb

#if defined(SB_ISA)
namespace sb::SB_ISA {
SB_DECLARE_KERNELS
}
#endif
