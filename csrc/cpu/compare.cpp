/* How far two rows of values are apart, in every element or in sum. */
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

/* The sum of term(a and so on at i, how many there are) in vectors of W, whose lanes are added in their order. */
template <class Term>
SB_INLINE float sum_of(int64_t n, Term term) {
    vec sums = {};
    int64_t i = 0;
    for (; i + W <= n; i += W) sums += term(i, W);
    if (i < n) sums += term(i, (int)(n - i));
    float sum = 0.0f;
    for (int lane = 0; lane < W; ++lane) sum += sums[lane];
    return sum;
}

SB_INLINE vec part(const float *p, int count) { return count == W ? load(p) : load(p, count); }

float distance(const float *a, const float *b, int64_t n) {
    return sum_of(n, [&](int64_t i, int count) {
        const vec difference = part(a + i, count) - part(b + i, count);
        return difference < 0.0f ? -difference : difference;
    });
}

float weighted_difference(const float *weight, const float *a, const float *b, int64_t n) {
    return sum_of(n, [&](int64_t i, int count) { return part(weight + i, count) * (part(a + i, count) - part(b + i, count)); });
}

} // namespace sb::SB_ISA
