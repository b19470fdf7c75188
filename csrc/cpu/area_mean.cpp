/* A frame shrunk by area, and the moments of such a picture. One thread. */
#include <string.h>

#include "kernels.h"
#include "scratch.h"
#include "vec.h"

namespace sb::SB_ISA {
namespace {

/* sums[i] = the sum over `rows` rows of n floats. */
void sum_rows(const float *x, int64_t stride_y, int64_t rows, int64_t step, int64_t n, float *sums) {
    memset(sums, 0, sizeof(float) * n);
    for (int64_t y = 0; y < rows; ++y, x += stride_y) {
        if (step == 1)
            for (int64_t i = 0; i < n; ++i) sums[i] += x[i];
        else
            for (int64_t i = 0; i < n; ++i) sums[i] += x[i * step];
    }
}

/* The sum of n floats, `step` apart: as many partial sums as a vector has, so that no addition waits for the one before. */
float sum_of(const float *x, int64_t step, int64_t n) {
    vec sums = {};
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        if (step == 1) {
            sums += load(x + i);
        } else {
            for (int j = 0; j < W; ++j) sums[j] += x[(i + j) * step];
        }
    }
    for (int j = 0; i < n; ++i, ++j) sums[j] += x[i * step];
    float sum = 0;
    for (int j = 0; j < W; ++j) sum += sums[j];
    return sum;
}

} // namespace

int area_mean(const sb_plane *x, int window, float *out, int rows, int cols) {
    const int64_t c = x->c, h = x->h, w = x->w;
    const bool interleaved = x->stride_c == 1 && x->stride_x == c;
    float *sums = (float *)scratch(SCRATCH_SUMS, sizeof(float) * w * c);
    bool finite = true;
    for (int64_t n = 0; n < x->n; ++n, out += c * rows * cols) {
        for (int64_t oy = 0; oy < rows; ++oy) {
            const int64_t top = oy * window, height = minimum(window, h - top);
            if (top >= h) { /* past the frame: the row above again */
                for (int64_t k = 0; k < c; ++k) memcpy(out + (k * rows + oy) * cols, out + (k * rows + oy - 1) * cols, sizeof(float) * cols);
                continue;
            }
            const float *row = (const float *)x->data + n * x->stride_n + top * x->stride_y;
            if (interleaved) {
                sum_rows(row, x->stride_y, height, 1, w * c, sums);
            } else {
                for (int64_t k = 0; k < c; ++k) sum_rows(row + k * x->stride_c, x->stride_y, height, x->stride_x, w, sums + k * w);
            }
            for (int64_t k = 0; k < c; ++k) {
                const float *of_channel = interleaved ? sums + k : sums + k * w;
                const int64_t step = interleaved ? c : 1;
                float *to = out + (k * rows + oy) * cols;
                for (int64_t ox = 0; ox < cols; ++ox) {
                    const int64_t left = ox * window, width = minimum(window, w - left);
                    if (left >= w) {
                        to[ox] = to[ox - 1];
                        continue;
                    }
                    to[ox] = sum_of(of_channel + left * step, step, width) / (float)(height * width);
                    finite = finite && to[ox] - to[ox] == 0;
                }
            }
        }
    }
    return finite;
}

void channel_moments(const float *x, int c, int64_t n, float *mean, float *variance) {
    for (int k = 0; k < c; ++k, x += n) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < n; ++i) sum += x[i];
        const double center = sum / (double)n;
        for (int64_t i = 0; i < n; ++i) squares += (x[i] - center) * (x[i] - center);
        mean[k] = (float)center;
        variance[k] = (float)(squares / (double)n);
    }
}

float picture_distance(const float *a, const float *b, int c, int64_t n, float most) {
    float *moments = (float *)scratch(SCRATCH_POLICY, sizeof(float) * (4 * c + n)), *differences = moments + 4 * c;
    channel_moments(a, c, n, moments, moments + c);
    channel_moments(b, c, n, moments + 2 * c, moments + 3 * c);
    float energy = 0;
    for (int k = 0; k < c; ++k) energy += moments[c + k] + moments[3 * c + k];
    if (!(energy > 0)) return 0;
    memset(differences, 0, sizeof(float) * n);
    for (int k = 0; k < c; ++k) {
        const float shift = moments[2 * c + k] - moments[k];
        for (int64_t i = 0; i < n; ++i) {
            const float d = a[k * n + i] - b[k * n + i] + shift;
            differences[i] += d * d;
        }
    }
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += differences[i] < most * energy ? differences[i] : most * energy;
    return (float)(sum / ((double)n * energy));
}

} // namespace sb::SB_ISA
