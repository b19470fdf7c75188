/* A frame shrunk by area. One thread. */
#include <string.h>

#include "scratch.h"
#include "sparseblock.h"

namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

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

} // namespace

int sb_area_mean_run(const sb_plane *x, int window, float *out, int rows, int cols) {
    const int64_t c = x->c, h = x->h, w = x->w;
    const bool interleaved = x->stride_c == 1 && x->stride_x == c;
    float *sums = (float *)sb::scratch(sb::SCRATCH_SUMS, sizeof(float) * w * c);
    bool finite = true;
    for (int64_t n = 0; n < x->n; ++n, out += c * rows * cols) {
        for (int64_t oy = 0; oy < rows; ++oy) {
            const int64_t top = oy * window, height = smaller(window, h - top);
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
                    const int64_t left = ox * window, width = smaller(window, w - left);
                    if (left >= w) {
                        to[ox] = to[ox - 1];
                        continue;
                    }
                    float sum = 0;
                    for (int64_t i = left; i < left + width; ++i) sum += of_channel[i * step];
                    to[ox] = sum / (float)(height * width);
                    finite = finite && to[ox] - to[ox] == 0;
                }
            }
        }
    }
    return finite;
}
