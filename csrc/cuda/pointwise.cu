/* out = epilogue(x): activations, sums, products, affine maps and copies; a thread takes 16 bytes of channels, or one where planes
 * do not lie at multiples of 16 bytes (`vector` 0) or a channel counts for all. A frame may be float32 where maps are halves: then
 * there is no second input. */
#include "epilogue.h"
#include "maps.h"

namespace sb::SB_NAME {

/* The channels from c on of a pixel. */
template <int N, class T>
SB_DEVICE Words<T, N> read(const sb_plane &plane, int n, int y, int x, int c) {
    return load_words<N>(pixel<T>(plane, n, y, x) + c * plane.stride_c);
}

template <class T, int N, class In = T>
SB_DEVICE void run(const sb_epilogue &epilogue, const sb_plane &in, const sb_plane &residual, bool combined, const sb_blocks &blocks,
                   const sb_plane &out) {
    for_each<N, 4>(blocks, out, [&](int n, int y, int x, int c) {
        const Words<In, N> first = read<N, In>(in, n, y, x, c);
        Words<In, N> second = {};
        if (combined) second = read<N, In>(residual, n, y, x, c);
        T *to = pixel<T>(out, n, y, x) + c;
        return [&epilogue, first, second, combined, to, c] {
            float values[N], residuals[N];
            read_floats<In, N>(first, values), read_floats<In, N>(second, residuals);
            finish(values, combined, residuals, epilogue, c);
            store_vector(to, from_floats<T>(values));
        };
    });
}

} // namespace sb::SB_NAME

/* `combined`: whether there is a residual; else its plane is not read. */
SB_ENTRY(sb_epilogue epilogue, sb_plane x, sb_plane residual, int32_t combined, sb_blocks blocks, sb_plane out, int32_t vector) {
    using namespace sb;
    await_kernels_before();
    if (x.dtype != out.dtype) SB_NAME::run<SB_T, 1, float>(epilogue, x, residual, combined, blocks, out);
    else if (vector) SB_NAME::run<SB_T, 16 / sizeof(SB_T)>(epilogue, x, residual, combined, blocks, out);
    else SB_NAME::run<SB_T, 1>(epilogue, x, residual, combined, blocks, out);
}
