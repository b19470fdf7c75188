/* What runs beside a network: pictures, samples, and the policy network with its gradient, against plain loops. Parameters, pixels
 * and gradients are whole and small, so that every sum is exact and nothing of it depends on an order. */
#include "selftest.h"

namespace {

using Values = std::vector<float>;

Values whole(Random &random, int64_t count) {
    Values values(count);
    for (float &v : values) v = (float)random.between(-1, 1);
    return values;
}

void close(const char *what, int number, double actual, double expected, double bound) {
    if (!(fabs(actual - expected) <= bound)) {
        char line[160];
        snprintf(line, sizeof(line), "%s is %g instead of %g", what, actual, expected);
        fail("policy", number, line);
    }
}

/* A layer of the policy network: 4x4, stride 2, padding 1, of h x w x c pixels. */
struct Layer {
    int h, w, c, k;
    const float *weight, *bias;

    /* f(pixel of x, of out, of the weight) for every product there is. */
    template <class F>
    void products(F f) const {
        for (int y = 0; y < h / 2; ++y)
            for (int x = 0; x < w / 2; ++x)
                for (int o = 0; o < k; ++o)
                    for (int i = 0; i < c; ++i)
                        for (int t = 0; t < 16; ++t) {
                            const int iy = 2 * y - 1 + t / 4, ix = 2 * x - 1 + t % 4;
                            if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
                            f((iy * w + ix) * c + i, (y * (w / 2) + x) * k + o, (o * c + i) * 16 + t);
                        }
    }
};

void check_network(Random &random, int number) {
    sb_policy policy = {random.between(1, 3), random.between(1, 3), 8, random.between(1, 5), random.between(1, 4), {}, 1073741824.0f};
    int64_t size = policy.summaries + 1, maps_size = 0;
    for (int i = 0, c = policy.channels, side = 8; i < SB_POLICY_LAYERS; ++i) {
        const int k = policy.widths[i] = random.between(1, 9);
        side /= 2;
        size += (int64_t)k * (c * 16 + 1);
        maps_size += (int64_t)policy.rows * side * policy.cols * side * k;
        c = k;
    }
    size += policy.widths[SB_POLICY_LAYERS - 1];
    const int blocks = policy.rows * policy.cols;
    const Values parameters = whole(random, size), pixels = whole(random, (int64_t)blocks * 64 * policy.channels);
    const Values summary = whole(random, (int64_t)policy.summaries * blocks), grad_logits = whole(random, blocks);
    Values maps(maps_size), logits(blocks), gradient(size, NAN);
    sb_policy_logits_run(&policy, parameters.data(), pixels.data(), summary.data(), maps.data(), logits.data());
    sb_policy_logits_grad_run(&policy, parameters.data(), pixels.data(), summary.data(), maps.data(), logits.data(), grad_logits.data(),
                              gradient.data());

    std::vector<Layer> layers;
    std::vector<Values> values = {pixels};
    int64_t used = 0;
    for (int i = 0, side = 8, c = policy.channels; i < SB_POLICY_LAYERS; ++i, side /= 2) {
        const int k = policy.widths[i];
        const float *weight = parameters.data() + used, *bias = weight + (int64_t)k * c * 16;
        layers.push_back({policy.rows * side, policy.cols * side, c, k, weight, bias});
        used += (int64_t)k * (c * 16 + 1);
        const Layer &l = layers.back();
        Values out((int64_t)l.h / 2 * (l.w / 2) * k);
        for (size_t j = 0; j < out.size(); ++j) out[j] = l.bias[j % k];
        l.products([&](int from, int to, int w) { out[to] += values[i][from] * l.weight[w]; });
        for (float &v : out) v = v > 0 ? v : 0;
        values.push_back(out);
        c = k;
    }
    const int k = policy.widths[SB_POLICY_LAYERS - 1];
    const float *value = parameters.data() + used, *linear = value + k;
    Values expected(size, 0.0f), grad((size_t)blocks * k);
    for (int b = 0; b < blocks; ++b) {
        double sum = linear[policy.summaries];
        for (int j = 0; j < k; ++j) {
            sum += value[j] * values.back()[b * k + j];
            expected[used + j] += grad_logits[b] * values.back()[b * k + j];
            grad[b * k + j] = grad_logits[b] * value[j];
        }
        for (int s = 0; s < policy.summaries; ++s) {
            sum += linear[s] * summary[s * blocks + b];
            expected[used + k + s] += grad_logits[b] * summary[s * blocks + b];
        }
        expected[size - 1] += grad_logits[b];
        close("a logit", number, logits[b], sum, 3e-7 * fabs(sum)); /* the tangent's rounding */
    }
    for (int i = SB_POLICY_LAYERS - 1; i >= 0; --i) {
        const Layer &l = layers[i];
        const int64_t weight = l.weight - parameters.data(), bias = l.bias - parameters.data();
        Values below(values[i].size(), 0.0f);
        for (size_t j = 0; j < grad.size(); ++j) {
            if (!(values[i + 1][j] > 0)) grad[j] = 0;
            expected[bias + (int64_t)j % l.k] += grad[j];
        }
        l.products([&](int from, int to, int w) {
            expected[weight + w] += grad[to] * values[i][from];
            below[from] += grad[to] * l.weight[w];
        });
        grad = below;
    }
    for (int64_t i = 0; i < size; ++i) close("a gradient", number, gradient[i], expected[i], 0);
}

void check_pictures(Random &random, int number) {
    const int c = random.between(1, 4), h = random.between(1, 12), w = random.between(1, 12), n = h * w;
    const Values a = whole(random, (int64_t)c * n), b = whole(random, (int64_t)c * n);
    Values mean(2 * c), variance(2 * c);
    sb_channel_moments_run(a.data(), c, n, mean.data(), variance.data());
    sb_channel_moments_run(b.data(), c, n, mean.data() + c, variance.data() + c);
    double energy = 0;
    for (int k = 0; k < 2 * c; ++k) {
        const float *x = k < c ? a.data() + (int64_t)k * n : b.data() + (int64_t)(k - c) * n;
        double sum = 0, squares = 0;
        for (int i = 0; i < n; ++i) sum += x[i];
        for (int i = 0; i < n; ++i) squares += (x[i] - sum / n) * (x[i] - sum / n);
        close("a mean", number, mean[k], sum / n, 1e-7);
        close("a variance", number, variance[k], squares / n, 1e-7);
        energy += squares / n;
    }
    double distance = 0;
    for (int i = 0; i < n; ++i) {
        double d = 0;
        for (int k = 0; k < c; ++k) {
            const double difference = a[k * n + i] - b[k * n + i] - (mean[k] - mean[c + k]);
            d += difference * difference;
        }
        distance += fmin(d, 1.5 * energy);
    }
    const float actual = sb_picture_distance_run(a.data(), b.data(), c, n, 1.5f);
    close("a distance", number, actual, energy > 0 ? distance / (n * energy) : 0, 1e-5);

    Map x = Map::source(random, 1, h, w, c, random.between(0, 1));
    const int64_t ys[] = {random.between(0, h - 1), random.between(0, h - 1)}, xs[] = {random.between(0, w - 1)};
    Values samples(2 * c);
    const sb_plane plane = x.plane();
    sb_sample_run(&plane, ys, 2, xs, 1, samples.data());
    for (int i = 0; i < 2 * c; ++i) close("a sample", number, samples[i], x.at(0, (int)ys[i / c], (int)xs[0], i % c), 0);

    const int window = random.between(1, 20), rows = (h + window - 1) / window, cols = (w + window - 1) / window;
    Values means((int64_t)c * rows * cols);
    if (!sb_area_mean_run(&plane, window, means.data(), rows, cols)) fail("policy", number, "a picture is said to be not finite");
    for (int k = 0; k < c; ++k)
        for (int i = 0; i < rows * cols; ++i) {
            double sum = 0;
            int count = 0;
            for (int y = i / cols * window; y < fmin(h, (i / cols + 1) * window); ++y)
                for (int xx = i % cols * window; xx < fmin(w, (i % cols + 1) * window); ++xx, ++count) sum += x.at(0, y, xx, k);
            close("an average", number, means[k * rows * cols + i], sum / count, 2e-7 * (count + 1));
        }
}

/* With features that are no logarithms all inputs but the changes' logarithms are differences. */
void check_inputs(Random &random, int number) {
    const int rows = random.between(1, 3), cols = random.between(1, 3), c = random.between(1, 3), k = random.between(1, 20);
    const int samples = 1 << random.between(0, 3), step = 8 / samples, area = rows * cols * 64, blocks = rows * cols, w = cols * 8;
    const Values frame = whole(random, (int64_t)c * area), executed = whole(random, (int64_t)c * area);
    const Values features = whole(random, (int64_t)rows * samples * cols * samples * k), mean(c, 0.5f), deviation(c, 2.0f);
    std::vector<uint8_t> active(blocks);
    std::vector<int64_t> age(blocks);
    for (int i = 0; i < blocks; ++i) active[i] = (uint8_t)random.between(0, 1), age[i] = random.between(0, 50);
    sb_policy_inputs in = {frame.data(), executed.data(), mean.data(), deviation.data(), active.data(), age.data(), c, rows, cols, 8, 0, 0.5f};
    const sb_plane plane = {(void *)features.data(), 0, (int64_t)cols * samples * k, k, 1, 1, rows * samples, cols * samples, k, 0, SB_F32};
    const int depth = 2 * c + 1 + k + 1;
    Values pixels((int64_t)area * depth), summary(3 * blocks);
    float level = 0.25f;
    sb_policy_inputs_run(&in, &plane, pixels.data(), summary.data(), &level);
    std::vector<double> change(area), of_block(blocks);
    double total = 0;
    for (int i = 0; i < area; ++i) {
        for (int j = 0; j < c; ++j) change[i] += fabs(frame[j * area + i] - executed[j * area + i]) / 2 / c;
        total += change[i];
    }
    close("the level", number, level, 0.125 + 0.5 * total / area, 1e-6);
    auto scaled = [](double x) { return log(x + 0.1) / 2; };
    for (int i = 0; i < area; ++i) {
        const int y = i / w, x = i % w, block = y / 8 * cols + x / 8;
        const float *at = pixels.data() + (int64_t)i * depth, *from = features.data() + ((int64_t)(y / step) * cols * samples + x / step) * k;
        of_block[block] += change[i] / (level + 1e-3) / 64;
        for (int j = 0; j < c; ++j) close("a pixel", number, at[j], (frame[j * area + i] - 0.5) / 2, 0);
        for (int j = 0; j < c; ++j) close("an executed pixel", number, at[c + j], (executed[j * area + i] - 0.5) / 2, 0);
        close("a change", number, at[2 * c], scaled(change[i] / (level + 1e-3)), 1e-5);
        for (int j = 0; j < k; ++j) close("a feature", number, at[2 * c + 1 + j], from[j] - 0.5, 0);
        close("an active pixel", number, at[depth - 1], active[block] - 0.5, 0);
    }
    for (int i = 0; i < blocks; ++i) {
        close("a block's activity", number, summary[i], active[i] - 0.5, 0);
        close("a block's change", number, summary[blocks + i], scaled(of_block[i]), 1e-4);
        close("a block's age", number, summary[2 * blocks + i], log1p((double)age[i]) / 2 - 0.5, 1e-6);
    }
}

} // namespace

void check_policy(Random &random, int number) {
    check_pictures(random, number);
    check_inputs(random, number);
    check_network(random, number);
}
