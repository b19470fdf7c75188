/* How far two small pictures are apart: sparseblock.dense.picture_distance has the formula. One group does it all, in double precision;
 * sums are of values less the first one, as in channel_moments.cu. */
#include "moments.h"

namespace sb::SB_NAME {

/* means: [c] of the difference of both pictures, written before it is read. */
SB_DEVICE void run(const float *a, const float *b, int c, int pixels, double most, double *means, double *distance) {
    double energy = 0.0;
    for (int j = 0; j < c; ++j) {
        const float *p = a + (int64_t)j * pixels, *q = b + (int64_t)j * pixels;
        const double first_p = p[0], first_q = q[0];
        double sum_p = 0.0, sum_q = 0.0, squares = 0.0;
        for_each_pixel(pixels, [&](int i) {
            const float at_p = p[i], at_q = q[i];
            return [&, at_p, at_q] {
                const double v = at_p - first_p, w = at_q - first_q;
                sum_p += v, sum_q += w, squares += v * v + w * w;
            };
        });
        const double mean_p = all_sum(sum_p) / pixels, mean_q = all_sum(sum_q) / pixels;
        energy += all_sum(squares) / pixels - mean_p * mean_p - mean_q * mean_q;
        if (thread_index() == 0) means[j] = first_p + mean_p - (first_q + mean_q);
    }
    barrier(); /* the means are there */
    double total = 0.0;
    for_each_pixel<4>(pixels, [&](int i) {
        double apart = 0.0;
        for (int j = 0; j < c; ++j) {
            const double d = (double)a[(int64_t)j * pixels + i] - b[(int64_t)j * pixels + i] - means[j];
            apart += d * d;
        }
        return [&, apart] { total += apart / energy < most ? apart / energy : most; };
    });
    total = all_sum(total) / pixels;
    if (thread_index() == 0) *distance = energy > 0.0 ? total : 0.0; /* flat pictures are not apart */
}

} // namespace sb::SB_NAME

SB_ENTRY(const float *a, const float *b, int32_t c, int32_t pixels, double most, double *means, double *distance) {
    sb::await_kernels_before();
    sb::SB_NAME::run(a, b, c, pixels, most, means, distance);
}
