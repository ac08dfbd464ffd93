// Operations on rays on CPUs: edges, points, resampling, compositing and the interlevel loss, with their gradients; the
// reference implementations are the functions of sampling.py, proposal.py and volume.py that cpu_rays.py names.
//
// Torch evaluates each of them as 5 to 20 operations on arrays of rays × samples, whose memory traffic and calls take
// longer than the arithmetic. Here a ray stays in the L1 cache from its first operation to its last. Threads share the
// rays, and sums run along one ray, so results are the same bit for bit for any number of threads. Running sums are
// accumulated in double, as torch does. NaN propagates as in the reference implementation.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kMost = 1024;           // samples of a ray; cpu_rays.MAX_SAMPLES
constexpr int kChannels = 64;         // values of a sample; cpu_rays.MAX_CHANNELS
constexpr float kLastDelta = 1e10f;   // volume.LAST_DELTA
constexpr float kEpsilon = 1.2e-7f;   // proposal.EPSILON

// exp(x) - 1 (one = 1) or exp(x) (one = 0), relative error below 3e-7; vectorizes, unlike std::expm1.
// x = n ln 2 + r with |r| <= ln(2) / 2; coefficients of Cephes, expf.
inline float exponential(float x, float one) {
    float n = std::nearbyint(x * 1.44269504f);
    n = n > -126.0f ? n : -126.0f;
    n = n < 127.0f ? n : 127.0f;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float low = p * r * r + r;  // exp(r) - 1
    const int32_t bits = (int32_t(n) + 127) << 23;
    float scale;  // 2^n
    std::memcpy(&scale, &bits, sizeof scale);
    const float found = scale * low + (scale - one);
    return x < -87.0f ? -one : x > 88.0f ? INFINITY : found;
}

// Sums of the first k values, for k from 0 to n; `to` has n + 1 places.
inline void cumulate(const float* values, int n, float* to) {
    double sum = 0;
    to[0] = 0;
    for (int k = 0; k < n; ++k) to[k + 1] = float(sum += values[k]);
}

inline float length(const float* d) { return std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]); }

// Weights of a ray, and the transmittance after each sample; the last interval is infinite, as in volume.widths.
void weigh(const float* density, const float* edges, float unit, int samples, float* weights, float* after) {
    float thickness[kMost], before[kMost + 1];
    for (int k = 0; k < samples - 1; ++k) thickness[k] = density[k] * ((edges[k + 1] - edges[k]) * unit);
    thickness[samples - 1] = density[samples - 1] * (kLastDelta * unit);
    cumulate(thickness, samples, before);
#pragma omp simd
    for (int k = 0; k < samples; ++k) {
        const float alpha = -exponential(-thickness[k], 1.0f), transmittance = exponential(-before[k], 0.0f);
        weights[k] = alpha * transmittance;
        after[k] = (1.0f - alpha) * transmittance;
    }
}

// Sum of weighted values of `count` channels; `Fixed`, if not 0, is that number.
template <int Fixed>
void blend(const float* weights, const float* values, int samples, int count, float* out) {
    const int channels = Fixed ? Fixed : count;
    float sum[Fixed ? Fixed : kChannels] = {};
    for (int k = 0; k < samples; ++k)
        for (int c = 0; c < channels; ++c) sum[c] += weights[k] * values[k * channels + c];
    for (int c = 0; c < channels; ++c) out[c] = sum[c];
}

// Gradient of the values, if wanted; adds the values' part of the weights' gradient to `slope`.
template <int Fixed>
void unblend(const float* weights, const float* values, const float* grad, int samples, int count, float* slope,
             float* values_grad) {
    const int channels = Fixed ? Fixed : count;
    float row[Fixed ? Fixed : kChannels];
    for (int c = 0; c < channels; ++c) row[c] = grad[c];
    for (int k = 0; k < samples; ++k) {
        float sum = 0;
        for (int c = 0; c < channels; ++c) sum += row[c] * values[k * channels + c];
        slope[k] += sum;
    }
    if (values_grad)
        for (int k = 0; k < samples; ++k)
            for (int c = 0; c < channels; ++c) values_grad[k * channels + c] = weights[k] * row[c];
}

// From the gradient of the weights, `slope`, to that of the densities: dw_j / dτ_k = after_k (j = k), -w_j (j > k).
void unweigh(const float* slope, const float* weights, const float* after, const float* edges, float unit, int samples,
             float* density_grad) {
    float behind[kMost];
    double sum = 0;
    for (int k = samples - 1; k >= 0; --k) {
        behind[k] = float(sum);
        sum += slope[k] * weights[k];
    }
    const int last = samples - 1;
    for (int k = 0; k < last; ++k)
        density_grad[k] = (slope[k] * after[k] - behind[k]) * ((edges[k + 1] - edges[k]) * unit);
    density_grad[last] = slope[last] * after[last] * (kLastDelta * unit);
}

void resample(const float* edges, const float* weights, int m, int n, float first, float padding, float* out) {
    float mass[kMost], cdf[kMost + 1];
    int passed[kMost];  // edges of the histogram between a step and the one before it
    std::memset(passed, 0, sizeof(int) * n);
    double total = 0;
    for (int i = 0; i < m; ++i) total += mass[i] = weights[i] + padding;
    const float sum = float(total);
    for (int i = 0; i < m; ++i) mass[i] = mass[i] / sum * float(n);
    cumulate(mass, m, cdf);
    for (int i = 1; i < m; ++i) {
        const float below = std::ceil(cdf[i] - first);  // number of steps below that edge; NaN: none
        ++passed[below > 0 ? below < float(n - 1) ? int(below) : n - 1 : 0];
    }
    out[0] = edges[0];
    for (int j = 0, i = 0; j < n - 1; ++j) {
        i += passed[j];
        float fraction = (first + float(j) - cdf[i]) / mass[i];
        fraction = fraction < 0.0f ? 0.0f : fraction > 1.0f ? 1.0f : fraction;
        out[j + 1] = edges[i] + fraction * (edges[i + 1] - edges[i]);
    }
    out[n] = edges[m];
}

// The interlevel loss of a ray, and its gradient in the proposal's weights, if wanted.
float interlevel(const float* fine_edges, const float* fine, int n, const float* edges, const float* weights, int m,
                 float* weights_grad) {
    int upper[kMost + 1];
    float cumulated[kMost + 1], slope[kMost + 1];
    std::memset(upper, 0, sizeof(int) * (n + 1));
    std::memset(slope, 0, sizeof(float) * (m + 1));
    for (int k = 0; k <= m; ++k)
        for (int i = 0; i <= n; ++i) upper[i] += !(edges[k] >= fine_edges[i]);
    for (int i = 0; i <= n; ++i) upper[i] = upper[i] < m ? upper[i] : m;
    cumulate(weights, m, cumulated);
    float loss = 0;
    for (int i = 0; i < n; ++i) {
        const int above = upper[i + 1], at = upper[i];
        const int below = edges[at] <= fine_edges[i] || at == 0 ? at : at - 1;
        float excess = fine[i] - (cumulated[above] - cumulated[below]);
        excess = excess < 0.0f ? 0.0f : excess;
        const float relative = excess / (fine[i] + kEpsilon);
        loss += excess * relative;
        slope[above] -= 2.0f * relative, slope[below] += 2.0f * relative;
    }
    if (weights_grad) {
        double sum = 0;
        for (int k = m; k > 0; --k) weights_grad[k - 1] = float(sum += slope[k]);
    }
    return loss;
}

struct Sizes {
    int64_t rays;
    int samples, channels, threads;
};

template <int Fixed>
void composite(Sizes size, const float* density, const float* values, const float* edges, const float* t_vals,
               const float* directions, float* weights, float* after, float* rgb, float* depth, float* opacity) {
    const int s = size.samples, c = size.channels;
#pragma omp parallel for schedule(static) num_threads(size.threads)
    for (int64_t ray = 0; ray < size.rays; ++ray) {
        float* own = weights + ray * s;
        weigh(density + ray * s, edges + ray * (s + 1), length(directions + 3 * ray), s, own, after + ray * s);
        if (!values) continue;
        blend<Fixed>(own, values + ray * s * c, s, c, rgb + ray * c);
        float sum = 0, along = 0;
        for (int k = 0; k < s; ++k) sum += own[k], along += own[k] * t_vals[ray * s + k];
        opacity[ray] = sum, depth[ray] = along;
    }
}

// Arrays of gradients that are not needed, or are zero, are null.
struct Gradients {
    const float *weights, *rgb, *depth, *opacity;
    float *density, *values;
};

template <int Fixed>
void composite_backward(Sizes size, Gradients grad, const float* values, const float* edges, const float* t_vals,
                        const float* directions, const float* weights, const float* after) {
    const int s = size.samples, c = size.channels;
#pragma omp parallel for schedule(static) num_threads(size.threads)
    for (int64_t ray = 0; ray < size.rays; ++ray) {
        const int64_t at = ray * s;
        float slope[kMost];
        const float whole = grad.opacity ? grad.opacity[ray] : 0.0f, along = grad.depth ? grad.depth[ray] : 0.0f;
        for (int k = 0; k < s; ++k) {
            slope[k] = (grad.weights ? grad.weights[at + k] : 0.0f) + whole;
            if (grad.depth) slope[k] += along * t_vals[at + k];
        }
        float* values_grad = grad.values ? grad.values + at * c : nullptr;
        if (grad.rgb) unblend<Fixed>(weights + at, values + at * c, grad.rgb + ray * c, s, c, slope, values_grad);
        if (grad.values && !grad.rgb) std::memset(values_grad, 0, sizeof(float) * s * c);
        if (grad.density)
            unweigh(slope, weights + at, after + at, edges + ray * (s + 1), length(directions + 3 * ray), s,
                    grad.density + at);
    }
}

}  // namespace

// All arrays are contiguous, with the rays first; cpu_rays.py has checked their sizes. Functions return the status 0:
// nothing is allocated, and nothing is thrown.
extern "C" {

// Jittered values of t in bins around near · (1 - fraction) + far · fraction, of which `u` are the positions.
int rays_stratified(int64_t rays, int n, int threads, const float* near, const float* far, const float* fraction,
                    const float* u, float* out) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t ray = 0; ray < rays; ++ray) {
        float even[kMost + 1], middle[kMost + 2];
        for (int k = 0; k < n; ++k) even[k] = near[ray] * (1.0f - fraction[k]) + far[ray] * fraction[k];
        middle[0] = even[0], middle[n] = even[n - 1];
        for (int k = 1; k < n; ++k) middle[k] = 0.5f * (even[k] + even[k - 1]);
        for (int k = 0; k < n; ++k) out[ray * n + k] = middle[k] + (middle[k + 1] - middle[k]) * u[ray * n + k];
    }
    return 0;
}

// The middles of intervals, and the points there.
int rays_at_middles(int64_t rays, int samples, int threads, const float* origins, const float* directions,
                    const float* edges, float* t_vals, float* points) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t ray = 0; ray < rays; ++ray) {
        const float *o = origins + 3 * ray, *d = directions + 3 * ray, *e = edges + ray * (samples + 1);
        float* to = points + 3 * ray * samples;
        for (int k = 0; k < samples; ++k) {
            const float t = 0.5f * (e[k + 1] + e[k]);
            t_vals[ray * samples + k] = t;
            for (int axis = 0; axis < 3; ++axis) to[3 * k + axis] = o[axis] + d[axis] * t;
        }
    }
    return 0;
}

// Edges of n intervals for each ray from a histogram of m; `first` is the first step of each ray, null: 1.
int rays_resample(int64_t rays, int m, int n, int threads, float padding, const float* edges, const float* weights,
                  const float* first, float* out) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t ray = 0; ray < rays; ++ray)
        resample(edges + ray * (m + 1), weights + ray * m, m, n, first ? first[ray] : 1.0f, padding,
                 out + ray * (n + 1));
    return 0;
}

// Without values (null) only the weights, and the transmittance after each sample.
int rays_composite(int64_t rays, int samples, int channels, int threads, const float* density, const float* values,
                   const float* edges, const float* t_vals, const float* directions, float* weights, float* after,
                   float* rgb, float* depth, float* opacity) {
    const auto run = channels == 3 ? composite<3> : channels == 16 ? composite<16> : composite<0>;
    run({rays, samples, channels, threads}, density, values, edges, t_vals, directions, weights, after, rgb, depth,
        opacity);
    return 0;
}

int rays_composite_backward(int64_t rays, int samples, int channels, int threads, const float* weights_grad,
                            const float* rgb_grad, const float* depth_grad, const float* opacity_grad,
                            float* density_grad, float* values_grad, const float* values, const float* edges,
                            const float* t_vals, const float* directions, const float* weights, const float* after) {
    const auto run =
        channels == 3 ? composite_backward<3> : channels == 16 ? composite_backward<16> : composite_backward<0>;
    run({rays, samples, channels, threads},
        {weights_grad, rgb_grad, depth_grad, opacity_grad, density_grad, values_grad}, values, edges, t_vals,
        directions, weights, after);
    return 0;
}

// exp(x - 1), continued linearly where x - 1 is above 15, and its derivative.
int rays_density(int64_t n, int threads, const float* raw, float* density, float* slope) {
    const float largest = float(std::exp(15.0));
#pragma omp parallel for simd schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
        const float x = raw[i] - 1.0f, above = x - 15.0f;
        slope[i] = exponential(above > 0.0f ? 15.0f : x, 0.0f);
        density[i] = slope[i] + (above > 0.0f ? largest * above : 0.0f);
    }
    return 0;
}

// The loss of each ray, and its gradient in the weights of the proposal (null: not needed).
int rays_interlevel(int64_t rays, int n, int m, int threads, const float* fine_edges, const float* fine,
                    const float* edges, const float* weights, float* losses, float* weights_grad) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t ray = 0; ray < rays; ++ray)
        losses[ray] = interlevel(fine_edges + ray * (n + 1), fine + ray * n, n, edges + ray * (m + 1),
                                 weights + ray * m, m, weights_grad ? weights_grad + ray * m : nullptr);
    return 0;
}
}
