/* conv2d and conv_transpose2d: dense, grouped, depthwise, by Winograd; in place on planes with and without a border. */
#include "selftest.h"

void check_conv2d(Random &random, int number) {
    sb_conv2d conv = {};
    conv.transposed = random.between(0, 3) == 0;
    conv.groups = random.between(0, 2) ? 1 : random.between(2, 20);
    const bool depthwise = conv.groups > 1 && random.coin();
    conv.in_channels = conv.groups * (depthwise ? 1 : random.between(1, conv.groups > 1 ? 3 : 40));
    conv.out_channels = conv.groups * (depthwise ? 1 : random.between(1, conv.groups > 1 ? 4 : 70));
    conv.kernel_h = random.between(1, 4);
    conv.kernel_w = random.between(1, 4);
    conv.stride_h = random.between(1, 3);
    conv.stride_w = random.between(1, 3);
    conv.dilation_h = random.between(1, 3);
    conv.dilation_w = random.between(1, 3);
    /* PyTorch allows a transposed convolution no more padding than its window reaches. */
    conv.pad_h = random.between(0, conv.transposed ? (conv.kernel_h - 1) * conv.dilation_h : 3);
    conv.pad_w = random.between(0, conv.transposed ? (conv.kernel_w - 1) * conv.dilation_w : 3);
    if (random.between(0, 2) == 0) {
        conv.transposed = 0;
        conv.groups = 1;
        conv.in_channels = random.between(1, 40);
        conv.out_channels = random.between(1, 70);
        conv.kernel_h = conv.kernel_w = 3;
        conv.stride_h = conv.stride_w = 1;
        conv.dilation_h = random.between(1, 4);
        conv.dilation_w = random.between(1, 4);
        conv.algorithm = random.coin() ? SB_WINOGRAD_2X2 : SB_WINOGRAD_4X4;
    }
    conv.pad_mode = conv.transposed || conv.algorithm || random.coin() ? SB_PAD_CONSTANT : random.between(SB_PAD_REFLECT, SB_PAD_CIRCULAR);
    const int below = conv.transposed ? 0 : random.between(0, 2), beside = conv.transposed ? 0 : random.between(0, 2);
    auto extent = [&](int size, int kernel, int stride, int pad, int dilation) {
        const int reach = dilation * (kernel - 1) + 1;
        return conv.transposed ? (size - 1) * stride - 2 * pad + reach : (size + 2 * pad - reach) / stride + 1;
    };
    const int h = random.between(8, 20), w = random.between(8, 20);
    const int oh = extent(h + below, conv.kernel_h, conv.stride_h, conv.pad_h, conv.dilation_h);
    const int ow = extent(w + beside, conv.kernel_w, conv.stride_w, conv.pad_w, conv.dilation_w);
    if (oh < 1 || ow < 1) return;

    Map x = Map::source(random, random.between(1, 2), h, w, conv.in_channels, random.between(0, 3));
    Map residual = Map::source(random, x.n, oh, ow, conv.out_channels, 0);
    Map out = Map::target(random, x.n, oh, ow, conv.out_channels);
    const bool add = random.coin();
    const int in_group = conv.in_channels / conv.groups, out_group = conv.out_channels / conv.groups;
    const std::vector<float> weight = random.values((size_t)conv.out_channels * in_group * conv.kernel_h * conv.kernel_w);
    const Epilogue epilogue(random, conv.out_channels, true);
    const sb_epilogue e = epilogue.get();

    std::vector<float> packed(sb_conv2d_packed_size(&conv));
    sb_conv2d_pack(&conv, weight.data(), packed.data());
    conv.packed_weight = packed.data();
    const sb_plane from = x.plane(), addend = residual.plane();
    auto kernel = [&](const sb_plane &to, const sb_blocks *blocks, int threads) {
        sb_conv2d_run(&conv, &e, &from, add ? &addend : nullptr, blocks, &to, threads);
    };
    auto exact = [&](int n, int oy, int ox, int k) {
        Exact sum = {0.0, 0.0, conv.kernel_h * conv.kernel_w * in_group};
        const int group = k / out_group;
        for (int r = 0; r < conv.kernel_h; ++r)
            for (int s = 0; s < conv.kernel_w; ++s) {
                int y, xx;
                if (conv.transposed) {
                    const int py = oy + conv.pad_h - r * conv.dilation_h, px = ox + conv.pad_w - s * conv.dilation_w;
                    if (py % conv.stride_h || px % conv.stride_w) continue;
                    y = py / conv.stride_h, xx = px / conv.stride_w;
                } else {
                    y = oy * conv.stride_h - conv.pad_h + r * conv.dilation_h;
                    xx = ox * conv.stride_w - conv.pad_w + s * conv.dilation_w;
                }
                for (int c = 0; c < in_group; ++c) {
                    const int channel = group * in_group + c;
                    const size_t row = conv.transposed ? (size_t)channel * out_group + k % out_group : (size_t)k * in_group + c;
                    const double product = weight[(row * conv.kernel_h + r) * conv.kernel_w + s] * x.padded(n, y, xx, channel, conv.pad_mode);
                    sum.value += product;
                    sum.magnitude += fabs(product);
                }
            }
        if (conv.algorithm != SB_DIRECT) {
            /* sparseblock.testing.winograd: sums of the transforms besides c, and how much larger the products are; the largest is 2 * 2. */
            const bool large = conv.algorithm == SB_WINOGRAD_4X4;
            sum.terms = in_group + 4 * (large ? 6 : 4);
            sum.magnitude = 4.0 * in_group * (large ? 21.5 : 5.0);
        }
        return epilogue.apply(sum, k, add ? residual.at(n, oy, ox, k) : epilogue.neutral());
    };
    check("conv2d", number, random, out, kernel, exact);
}
