/* Subnormal numbers count as zero in convolutions: the bits are those of zeros in their place. And the arithmetic around keeps them. */
#include "selftest.h"

void check_subnormals(Random &random, int number) {
    sb_conv2d conv = {};
    conv.groups = 1;
    conv.in_channels = random.between(1, 40);
    conv.out_channels = random.between(1, 40);
    conv.kernel_h = conv.kernel_w = 3;
    conv.stride_h = conv.stride_w = conv.dilation_h = conv.dilation_w = conv.pad_h = conv.pad_w = 1;
    const int algorithms[] = {SB_DIRECT, SB_WINOGRAD_2X2, SB_WINOGRAD_4X4};
    conv.algorithm = algorithms[random.between(0, 2)];
    const int h = random.between(3, 12), w = random.between(3, 12);
    /* One factor near the smallest normal number, on both sides of it, the other large enough that it shows. */
    const bool small_x = random.coin();
    auto values = [&](size_t count, bool small) {
        std::vector<float> made = random.values(count);
        for (float &v : made) v *= small ? 2e-38f : 1e30f;
        return made;
    };
    const std::vector<float> x = values((size_t)h * w * conv.in_channels, small_x);
    const std::vector<float> weight = values((size_t)conv.out_channels * conv.in_channels * 9, !small_x);
    auto zeroed = [](std::vector<float> made) {
        for (float &v : made)
            if (fpclassify(v) == FP_SUBNORMAL) v = copysignf(0.0f, v);
        return made;
    };
    std::vector<float> outs[2];
    for (int i = 0; i < 2; ++i) {
        std::vector<float> from = i ? zeroed(x) : x, factors = i ? zeroed(weight) : weight;
        std::vector<float> packed(sb_conv2d_packed_size(&conv));
        sb_conv2d_pack(&conv, factors.data(), packed.data());
        conv.packed_weight = packed.data();
        outs[i].resize((size_t)h * w * conv.out_channels);
        auto plane = [&](std::vector<float> &data, int c) {
            sb_plane p = {};
            p.data = data.data();
            p.stride_c = 1, p.stride_x = c, p.stride_y = (int64_t)w * c, p.stride_n = h * p.stride_y;
            p.n = 1, p.h = h, p.w = w, p.c = c;
            return p;
        };
        const sb_epilogue none = {};
        const sb_plane source = plane(from, conv.in_channels), target = plane(outs[i], conv.out_channels);
        sb_conv2d_run(&conv, &none, &source, nullptr, nullptr, &target, 2);
    }
    if (memcmp(outs[0].data(), outs[1].data(), sizeof(float) * outs[0].size())) fail("subnormals", number, "they do not count as zero");
    const volatile float least = 1e-45f;
    if (least * 2.0f == 0.0f) fail("subnormals", number, "the caller's arithmetic counts them as zero");
}
