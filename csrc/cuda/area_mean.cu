/* Averages over windows of a whole map, and whether all of them are finite: csrc/cpu/area_mean.cpp. A warp takes a window of a channel,
 * its lanes N pixels of a row in turn. */
#include "moments.h"

namespace sb::SB_NAME {

template <int N>
SB_DEVICE void run(const sb_plane &x, int window, float *out, int rows, int cols, uint8_t *finite) {
    constexpr int AT_ONCE = 4; /* loads of a lane */
    const int last_row = (int)ceil_div(x.h, window) - 1, last_col = (int)ceil_div(x.w, window) - 1;
    const Divisor by_cols(cols), by_rows(rows), by_channels(x.c);
    const int64_t all = (int64_t)x.n * x.c * rows * cols;
    for (int64_t i = group_index() * WARPS + warp_index(); i < all; i += group_count() * WARPS) {
        int col, row, c;
        const int n = by_channels.divide(by_rows.divide(by_cols.divide((uint32_t)i, col), row), c);
        const int top = (int)minimum(row, last_row) * window, left = (int)minimum(col, last_col) * window;
        const int height = (int)minimum(window, x.h - top), width = (int)minimum(window, x.w - left);
        const float *from = pixel<float>(x, n, top, left) + c * x.stride_c;
        const Divisor by_vectors(width / N);
        const int vectors = height * (width / N);
        float sum = 0.0f;
        for (int first = lane_index(); first < vectors; first += AT_ONCE * WARP)
            all_then_finish<0, AT_ONCE>([&](int k) {
                int vector;
                const bool there = first + k * WARP < vectors;
                const int down = by_vectors.divide(there ? first + k * WARP : 0, vector);
                const Vector<float, N> values = load_vector<N>(from + down * x.stride_y + vector * N * x.stride_x);
                return [&sum, values, there] {
                    SB_UNROLL
                    for (int v = 0; there && v < N; ++v) sum += values[v];
                };
            });
        const float mean = (float)(lane_sum((double)sum) / (height * width));
        if (lane_index() > 0) continue;
        out[i] = mean;
        if (!(mean - mean == 0.0f)) *finite = 0; /* whoever writes it, writes the same */
    }
}

} // namespace sb::SB_NAME

/* `out` is [n, c, rows, cols], `finite` true before. `vector`: rows of windows lie and begin as 16 bytes do. */
SB_ENTRY(sb_plane x, int32_t window, float *out, int32_t rows, int32_t cols, uint8_t *finite, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<4>(x, window, out, rows, cols, finite);
    else SB_NAME::run<1>(x, window, out, rows, cols, finite);
}
