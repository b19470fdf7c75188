/* Maps of few channels as conv2d_wgmma.cu reads them: a tap row of a window, kernel_w pixels side by side, is its channels. So that
 * windows begin at multiples of 16 bytes a pixel has SB_PITCH channels, zeros after its own, and there are zeros left and right of the
 * map. packed[n, y, x] is x[n, y, x - pad_w]; what the active blocks of out read is written. */
#include "maps.h"

namespace sb::SB_NAME {

SB_DEVICE void run(const sb_conv2d &conv, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out, const sb_plane &packed) {
    const Regions regions(blocks, out);
    const int reach_y = conv.dilation_h * (conv.kernel_h - 1), reach_x = conv.kernel_w - 1;
    const int height = (int)(regions.height() - 1) * conv.stride_h + reach_y + 1;
    const int width = (int)(regions.width() - 1) * conv.stride_w + reach_x + 1;
    for_each_of<1, 4>(regions.count(), height, width, 1, [&](int i) {
        const Region region(regions, i);
        const int n = (int)region.n, top = (int)region.y0 * conv.stride_h - conv.pad_h, left = (int)region.x0 * conv.stride_w;
        const int right = (int)minimum((region.x1 - 1) * conv.stride_w + reach_x + 1, packed.w);
        return [&in, &packed, &conv, n, top, left, right](int down, int along, int) {
            const int y = top + down, x = left + along, from = x - conv.pad_w;
            const bool inside = y >= 0 && y < in.h && x < right;
            Vector<SB_T, SB_PITCH> values = {};
            if (inside && from >= 0 && from < in.w) {
                const SB_T *p = pixel<SB_T>(in, n, y, from);
                SB_UNROLL
                for (int c = 0; c < SB_PITCH; ++c)
                    if (c < in.c) values[c] = p[c * in.stride_c];
            }
            SB_T *to = pixel<SB_T>(packed, n, y, x);
            return [values, to, inside] {
                if (inside) store_vector(to, values);
            };
        };
    });
}

} // namespace sb::SB_NAME

/* `packed`: [n, in_h, windows of a line, SB_PITCH], its pixels close together. */
SB_ENTRY(sb_conv2d conv, sb_plane x, sb_blocks blocks, sb_plane out, sb_plane packed) {
    sb::await_kernels_before();
    sb::SB_NAME::run(conv, x, blocks, out, packed);
}
