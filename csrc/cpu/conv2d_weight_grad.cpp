/* Gradient of a convolution with respect to its weight and bias:
 *
 *     grad_weight[k,r,s,c] = sum over pixels (y, x) of the active blocks of grad_out[y,x,k] * input[y*stride-pad+r*dilation, ..., c]
 *
 * A register tile is TILE_K output channels x TILE_V vectors of input channels; it runs over the pixels of a strip and
 * waits in grad_weight for the next. Threads share out (output channels, tap row), never pixels: whatever their number,
 * every sum is one chain in the order of the list of blocks. */
#include <string.h>

#include "kernels.h"
#include "parallel.h"
#include "regions.h"
#include "vec.h"

namespace sb::SB_ISA {
namespace {

constexpr int TILE_K = SB_WIDTH == 16 ? 12 : 6, TILE_V = 2;
constexpr int64_t STRIP_PIXELS = 256, STRIP_COLUMNS = 256;

/* What one tap of the kernel sees of a strip: pixels of grad_out whose input lies in the frame. */
struct Pairs {
    const float *grad, *x; /* of the first pixel */
    int64_t rows, cols, grad_step_y, grad_step_x, x_step_y, x_step_x;
};

SB_INLINE vec read(const float *p, int lanes) { return lanes == W ? load(p) : load(p, lanes); }

/* sum[k][c] += grad[k] * x[c] over the pairs; `lanes` of the last vector. */
template <int K, int V>
void multiply(const Pairs &p, float *sums, int64_t stride_k, int lanes) {
    vec acc[K][V];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[k][v] = read(sums + k * stride_k + v * W, v + 1 < V ? W : lanes);
    for (int64_t y = 0; y < p.rows; ++y) {
        const float *grad = p.grad + y * p.grad_step_y, *x = p.x + y * p.x_step_y;
        for (int64_t i = 0; i < p.cols; ++i, grad += p.grad_step_x, x += p.x_step_x) {
            vec value[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) value[v] = read(x + v * W, v + 1 < V ? W : lanes);
#pragma GCC unroll 16
            for (int k = 0; k < K; ++k) {
                const vec g = splat(grad[k]);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) acc[k][v] = fma(g, value[v], acc[k][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(sums + k * stride_k + v * W, acc[k][v], v + 1 < V ? W : lanes);
}

template <int V, int K = TILE_K>
void multiply_rows(const Pairs &p, int k, float *sums, int64_t stride_k, int lanes) {
    if (k == K) return multiply<K, V>(p, sums, stride_k, lanes);
    if constexpr (K > 1) multiply_rows<V, K - 1>(p, k, sums, stride_k, lanes);
}

/* Depthwise: grad and x run along the same channels. sums: [lanes], `stride` apart. */
void multiply_depthwise(const Pairs &p, float *sums, int64_t stride, int lanes) {
    vec acc = {};
    for (int i = 0; i < lanes; ++i) acc[i] = sums[i * stride];
    for (int64_t y = 0; y < p.rows; ++y) {
        const float *grad = p.grad + y * p.grad_step_y, *x = p.x + y * p.x_step_y;
        for (int64_t i = 0; i < p.cols; ++i, grad += p.grad_step_x, x += p.x_step_x)
            acc = fma(read(grad, lanes), read(x, lanes), acc);
    }
    for (int i = 0; i < lanes; ++i) sums[i * stride] = acc[i];
}

/* Outputs [first, last) along one axis whose input under tap `offset` lies in [0, size). */
SB_INLINE void clip(int64_t &first, int64_t &last, int64_t stride, int64_t offset, int64_t size) {
    first = maximum(first, offset < 0 ? ceil_div(-offset, stride) : 0);
    last = minimum(last, offset < size ? ceil_div(size - offset, stride) : 0);
}

struct WeightGrad {
    const sb_conv2d &conv;
    const sb_plane &x, &grad;
    const Regions regions;
    float *weight, *bias;
    int64_t in_group, out_group, row; /* channels of a group; floats of one [s][c] row of grad_weight */
    bool depthwise;
    int64_t tile_k, tiles; /* output channels of a tile; tiles of a group (depthwise: of all channels) */

    int64_t tasks() const { return (depthwise ? 1 : conv.groups) * tiles * conv.kernel_h; }
    void task(int64_t number, const Region &region) const;
    void clear(int64_t number) const;
    void place(int64_t number, int64_t &r, int64_t &group, int64_t &k, int64_t &count) const;
};

/* The tap row, the group and the output channels [k, k + count) of a task. */
void WeightGrad::place(int64_t number, int64_t &r, int64_t &group, int64_t &k, int64_t &count) const {
    r = number % conv.kernel_h;
    number /= conv.kernel_h;
    group = number / tiles;
    const int64_t first = number % tiles * tile_k, all = depthwise ? conv.out_channels : out_group;
    k = (depthwise ? 0 : group * out_group) + first;
    count = minimum(tile_k, all - first);
}

void WeightGrad::clear(int64_t number) const {
    int64_t r, group, k, count;
    place(number, r, group, k, count);
    for (int64_t i = k; i < k + count; ++i) memset(weight + (i * conv.kernel_h + r) * row, 0, sizeof(float) * row);
    if (bias && !r) memset(bias + k, 0, sizeof(float) * count);
}

void WeightGrad::task(int64_t number, const Region &region) const {
    int64_t r, group, k, count;
    place(number, r, group, k, count);
    if (bias && !r)
        for (int64_t y = region.y0; y < region.y1; ++y)
            for (int64_t i = region.x0; i < region.x1; ++i) {
                const float *g = pixel<const float>(grad, region.n, y, i) + k;
                for (int64_t j = 0; j < count; ++j) bias[k + j] += g[j];
            }
    const int64_t offset_y = r * conv.dilation_h - conv.pad_h;
    int64_t y0 = region.y0, y1 = region.y1;
    clip(y0, y1, conv.stride_h, offset_y, x.h);
    for (int64_t s = 0; s < conv.kernel_w; ++s) {
        const int64_t offset_x = s * conv.dilation_w - conv.pad_w;
        int64_t x0 = region.x0, x1 = region.x1;
        clip(x0, x1, conv.stride_w, offset_x, x.w);
        if (y0 >= y1 || x0 >= x1) continue;
        const Pairs pairs{pixel<const float>(grad, region.n, y0, x0) + k,
                          pixel<const float>(x, region.n, y0 * conv.stride_h + offset_y, x0 * conv.stride_w + offset_x),
                          y1 - y0, x1 - x0, grad.stride_y, grad.stride_x, conv.stride_h * x.stride_y, conv.stride_w * x.stride_x};
        float *sums = weight + (k * conv.kernel_h + r) * row + s * in_group;
        const int64_t stride_k = conv.kernel_h * row;
        if (depthwise) {
            Pairs along = pairs;
            along.x += k;
            multiply_depthwise(along, sums, stride_k, (int)count);
            continue;
        }
        for (int64_t c = 0; c < in_group; c += TILE_V * W) {
            Pairs at = pairs;
            at.x += group * in_group + c;
            const int64_t left = in_group - c;
            if (left > W) multiply_rows<2>(at, (int)count, sums + c, stride_k, (int)minimum(left - W, W));
            else multiply_rows<1>(at, (int)count, sums + c, stride_k, (int)left);
        }
    }
}

} // namespace

void conv2d_weight_grad_run(const sb_conv2d &conv, const sb_plane &x, const sb_plane &grad_out, const sb_blocks *blocks,
                            float *grad_weight, float *grad_bias, int threads) {
    const int64_t in_group = conv.in_channels / conv.groups, out_group = conv.out_channels / conv.groups;
    const bool depthwise = in_group == 1 && out_group == 1;
    const int64_t tile_k = depthwise ? W : TILE_K;
    const WeightGrad run{conv, x, grad_out, Regions(blocks, grad_out, STRIP_PIXELS, STRIP_COLUMNS), grad_weight, grad_bias,
                         in_group, out_group, conv.kernel_w * in_group, depthwise,
                         tile_k, ceil_div(depthwise ? conv.out_channels : out_group, tile_k)};
    const int64_t tasks = run.tasks();
    threads = (int)minimum(threads, tasks);
    on_threads(threads, [&](int share) {
        const CountSubnormalsAsZero mode;
        const int64_t first = stretch_end(tasks, threads, share - 1), last = stretch_end(tasks, threads, share);
        for (int64_t i = first; i < last; ++i) run.clear(i);
        for (int64_t region = 0; region < run.regions.count; ++region) {
            const Region strip = run.regions[region];
            for (int64_t i = first; i < last; ++i) run.task(i, strip);
        }
    });
}

} // namespace sb::SB_ISA
