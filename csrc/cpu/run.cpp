/* A frame: the steps of a plan, one after the other; those of a chain one after the other for each piece of a block. */
#include <stdint.h>

#include <chrono>

#include "parallel.h"
#include "rims.h"
#include "scratch.h"
#include "sparseblock.h"

namespace {

/* `plane` with strides of 0 along the axes where one row, column or channel of it counts for all of `out`. */
sb_plane broadcast(sb_plane plane, const sb_plane &out) {
    if (plane.h != out.h) plane.stride_y = 0;
    if (plane.w != out.w) plane.stride_x = 0;
    if (plane.c != out.c) plane.stride_c = 0;
    return plane;
}

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void run_step(const sb_step &step, const sb_plane *x, const sb_plane *second, const sb_blocks *blocks, const sb_plane *out,
              int threads) {
    const sb_plane spread = second ? broadcast(*second, *out) : sb_plane{};
    const sb_plane *residual = second ? &spread : nullptr;
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
    case SB_OP_SHUFFLE:
        sb_shuffle_run(&step.u.shuffle, x, blocks, out, threads);
        break;
    case SB_OP_CHANNEL_NORM:
        sb_channel_norm_run(&step.u.channel_norm, &step.epilogue, x, blocks, out, threads);
        break;
    case SB_OP_GROUP_NORM:
        sb_group_norm_run(&step.u.group_norm, &step.epilogue, x, second, blocks, out, threads); /* its moments, as they lie */
        break;
    }
}

/* Bytes of a piece of a step's value. */
int64_t piece_bytes(const sb_step &step, const sb_plane &out) {
    return (int64_t)step.piece_h * step.piece_w * out.c * (out.dtype == SB_F32 ? 4 : 2);
}

/* The whole map `out` of which only the piece at `index` is there, at `memory`: kernels address it as they do any plane. */
sb_plane piece_plane(const sb_step &step, const sb_plane &out, char *memory, const int32_t *index) {
    sb_plane plane = out;
    const int64_t pixel = (int64_t)out.c * (out.dtype == SB_F32 ? 4 : 2);
    const int64_t top = (int64_t)index[1] * step.piece_h, left = (int64_t)index[2] * step.piece_w;
    plane.data = (void *)((intptr_t)memory - (top * step.piece_w + left) * pixel);
    plane.n = 0; /* nothing of the map but this piece: there is nothing to fetch ahead */
    plane.stride_n = 0;
    plane.stride_y = (int64_t)step.piece_w * out.c;
    plane.stride_x = out.c;
    plane.stride_c = 1;
    plane.border = 0;
    return plane;
}

/* Whether a later step of the chain reads what step k writes. */
bool is_read(const sb_step *steps, int k) {
    for (int j = k + 1; j < steps->chain; ++j)
        if (steps[j].x == steps[k].out || steps[j].residual == steps[k].out) return true;
    return false;
}

/* index[0..3), one piece of `pieces`, through all steps of a chain; this thread's next is index[3..6). `spent`, if not NULL,
 * is added to. */
void run_piece(const sb_step *steps, const sb_plane *planes, const int32_t *index, int32_t pieces, char *memory, double *spent) {
    const int32_t one = 1;
    sb_plane local[SB_LONGEST_CHAIN];
    for (int k = 0; k < steps->chain; ++k) {
        const sb_step &step = steps[k];
        const auto start = spent ? Clock::now() : Clock::time_point();
        if (step.local) local[k] = piece_plane(step, planes[step.out], memory + step.scratch, index);
        auto plane = [&](int32_t number) {
            for (int j = k; j >= 0; --j)
                if (steps[j].local && steps[j].out == number) return (const sb_plane *)&local[j];
            return &planes[number];
        };
        const sb_blocks piece = {index, &one, step.piece_h, step.piece_w, pieces, 1, is_read(steps, k)};
        run_step(step, plane(step.x), step.residual >= 0 ? plane(step.residual) : nullptr, &piece, plane(step.out), 1);
        if (spent) spent[k] += since(start);
    }
}

/* Every active block, cut into pieces; a thread takes a piece through the whole chain while it is in its cache. The wall
 * time is divided among the steps as the threads' time was spent. */
void run_chain(const sb_step *steps, const sb_plane *planes, const sb_list &list, int threads, double *seconds) {
    const int rows = steps->block_h / steps->piece_h, cols = steps->block_w / steps->piece_w, per_block = rows * cols;
    const int64_t pieces = (int64_t)*list.count * per_block;
    int64_t bytes = 0;
    for (int k = 0; k < steps->chain; ++k) {
        const int64_t end = steps[k].local ? steps[k].scratch + piece_bytes(steps[k], planes[steps[k].out]) : 0;
        bytes = end > bytes ? end : bytes;
        if (seconds) seconds[k] = 0;
    }
    const auto start = Clock::now();
    sb::parallel_for(pieces, threads, [&](int64_t i) {
        char *memory = (char *)sb::scratch(sb::SCRATCH_CHAIN, (size_t)bytes);
        const int64_t next = sb::next_item(i, pieces, threads);
        int32_t index[2][3]; /* this piece, and the one that this thread will probably take next */
        for (int ahead = 0; ahead < 2; ++ahead) {
            const int64_t number = ahead && next < pieces ? next : i;
            const int32_t *block = list.index + 3 * (number / per_block);
            const int32_t place = (int32_t)(number % per_block);
            index[ahead][0] = block[0];
            index[ahead][1] = block[1] * rows + place / cols;
            index[ahead][2] = block[2] * cols + place % cols;
        }
        double spent[SB_LONGEST_CHAIN] = {};
        run_piece(steps, planes, index[0], (int32_t)pieces, memory, seconds ? spent : nullptr);
        if (!seconds) return;
#pragma omp critical
        for (int k = 0; k < steps->chain; ++k) seconds[k] += spent[k];
    });
    if (!seconds) return;
    double total = 0;
    for (int k = 0; k < steps->chain; ++k) total += seconds[k];
    const double scale = total > 0 ? since(start) / total : 0;
    for (int k = 0; k < steps->chain; ++k) seconds[k] *= scale;
}

bool has_rims(const sb_step &step) { return step.rims.above | step.rims.below | step.rims.left | step.rims.right; }

void run_steps(const sb_step *steps, int n_steps, const sb_plane *planes, const sb_list *lists, int threads, double *seconds) {
    for (int i = 0; i < n_steps; ++i) {
        const sb_step &step = steps[i];
        const sb_list &list = lists[step.list];
        const int together = step.chain > 1 ? step.chain : 1;
        auto active = [&](const sb_step &s) { return sb_blocks{list.index, list.count, s.block_h, s.block_w, 0, 0, 0}; };
        if (together > 1) {
            run_chain(&step, planes, list, threads, seconds ? seconds + i : nullptr);
        } else {
            const sb_blocks blocks = active(step);
            const sb_plane *second = step.residual >= 0 ? &planes[step.residual] : nullptr;
            const auto start = Clock::now();
            run_step(step, &planes[step.x], second, step.dense ? nullptr : &blocks, &planes[step.out], threads);
            if (seconds) seconds[i] = since(start);
        }
        for (int k = i; k < i + together; ++k) {
            if (!has_rims(steps[k])) continue;
            const auto start = Clock::now();
            sb::rims_run(steps[k].rims, planes, active(steps[k]), planes[steps[k].out], threads);
            if (seconds) seconds[k] += since(start);
        }
        i += together - 1;
    }
}

} // namespace

void sb_run(const sb_step *steps, int n_steps, const sb_plane *planes, const sb_list *lists, int threads, double *seconds) {
    sb::with_team(n_steps > 1 ? threads : 1, [&] { run_steps(steps, n_steps, planes, lists, threads, seconds); });
}
