/* A frame: the steps of a plan, one after the other. */
#include <chrono>

#include "sparseblock.h"

namespace {

/* `plane` with strides of 0 along the axes where one row, column or channel of it counts for all of `out`. */
sb_plane broadcast(sb_plane plane, const sb_plane &out) {
    if (plane.h != out.h) plane.stride_y = 0;
    if (plane.w != out.w) plane.stride_x = 0;
    if (plane.c != out.c) plane.stride_c = 0;
    return plane;
}

} // namespace

void sb_run(const sb_step *steps, int n_steps, const sb_plane *planes, const sb_list *lists, int threads, double *seconds) {
    for (int i = 0; i < n_steps; ++i) {
        const sb_step &step = steps[i];
        const sb_list &list = lists[step.list];
        const sb_blocks active = {list.index, list.count, step.block_h, step.block_w};
        const sb_blocks *blocks = step.dense ? nullptr : &active;
        const sb_plane *x = &planes[step.x], *out = &planes[step.out];
        const sb_plane second = step.residual >= 0 ? broadcast(planes[step.residual], *out) : sb_plane{};
        const sb_plane *residual = step.residual >= 0 ? &second : nullptr;
        const auto start = std::chrono::steady_clock::now();
        switch (step.op) {
        case SB_OP_CONV2D:
            sb_conv2d_run(&step.u.conv2d, &step.epilogue, x, residual, blocks, out, threads);
            break;
        case SB_OP_POOL2D:
            sb_pool2d_run(&step.u.pool2d, x, blocks, out, threads);
            break;
        case SB_OP_INTERPOLATE:
            sb_interpolate_run(&step.u.interpolate, x, blocks, out, threads);
            break;
        case SB_OP_POINTWISE:
            sb_pointwise_run(&step.epilogue, x, residual, blocks, out, threads);
            break;
        case SB_OP_BLOCK_MOMENTS:
            sb_block_moments_run(&step.u.moments, x, blocks, out, threads);
            break;
        case SB_OP_GLOBAL_AVG_POOL2D:
            sb_global_avg_pool2d_run(&step.u.moments, x, blocks, out, threads);
            break;
        case SB_OP_PAD:
            sb_pad_run(&step.u.pad, x, blocks, out, threads);
            break;
        case SB_OP_GROUP_NORM:
            sb_group_norm_run(&step.u.group_norm, &step.epilogue, x, &planes[step.residual], blocks, out, threads); /* its moments */
            break;
        }
        if (seconds) seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}
