/* out = activation(x * scale + shift) with a scale and a shift for every channel of every image, which group_norm_statistics.cu makes;
 * a thread takes 16 bytes of channels, or one where planes do not lie at multiples of 16 bytes (`vector` 0). */
#include "epilogue.h"
#include "maps.h"

namespace sb::SB_NAME {

template <class T, int N>
SB_DEVICE void run(const sb_epilogue &epilogue, const float *statistics, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    for_each<N>(blocks, out, [&](int64_t n, int64_t y, int64_t x, int64_t c) {
        const float *scale = statistics + 2 * n * out.c + c, *shift = scale + out.c;
        Vector<T, N> values = load_vector<N>(pixel<T>(in, n, y, x) + c);
        for (int i = 0; i < N; ++i)
            values[i] = from_float<T>(activate(fma(to_float(values[i]), scale[i], shift[i]), epilogue, c + i));
        store_vector(pixel<T>(out, n, y, x) + c, values);
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_epilogue epilogue, const float *statistics, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(epilogue, statistics, x, blocks, out);
    else SB_NAME::run<SB_T, 1>(epilogue, statistics, x, blocks, out);
}
