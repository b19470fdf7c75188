/* bfloat16 and float16: conversions against plain arithmetic, value by value; and kernels on halves against the same kernels on
 * their floats, rounded: bit for bit, since sums are floats in one order. */
#include "selftest.h"

namespace {

struct Format {
    sb_dtype dtype;
    int digits, lowest; /* after the point; exponent of the smallest normal number */
    uint16_t infinity;

    float widen(uint16_t half) const {
        const int exponent = (half & 0x7fff) >> digits, fraction = half & ((1 << digits) - 1);
        const int normal = exponent ? 1 : 0;
        const double size = ldexp(fraction + (normal << digits), exponent - normal + lowest - digits);
        return (float)(half & 0x8000 ? -size : size);
    }
    /* To the nearest, of two to the even one. */
    uint16_t round(float value) const {
        const int sign = signbit(value) ? 0x8000 : 0;
        if (value == 0.0f || isinf(value)) return (uint16_t)(sign | (value == 0.0f ? 0 : infinity));
        const double size = fabs(value);
        const int exponent = ilogb(size) > lowest ? ilogb(size) : lowest;
        const int64_t bits = ((int64_t)(exponent - lowest) << digits) + (int64_t)nearbyint(ldexp(size, digits - exponent));
        return (uint16_t)(sign | (bits < infinity ? bits : infinity));
    }
};

constexpr Format FORMATS[] = {{SB_BF16, 7, -126, 0x7f80}, {SB_F16, 10, -14, 0x7c00}};

/* [1, h, w, c] without gaps. */
sb_plane plane_of(void *data, sb_dtype dtype, int h, int w, int c) {
    sb_plane p = {};
    p.data = data;
    p.stride_c = 1, p.stride_x = c, p.stride_y = (int64_t)w * c, p.stride_n = h * p.stride_y;
    p.n = 1, p.h = h, p.w = w, p.c = c;
    p.dtype = dtype;
    return p;
}

void check_conversions(Random &random, int number, const Format &format) {
    const int count = random.between(1, 300);
    std::vector<uint16_t> halves(count), rounded(count);
    std::vector<float> floats(count), widened(count);
    for (int i = 0; i < count; ++i) {
        do halves[i] = (uint16_t)(random.next() << 1 ^ random.next());
        while ((halves[i] & 0x7fff) > format.infinity);
        uint32_t bits; /* at a half, between two of them, or anywhere */
        do {
            floats[i] = format.widen(halves[i]);
            memcpy(&bits, &floats[i], 4);
            bits += (uint32_t)random.between(-1, 1) + (random.coin() ? 1u << (22 - format.digits) : 0);
            if (random.coin()) bits = (uint32_t)(random.next() << 16 ^ random.next());
            memcpy(&floats[i], &bits, 4);
        } while (isnan(floats[i]));
    }
    const sb_epilogue copy = {};
    const sb_plane wide = plane_of(floats.data(), SB_F32, 1, count, 1), half = plane_of(halves.data(), format.dtype, 1, count, 1);
    const sb_plane to_wide = plane_of(widened.data(), SB_F32, 1, count, 1);
    const sb_plane to_half = plane_of(rounded.data(), format.dtype, 1, count, 1);
    sb_pointwise_run(&copy, &wide, nullptr, nullptr, &to_half, 1);
    sb_pointwise_run(&copy, &half, nullptr, nullptr, &to_wide, 1);
    for (int i = 0; i < count; ++i) {
        if (rounded[i] != format.round(floats[i])) fail("halves", number, "a float is not rounded to the nearest half");
        if (halves[i] == format.infinity || halves[i] == (format.infinity | 0x8000)) continue;
        const float value = format.widen(halves[i]);
        if (memcmp(&widened[i], &value, 4)) fail("halves", number, "a half is not widened exactly");
    }
}

/* `kernel(x, residual, out)` on halves and on their floats. */
template <class Kernel>
void check_kernel(Random &random, int number, const Format &format, int h, int w, int c, int oh, int ow, int k, Kernel kernel) {
    std::vector<uint16_t> x((size_t)h * w * c), residual((size_t)oh * ow * k), out(residual.size());
    std::vector<float> wide_x, wide_residual, wide_out(out.size());
    for (uint16_t &value : x) wide_x.push_back(format.widen(value = format.round(random.value())));
    for (uint16_t &value : residual) wide_residual.push_back(format.widen(value = format.round(random.value())));
    kernel(plane_of(x.data(), format.dtype, h, w, c), plane_of(residual.data(), format.dtype, oh, ow, k),
           plane_of(out.data(), format.dtype, oh, ow, k));
    kernel(plane_of(wide_x.data(), SB_F32, h, w, c), plane_of(wide_residual.data(), SB_F32, oh, ow, k),
           plane_of(wide_out.data(), SB_F32, oh, ow, k));
    for (size_t i = 0; i < out.size(); ++i)
        if (out[i] != format.round(wide_out[i])) fail("halves", number, "a kernel gives other bits than on floats, rounded");
}

/* Products of bfloat16 against the direct sum: of whole and small numbers every sum is exact, whatever its order. */
void check_products(Random &random, int number, int algorithm) {
    if (!sb_conv2d_has(algorithm)) return;
    const int c = random.coin() ? 32 : 2 * random.between(1, 20), groups = random.between(1, 3), k = groups * random.between(1, 40);
    const int h = random.between(1, 20), w = random.between(1, 40);
    sb_conv2d conv = {};
    conv.in_channels = groups * c, conv.out_channels = k, conv.groups = groups;
    conv.kernel_h = random.between(1, 3), conv.kernel_w = random.between(1, 3);
    conv.stride_h = conv.stride_w = random.between(1, 3);
    conv.dilation_h = conv.dilation_w = random.between(1, 6);
    conv.pad_h = conv.kernel_h / 2 * conv.dilation_h, conv.pad_w = conv.kernel_w / 2 * conv.dilation_w;
    const int oh = (h + 2 * conv.pad_h - conv.dilation_h * (conv.kernel_h - 1) - 1) / conv.stride_h + 1;
    const int ow = (w + 2 * conv.pad_w - conv.dilation_w * (conv.kernel_w - 1) - 1) / conv.stride_w + 1;
    if (h + 2 * conv.pad_h < conv.dilation_h * (conv.kernel_h - 1) + 1 || w + 2 * conv.pad_w < conv.dilation_w * (conv.kernel_w - 1) + 1)
        return;
    std::vector<float> weight((size_t)k * c * conv.kernel_h * conv.kernel_w);
    for (float &v : weight) v = (float)random.between(-1, 1);
    std::vector<uint16_t> x((size_t)h * w * groups * c), outs[2];
    for (uint16_t &v : x) v = FORMATS[0].round((float)random.between(-1, 1));
    const sb_epilogue none = {};
    const sb_plane from = plane_of(x.data(), SB_BF16, h, w, groups * c);
    for (int i = 0; i < 2; ++i) {
        conv.algorithm = i ? algorithm : SB_DIRECT;
        std::vector<float> packed(sb_conv2d_packed_size(&conv));
        sb_conv2d_pack(&conv, weight.data(), packed.data());
        conv.packed_weight = packed.data();
        outs[i].resize((size_t)oh * ow * k);
        const sb_plane to = plane_of(outs[i].data(), SB_BF16, oh, ow, k);
        sb_conv2d_run(&conv, &none, &from, nullptr, nullptr, &to, 2);
        for (uint16_t &v : outs[i])
            if (v == 0x8000) v = 0; /* the sign of a sum of zeros does depend on the order */
    }
    if (outs[0] != outs[1]) fail("halves", number, algorithm == SB_AMX ? "tiles of products are not the direct sum" : "dot products of pairs are not the direct sum");
}

} // namespace

void check_halves(Random &random, int number) {
    const Format &format = FORMATS[random.coin()];
    check_conversions(random, number, format);

    const int h = random.between(5, 20), w = random.between(5, 20), c = random.between(1, 40), k = random.between(1, 40);
    sb_conv2d conv = {};
    conv.in_channels = c, conv.out_channels = k, conv.groups = 1;
    conv.kernel_h = conv.kernel_w = random.coin() ? 3 : 1;
    conv.stride_h = conv.stride_w = random.between(1, 3);
    conv.dilation_h = conv.dilation_w = random.between(1, 6);
    conv.pad_h = conv.pad_w = conv.kernel_h / 2 * conv.dilation_h;
    const std::vector<float> weight = random.values((size_t)k * c * conv.kernel_h * conv.kernel_w);
    std::vector<float> packed(sb_conv2d_packed_size(&conv));
    sb_conv2d_pack(&conv, weight.data(), packed.data());
    conv.packed_weight = packed.data();
    sb_epilogue relu = {};
    relu.activation = SB_RELU;
    check_kernel(random, number, format, h, w, c, (h - 1) / conv.stride_h + 1, (w - 1) / conv.stride_w + 1, k,
                 [&](sb_plane x, sb_plane residual, sb_plane out) { sb_conv2d_run(&conv, &relu, &x, &residual, nullptr, &out, 2); });

    sb_pool2d pool = {};
    pool.kind = random.coin() ? SB_POOL_MAX : SB_POOL_AVG;
    pool.kernel_h = pool.kernel_w = 3;
    pool.stride_h = pool.stride_w = pool.pad_h = pool.pad_w = pool.dilation_h = pool.dilation_w = 1;
    check_kernel(random, number, format, h, w, c, h, w, c,
                 [&](sb_plane x, sb_plane, sb_plane out) { sb_pool2d_run(&pool, &x, nullptr, &out, 2); });

    sb_interpolate resize = {};
    resize.mode = random.coin() ? SB_NEAREST : SB_BILINEAR;
    resize.scale_h = resize.scale_w = 0.5f;
    check_kernel(random, number, format, h, w, c, 2 * h, 2 * w, c,
                 [&](sb_plane x, sb_plane, sb_plane out) { sb_interpolate_run(&resize, &x, nullptr, &out, 2); });
    check_kernel(random, number, format, h, w, c, h, w, c, [&](sb_plane x, sb_plane residual, sb_plane out) {
        sb_pointwise_run(&relu, &x, &residual, nullptr, &out, 2);
    });
    const sb_channel_norm norm = {random.between(SB_SOFTMAX, SB_UNIT_VARIANCE), 1e-5f};
    check_kernel(random, number, format, h, w, c, h, w, c,
                 [&](sb_plane x, sb_plane, sb_plane out) { sb_channel_norm_run(&norm, &relu, &x, nullptr, &out, 2); });
    check_products(random, number, SB_PAIRS);
    check_products(random, number, SB_AMX);
}
