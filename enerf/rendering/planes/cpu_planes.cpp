// Rendering of plane stacks on CPUs, and the gradient of its squared error; see stack.py for the data and reference.py
// for the same in torch.
//
// Rays are composited front to back, kRays neighbors at a time: for each plane the places where they meet its tiles
// are found in a loop that compilers vectorize, then those that meet a stored tile are sampled one by one, with the
// four channels in a vector. A ray ends when its transmittance is below kOpaque. Rays of an image are processed in
// strips of rows. Gradients are added to texels without atomic operations, and in the same order with any number of
// threads: first by all even strips, which are so far apart that they read different texels, then by the odd ones.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace {

constexpr int kTile = 32, kCells = 31;
constexpr int kRays = 32;
constexpr float kOpaque = 1.0f / 2048;

typedef float Vec __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(4)));

// A stack with textures of bytes, or of floats that are 1 where bytes are 255.
struct Geometry {
    const int32_t* index;
    const double *disparity, *t_vals;
    int planes, rows, columns;
    double pose[12];        // rotation of the reference camera by rows, with its center as fourth column
    double intrinsics[4];   // fx, fy, cx, cy
    float white;
};

inline Vec load(const uint8_t* p) {
    Bytes bytes;
    std::memcpy(&bytes, p, 4);
    return __builtin_convertvector(bytes, Vec) * (1.0f / 255);
}

inline Vec load(const float* p) {
    Vec value;
    std::memcpy(&value, p, 16);
    return value;
}

inline void add(float* p, Vec value) {
    value += load(p);
    std::memcpy(p, &value, 16);
}

// Lines of texel coordinates of a batch of rays, as of stack.ray_lines; and their state.
struct Batch {
    int n;
    alignas(64) float x[kRays], y[kRays], dx[kRays], dy[kRays], depth[kRays], transmittance[kRays];
    alignas(64) float fx[kRays], fy[kRays];  // fractions in the cell
    alignas(64) int32_t corner[kRays];       // of the cell's first texel in its tile
    alignas(64) int32_t place[kRays];        // of the tile; -1: nothing is drawn
};

void start(const Geometry& g, const float* origins, const float* directions, int n, Batch& b) {
    b.n = n;
    for (int i = 0; i < n; ++i) {
        double o[3], d[3];
        for (int k = 0; k < 3; ++k) {
            o[k] = d[k] = 0;
            for (int m = 0; m < 3; ++m) {
                o[k] += (origins[3 * i + m] - g.pose[4 * m + 3]) * g.pose[4 * m + k];
                d[k] += directions[3 * i + m] * g.pose[4 * m + k];
            }
        }
        const bool forward = d[2] < 0;  // false for NaN
        const double right = forward ? -d[0] / d[2] : NAN, up = forward ? -d[1] / d[2] : NAN;
        b.x[i] = float(g.intrinsics[2] - 0.5 + g.intrinsics[0] * right);
        b.y[i] = float(g.intrinsics[3] - 0.5 - g.intrinsics[1] * up);
        b.dx[i] = float(g.intrinsics[0] * (o[0] + o[2] * right));
        b.dy[i] = float(-g.intrinsics[1] * (o[1] + o[2] * up));
        b.depth[i] = float(-o[2]);
        b.transmittance[i] = forward ? 1.0f : 0.0f;
    }
}

// Find where the rays meet a plane; returns whether any has light left.
bool meet(const Geometry& g, int plane, Batch& b) {
    const float disparity = float(g.disparity[plane]);
    const float last_x = float(g.columns * kCells), last_y = float(g.rows * kCells);
    const int32_t* index = g.index + int64_t(plane) * g.rows * g.columns;
    int light = 0;
    for (int i = 0; i < b.n; ++i) {
        const float x = b.x[i] + disparity * b.dx[i], y = b.y[i] + disparity * b.dy[i];
        const bool lit = b.transmittance[i] > kOpaque;
        const bool drawn = lit & (x >= 0) & (y >= 0) & (x <= last_x) & (y <= last_y) & (disparity * b.depth[i] < 1);
        const float px = drawn ? x : 0.0f, py = drawn ? y : 0.0f;
        const int32_t column = std::min(int32_t(px / kCells), g.columns - 1);
        const int32_t row = std::min(int32_t(py / kCells), g.rows - 1);
        const float ix = px - float(column * kCells), iy = py - float(row * kCells);
        const int32_t cx = std::min(std::max(int32_t(ix), 0), kCells - 1);
        const int32_t cy = std::min(std::max(int32_t(iy), 0), kCells - 1);
        b.fx[i] = ix - float(cx);
        b.fy[i] = iy - float(cy);
        b.corner[i] = cy * kTile + cx;
        const int32_t place = index[row * g.columns + column];
        b.place[i] = drawn ? place : -1;
        light |= lit;
    }
    return light;
}

inline int64_t offset(const Batch& b, int i) { return (int64_t(b.place[i]) * kTile * kTile + b.corner[i]) * 4; }

template <class Texel>
inline Vec sample(const Texel* tiles, const Batch& b, int i) {
    const Texel* p = tiles + offset(b, i);
    const float x = b.fx[i], y = b.fy[i];
    const Vec above = load(p) + x * (load(p + 4) - load(p));
    const Vec below = load(p + 4 * kTile) + x * (load(p + 4 * kTile + 4) - load(p + 4 * kTile));
    return above + y * (below - above);
}

template <class Texel>
void render_batch(const Geometry& g, const Texel* tiles, Batch& b, float* rgb, float* seen, float* opacity) {
    Vec sums[kRays] = {};  // red, green, blue, t
    for (int plane = 0; plane < g.planes && meet(g, plane, b); ++plane) {
        const float t = float(g.t_vals[plane]);
        for (int i = 0; i < b.n; ++i) {
            if (b.place[i] < 0) continue;
            Vec color = sample(tiles, b, i);
            const float alpha = color[3], weight = b.transmittance[i] * alpha;
            color[3] = t;
            sums[i] += weight * color;
            b.transmittance[i] -= weight;
        }
    }
    for (int i = 0; i < b.n; ++i) {
        const float left = b.transmittance[i];
        // a ray that does not look forward has no transmittance here, and sees the background
        const bool blind = std::isnan(b.x[i]);
        for (int k = 0; k < 3; ++k) rgb[3 * i + k] = sums[i][k] + g.white * (blind ? 1.0f : left);
        seen[i] = sums[i][3];
        opacity[i] = blind ? 0.0f : 1.0f - left;
    }
}

// What a ray meets, front to back.
struct Layer {
    Vec color;
    int64_t at;
    float x, y, transmittance;
};

struct Layers {
    int planes;
    std::unique_ptr<Layer[]> of;
    int count[kRays];
    explicit Layers(int planes) : planes(planes), of(new (std::nothrow) Layer[size_t(planes) * kRays]) {}
    Layer* ray(int i) { return of.get() + size_t(i) * planes; }
};

template <class Texel>
void collect(const Geometry& g, const Texel* tiles, Batch& b, Layers& layers) {
    std::fill(layers.count, layers.count + kRays, 0);
    for (int plane = 0; plane < g.planes && meet(g, plane, b); ++plane)
        for (int i = 0; i < b.n; ++i) {
            if (b.place[i] < 0) continue;
            const Vec color = sample(tiles, b, i);
            if (!(color[3] > 0)) continue;
            layers.ray(i)[layers.count[i]++] = {color, offset(b, i), b.fx[i], b.fy[i], b.transmittance[i]};
            b.transmittance[i] *= 1 - color[3];
        }
}

inline void scatter(float* gradient, const Layer& layer, Vec value) {
    float* p = gradient + layer.at;
    const float x = layer.x, y = layer.y;
    add(p, (1 - x) * (1 - y) * value);
    add(p + 4, x * (1 - y) * value);
    add(p + 4 * kTile, (1 - x) * y * value);
    add(p + 4 * kTile + 4, x * y * value);
}

// Squared error of a ray times its share, and twice the difference, added to the gradient of the texels.
double descend(const Geometry& g, const Layer* layers, int count, float left, const float* target, float share,
               float* gradient) {
    Vec behind = {g.white, g.white, g.white, 0};
    Vec rgb = left * behind;
    for (int k = 0; k < count; ++k) rgb += layers[k].transmittance * layers[k].color[3] * layers[k].color;
    const Vec goal = {target[0], target[1], target[2], 0};
    Vec error = (rgb - goal) * share;
    error[3] = 0;
    const double loss = double(error[0]) * (rgb[0] - goal[0]) + double(error[1]) * (rgb[1] - goal[1]) +
                        double(error[2]) * (rgb[2] - goal[2]);
    error *= 2;
    for (int k = count - 1; k >= 0; --k) {
        const Layer& layer = layers[k];
        const float alpha = layer.color[3];
        Vec change = layer.transmittance * alpha * error;
        const Vec product = error * (layer.color - behind);
        change[3] = layer.transmittance * (product[0] + product[1] + product[2]);
        scatter(gradient, layer, change);
        behind += alpha * (layer.color - behind);
    }
    return loss;
}

// Calls f(first ray, number of rays, layers, strip) for batches: all even strips in parallel, then all odd ones.
// Returns 1 if memory could not be allocated: exceptions must not leave a parallel region.
template <class F>
int in_strips(int64_t n, int64_t strip, int planes, int threads, F f) {
    const int64_t strips = (n + strip - 1) / strip;
    int failed = 0;
    for (int parity = 0; parity < 2; ++parity) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(| : failed)
        for (int64_t s = parity; s < strips; s += 2) {
            Layers layers(planes);
            if (!layers.of) {
                failed |= 1;
                continue;
            }
            const int64_t end = std::min(n, (s + 1) * strip);
            for (int64_t i = s * strip; i < end; i += kRays) f(i, int(std::min<int64_t>(kRays, end - i)), layers, s);
        }
    }
    return failed;
}

Geometry geometry(const int32_t* index, const double* disparity, const double* t_vals, const int32_t* sizes,
                  const double* camera, float white) {
    Geometry g{index, disparity, t_vals, sizes[0], sizes[1], sizes[2], {}, {}, white};
    std::copy(camera, camera + 12, g.pose);
    std::copy(camera + 12, camera + 16, g.intrinsics);
    return g;
}

}  // namespace

extern "C" {

// Arguments of all functions: textures; index, disparity and t of the planes; numbers of planes, rows, columns; pose
// and intrinsics; background; rays and their number; number of threads.

int planes_render(const uint8_t* tiles, const int32_t* index, const double* disparity, const double* t_vals,
                  const int32_t* sizes, const double* camera, float white, const float* origins,
                  const float* directions, int64_t n, int32_t threads, float* rgb, float* seen, float* opacity) {
    const Geometry g = geometry(index, disparity, t_vals, sizes, camera, white);
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads)
    for (int64_t i = 0; i < n; i += kRays) {
        Batch b;
        const int count = int(std::min<int64_t>(kRays, n - i));
        start(g, origins + 3 * i, directions + 3 * i, count, b);
        render_batch(g, tiles, b, rgb + 3 * i, seen + i, opacity + i);
    }
    return 0;
}

// Add to `gradient` that of the sum over rays of share * squared error; `losses` has one sum for each strip.
int planes_descend(const float* tiles, const int32_t* index, const double* disparity, const double* t_vals,
                   const int32_t* sizes, const double* camera, float white, const float* origins,
                   const float* directions, int64_t n, int32_t threads, int64_t strip, const float* targets,
                   const float* shares, float* gradient, double* losses) {
    const Geometry g = geometry(index, disparity, t_vals, sizes, camera, white);
    return in_strips(n, strip, g.planes, threads, [&](int64_t first, int count, Layers& layers, int64_t s) {
        Batch b;
        start(g, origins + 3 * first, directions + 3 * first, count, b);
        collect(g, tiles, b, layers);
        for (int i = 0; i < count; ++i)
            losses[s] += descend(g, layers.ray(i), layers.count[i], b.transmittance[i], targets + 3 * (first + i),
                                 shares[first + i], gradient);
    });
}

// Raise `largest` to the largest weight with which a ray reads each texel.
int planes_splat(const float* tiles, const int32_t* index, const double* disparity, const double* t_vals,
                 const int32_t* sizes, const double* camera, float white, const float* origins,
                 const float* directions, int64_t n, int32_t threads, int64_t strip, float* largest) {
    const Geometry g = geometry(index, disparity, t_vals, sizes, camera, white);
    return in_strips(n, strip, g.planes, threads, [&](int64_t first, int count, Layers& layers, int64_t) {
        Batch b;
        start(g, origins + 3 * first, directions + 3 * first, count, b);
        collect(g, tiles, b, layers);
        for (int i = 0; i < count; ++i)
            for (int k = 0; k < layers.count[i]; ++k) {
                const Layer& layer = layers.ray(i)[k];
                const float weight = layer.transmittance * layer.color[3];
                float* p = largest + layer.at / 4;
                for (int step : {0, 1, kTile, kTile + 1}) p[step] = std::max(p[step], weight);
            }
    });
}

// One step of Adam on n numbers in [0, 1]; the gradient is zeroed.
int planes_adam(float* tiles, float* gradient, float* mean, float* square, int64_t n, int32_t threads, double rate,
                double beta1, double beta2, int64_t step) {
    const float b1 = float(beta1), b2 = float(beta2);
    const float c1 = float(1 / (1 - std::pow(beta1, double(step)))), c2 = float(1 / (1 - std::pow(beta2, double(step))));
    const float size = float(rate);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
        const float slope = gradient[i];
        mean[i] = b1 * mean[i] + (1 - b1) * slope;
        square[i] = b2 * square[i] + (1 - b2) * slope * slope;
        const float moved = tiles[i] - size * c1 * mean[i] / (std::sqrt(c2 * square[i]) + 1e-12f);
        tiles[i] = std::min(1.0f, std::max(0.0f, moved));
        gradient[i] = 0;
    }
    return 0;
}

// Give both copies of texels that two tiles share the sum of their values. `pairs` has the left and right, then the upper
// and lower tiles; a texel that four tiles share has its sum after both, since all four are stored or it is transparent.
int planes_join(float* values, const int64_t* pairs, int64_t across, int64_t down) {
    constexpr int64_t size = kTile * kTile * 4, row = kTile * 4;
    for (int64_t i = 0; i < across; ++i) {
        float *left = values + pairs[2 * i] * size + 4 * kCells, *right = values + pairs[2 * i + 1] * size;
        for (int y = 0; y < kTile; ++y) {
            const Vec sum = load(left + y * row) + load(right + y * row);
            std::memcpy(left + y * row, &sum, 16);
            std::memcpy(right + y * row, &sum, 16);
        }
    }
    pairs += 2 * across;
    for (int64_t i = 0; i < down; ++i) {
        float *above = values + pairs[2 * i] * size + kCells * row, *below = values + pairs[2 * i + 1] * size;
        for (int k = 0; k < row; ++k) above[k] = below[k] = above[k] + below[k];
    }
    return 0;
}

// Add the gradient of the regularization to that of the textures: total variation within tiles, sqrt(d^2 + soft^2) of
// the differences d of neighboring texels, of colors and of alpha; and the sum of alpha.
int planes_regularize(const float* tiles, float* gradient, int64_t n, int32_t threads, float color, float alpha,
                      float sparsity, float soft) {
    const Vec strength = {color, color, color, alpha};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t tile = 0; tile < n; ++tile) {
        const float* p = tiles + tile * kTile * kTile * 4;
        float* q = gradient + tile * kTile * kTile * 4;
        for (int y = 0; y < kTile; ++y)
            for (int x = 0; x < kTile; ++x) {
                const int64_t at = (y * kTile + x) * 4;
                Vec slope = {0, 0, 0, sparsity};
                const Vec here = load(p + at);
                for (int axis = 0; axis < 2; ++axis) {
                    if ((axis ? y : x) == kCells) continue;
                    const int64_t next = at + (axis ? kTile : 1) * 4;
                    const Vec d = here - load(p + next);
                    Vec pull;
                    for (int k = 0; k < 4; ++k) pull[k] = strength[k] * d[k] / std::sqrt(d[k] * d[k] + soft * soft);
                    slope += pull;
                    add(q + next, -pull);
                }
                add(q + at, slope);
            }
    }
    return 0;
}

}  // extern "C"
