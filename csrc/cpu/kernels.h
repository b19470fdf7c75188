/* The kernels of one instruction set, and the table that dispatch.cpp picks from. `blocks` NULL: every pixel. */
#pragma once

#include "sparseblock.h"

#define SB_DECLARE_KERNELS                                                                                                  \
    int64_t conv2d_packed_size(const sb_conv2d &conv);                                                                      \
    void conv2d_pack(const sb_conv2d &conv, const float *weight, float *packed);                                            \
    void conv2d_run(const sb_conv2d &conv, const float *packed, const sb_epilogue &epilogue, const sb_plane &x,             \
                    const sb_plane *residual, const sb_blocks *blocks, const sb_plane &out, int threads);                   \
    void pool2d_run(const sb_pool2d &pool, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out, int threads);   \
    void interpolate_run(const sb_interpolate &resize, const sb_plane &x, const sb_blocks *blocks, const sb_plane &out,     \
                         int threads);                                                                                      \
    void pointwise_run(const sb_epilogue &epilogue, const sb_plane &x, const sb_plane *residual, const sb_blocks *blocks,   \
                       const sb_plane &out, int threads);

#if defined(SB_ISA)
namespace sb::SB_ISA {
SB_DECLARE_KERNELS
}
#endif
