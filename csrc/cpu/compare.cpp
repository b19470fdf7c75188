/* How far two rows of values are apart. */
#include "kernels.h"
#include "regions.h"
#include "vec.h"

namespace sb::SB_ISA {

bool within(int dtype, const void *a, const void *b, int64_t n, float tolerance, float *largest) {
    words far = {};
    vec most = {};
    auto step = [&](vec u, vec v) {
        const vec raw = u - v, difference = raw < 0.0f ? -raw : raw;
        /* Comparisons with NaN are false: it is as far from everything as can be, but for its own bits. */
        const words near = (words)(difference < tolerance), same = (words)((words)u == (words)v);
        far |= ~(near | same);
        most = difference < tolerance && difference > most ? difference : most;
    };
    with_storage(dtype, [&](auto type) {
        typedef decltype(type) T;
        const T *p = (const T *)a, *q = (const T *)b;
        int64_t i = 0;
        for (; i + W <= n; i += W) step(load(p + i), load(q + i));
        if (i < n) step(load(p + i, (int)(n - i)), load(q + i, (int)(n - i)));
    });
    bool near = true;
    for (int i = 0; i < W; ++i) {
        near &= !far[i];
        *largest = most[i] > *largest ? most[i] : *largest;
    }
    return near;
}

} // namespace sb::SB_ISA
