/* Mean and variance of every channel of a small picture, in double precision: a group takes a channel. Values are summed less the
 * first one, so that squares of what is far from zero do not swallow how they vary. */
#include "moments.h"

namespace sb::SB_NAME {

SB_DEVICE void run(const float *x, int c, int pixels, double *means, double *variances) {
    for (int64_t j = group_index(); j < c; j += group_count()) {
        const float *values = x + j * pixels;
        const double first = values[0];
        double sum = 0.0, squares = 0.0;
        for_each_pixel(pixels, [&](int i) {
            const float value = values[i];
            return [&, value] {
                const double v = value - first;
                sum += v, squares += v * v;
            };
        });
        const double mean = all_sum(sum) / pixels, variance = all_sum(squares) / pixels - mean * mean;
        if (thread_index() > 0) continue;
        means[j] = first + mean;
        variances[j] = variance < 0.0 ? 0.0 : variance;
    }
}

} // namespace sb::SB_NAME

SB_ENTRY(const float *x, int32_t c, int32_t pixels, double *means, double *variances) {
    sb::await_kernels_before();
    sb::SB_NAME::run(x, c, pixels, means, variances);
}
