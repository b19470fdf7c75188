/* Single pixels of a map, as floats: csrc/cpu/sample.cpp. A thread takes a channel of a sample. */
#include "maps.h"

namespace sb::SB_NAME {

template <class T>
SB_DEVICE void run(const sb_plane &x, const int64_t *ys, int rows, const int64_t *xs, int cols, float *out) {
    const Divisor by_channels(x.c), by_cols(cols);
    const int64_t all = (int64_t)rows * cols * x.c;
    for (int64_t i = group_index() * thread_count() + thread_index(); i < all; i += group_count() * thread_count()) {
        int c, col;
        const int row = by_cols.divide(by_channels.divide((uint32_t)i, c), col);
        out[i] = to_float(pixel<T>(x, 0, ys[row], xs[col])[c * x.stride_c]);
    }
}

} // namespace sb::SB_NAME

/* out: [rows, cols, c]. */
SB_ENTRY(sb_plane x, const int64_t *ys, int32_t rows, const int64_t *xs, int32_t cols, float *out) {
    using namespace sb;
    await_kernels_before();
    SB_NAME::run<SB_T>(x, ys, rows, xs, cols, out);
}
