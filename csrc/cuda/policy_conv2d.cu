/* A convolution of a policy network: 4x4 pixels, stride 2, padding 1, ReLU (csrc/cpu/policy_logits.cpp). A group takes a tile of the
 * result, side x side pixels; what those read, and their weights, come into shared memory some input channels at a time, and a thread
 * takes a channel of a pixel. */
#include "maps.h"

namespace sb::SB_NAME {

constexpr int KERNEL = 4, TAPS = KERNEL * KERNEL, MOST = SB_SHARED / sizeof(float);

/* in [2 h, 2 w, c], out [h, w, k], weight [k, c, 4, 4]. */
SB_DEVICE void run(const float *in, const float *weight, const float *bias, float *out, int h, int w, int c, int k, int side) {
    const int window = 2 * side + 2, area = window * window, at_once = (int)minimum(c, (MOST - k) / (area + TAPS * k)); /* input channels */
    float *pixels = (float *)shared_memory(), *weights = pixels + area * at_once; /* [window, window, i]; [k, (i, tap)], one apart for the banks */
    const Divisor by_window(window);
    const int tiles_along = w / side, tiles = h / side * tiles_along, outputs = side * side * k;
    for (int tile = (int)group_index(); tile < tiles; tile += (int)group_count()) {
        const int top = tile / tiles_along * side, left = tile % tiles_along * side;
        for (int first = 0; first < outputs; first += thread_count()) {
            const int item = first + thread_index(), channel = item % k, y = item / k / side, x = item / k % side;
            float sum = item < outputs ? bias[channel] : 0.0f;
            for (int begin = 0; begin < c; begin += at_once) {
                const int count = (int)minimum(at_once, c - begin);
                barrier(); /* what was there has been read */
                const int row = count * TAPS + 1;
                const Divisor by_count(count), by_taps(count * TAPS);
                for (int i = thread_index(); i < area * count; i += thread_count()) {
                    int from, x;
                    const int y = by_window.divide(by_count.divide(i, from), x), from_y = 2 * top - 1 + y, from_x = 2 * left - 1 + x;
                    const bool inside = from_y >= 0 && from_y < 2 * h && from_x >= 0 && from_x < 2 * w;
                    copy_async<4>(pixels + i, in + (inside ? ((int64_t)from_y * 2 * w + from_x) * c + begin + from : 0), inside);
                }
                for (int i = thread_index(); i < k * count * TAPS; i += thread_count()) {
                    int rest;
                    const int of = by_taps.divide(i, rest);
                    copy_async<4>(weights + of * row + rest, weight + ((int64_t)of * c + begin) * TAPS + rest, true);
                }
                commit_copies();
                wait_copies<0>();
                barrier();
                for (int i = 0; item < outputs && i < count; ++i) {
                    const float *p = pixels + (2 * y * window + 2 * x) * count + i, *q = weights + channel * row + i * TAPS;
                    SB_UNROLL
                    for (int tap = 0; tap < TAPS; ++tap) sum = fma(p[(tap / KERNEL * window + tap % KERNEL) * count], q[tap], sum);
                }
            }
            if (item < outputs) out[((int64_t)(top + y) * w + left + x) * k + channel] = sum < 0.0f ? 0.0f : sum;
        }
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(const float *in, const float *weight, const float *bias, float *out, int32_t h, int32_t w, int32_t c, int32_t k, int32_t side) {
    sb::await_kernels_before();
    sb::SB_NAME::run(in, weight, bias, out, h, w, c, k, side);
}
