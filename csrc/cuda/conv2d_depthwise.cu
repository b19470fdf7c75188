/* conv2d and conv_transpose2d whose groups have one input channel: nothing is shared between channels, so a thread sums the taps of 16
 * bytes of channels, or of one where planes do not lie at multiples of 16 bytes or a group has several outputs (`vector` 0). Weights
 * are float, [kernel_h, kernel_w, out channels]. */
#include "conv2d.h"
#include "epilogue.h"

namespace sb::SB_NAME {

template <class T, int N>
SB_DEVICE void run(const sb_conv2d &conv, const sb_epilogue &epilogue, const sb_plane &in, const sb_plane &residual, bool combined,
                   const sb_blocks &blocks, const sb_plane &out) {
    const Axis y_axis = axis_y(conv), x_axis = axis_x(conv);
    const Divisor out_group(conv.out_channels / conv.groups);
    for_each<N, 1>(blocks, out, [&](int n, int oy, int ox, int c) {
        const Taps taps_y = y_axis.taps(oy % y_axis.phases()), taps_x = x_axis.taps(ox % x_axis.phases());
        const int top = (int)y_axis.own(oy) + taps_y.offset, left = (int)x_axis.own(ox) + taps_x.offset;
        const T *image = pixel<T>(in, n, 0, 0) + out_group(c);
        float sum[N] = {};
        for (int r = 0; r < taps_y.count; ++r)
            for (int s = 0; s < taps_x.count; ++s) {
                int y = top + r * taps_y.offset_step, x = left + s * taps_x.offset_step;
                if (conv.pad_mode != SB_PAD_CONSTANT)
                    y = pad_source(y, in.h, conv.pad_mode), x = pad_source(x, in.w, conv.pad_mode);
                if (y < 0 || y >= in.h || x < 0 || x >= in.w) continue;
                const Vector<T, N> values = load_vector<N>(image + y * in.stride_y + x * in.stride_x);
                const int64_t tap = (taps_y.first + r * taps_y.step) * conv.kernel_w + taps_x.first + s * taps_x.step;
                const float *weights = conv.packed_weight + tap * conv.out_channels + c;
                for (int i = 0; i < N; ++i) sum[i] = fma(to_float(values[i]), weights[i], sum[i]);
            }
        T *to = pixel<T>(out, n, oy, ox) + c;
        Vector<T, N> second = {};
        if (combined) second = load_vector<N>(pixel<T>(residual, n, oy, ox) + c * residual.stride_c);
        float residuals[N];
        read_floats(second, residuals);
        finish(sum, combined, residuals, epilogue, c);
        const Vector<T, N> result = from_floats<T>(sum);
        return [result, to] { store_vector(to, result); };
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_conv2d conv, sb_epilogue epilogue, sb_plane x, sb_plane residual, int32_t combined, sb_blocks blocks, sb_plane out,
         int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(conv, epilogue, x, residual, combined != 0, blocks, out);
    else SB_NAME::run<SB_T, 1>(conv, epilogue, x, residual, combined != 0, blocks, out);
}
