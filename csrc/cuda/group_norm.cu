/* out = activation(x * scale + shift) with a scale and a shift for every channel of every image, which group_norm_statistics.cu makes;
 * a thread takes 16 bytes of channels, or one where planes do not lie at multiples of 16 bytes (`vector` 0). */
#include "epilogue.h"
#include "maps.h"

namespace sb::SB_NAME {

template <class T, int N>
SB_DEVICE void run(const sb_epilogue &epilogue, const float *statistics, const sb_plane &in, const sb_blocks &blocks, const sb_plane &out) {
    for_each<N, 2>(blocks, out, [&](int n, int y, int x, int c) {
        const float *scale = statistics + (int64_t)2 * n * out.c + c, *shift = scale + out.c;
        const Vector<T, N> read = load_vector<N>(pixel<T>(in, n, y, x) + c);
        T *to = pixel<T>(out, n, y, x) + c;
        return [&epilogue, scale, shift, read, to, c] {
            float values[N];
            read_floats(read, values);
            change(values, [&](float v, int i) { return fma(v, scale[i], shift[i]); });
            activate(values, epilogue, c);
            store_vector(to, from_floats<T>(values));
        };
    });
}

} // namespace sb::SB_NAME

SB_ENTRY(sb_epilogue epilogue, const float *statistics, sb_plane x, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(epilogue, statistics, x, blocks, out);
    else SB_NAME::run<SB_T, 1>(epilogue, statistics, x, blocks, out);
}
