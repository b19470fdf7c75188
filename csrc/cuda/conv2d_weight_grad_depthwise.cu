/* The same as conv2d_weight_grad.cu of a convolution whose groups have one input channel: nothing is shared between channels. A group of
 * threads takes one tap of WARP channels: its lanes are the channels, its warps take the pixels of a share in turn, and the sums of the
 * warps are added in their order. */
#include "conv2d_weight_grad.h"

namespace sb::SB_NAME {

constexpr int WARPS = SB_THREADS / WARP;
static_assert(SB_SHARED == SB_THREADS * sizeof(float), "a sum for every thread");

SB_DEVICE void run(const sb_conv2d &conv, const sb_plane &in, const sb_plane &grad, const sb_blocks &blocks, int shares, float *sums) {
    const Regions regions(blocks, grad);
    const int64_t pixels = regions.count() * regions.height() * regions.width();
    const int taps = conv.kernel_h * conv.kernel_w, chunks = (int)ceil_div(conv.out_channels, WARP);
    float *of_threads = (float *)shared_memory();
    for (int64_t i = group_index(); i < (int64_t)shares * chunks * taps; i += group_count()) {
        const int tap = (int)(i % taps), c = (int)(i / taps % chunks) * WARP + lane_index();
        const int64_t number = i / taps / chunks;
        const Share share(pixels, shares, WARPS, number);
        const int64_t down = tap / conv.kernel_w * conv.dilation_h - conv.pad_h, along = tap % conv.kernel_w * conv.dilation_w - conv.pad_w;
        const bool valid = c < conv.out_channels;
        const int from = c / (conv.out_channels / conv.groups);
        Pixels place(regions, share.first + warp_index());
        float sum = 0.0f;
        for (int64_t q = share.first + warp_index(); q < share.last; q += WARPS, place.advance(WARPS))
            place.visit([&](int64_t n, int64_t oy, int64_t ox) {
                const int64_t y = oy * conv.stride_h + down, x = ox * conv.stride_w + along;
                if (!valid || y < 0 || y >= in.h || x < 0 || x >= in.w) return;
                sum = fma(pixel<const float>(grad, n, oy, ox)[c], pixel<const float>(in, n, y, x)[from], sum);
            });
        of_threads[thread_index()] = sum;
        barrier();
        if (valid && warp_index() == 0) {
            float total = 0.0f;
            for (int warp = 0; warp < WARPS; ++warp) total += of_threads[warp * WARP + lane_index()];
            sums[(number * conv.out_channels + c) * taps + tap] = total;
        }
        barrier(); /* the sums of this tap have been read */
    }
}

} // namespace sb::SB_NAME

/* sums: [shares][out channels][kernel_h][kernel_w]. */
SB_ENTRY(sb_conv2d conv, sb_plane x, sb_plane grad, sb_blocks blocks, int32_t shares, float *sums) {
    sb::await_kernels_before();
    sb::SB_NAME::run(conv, x, grad, blocks, shares, sums);
}
