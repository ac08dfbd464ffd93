// Multiresolution hash encoding on CPUs: values and gradients of hashgrid.encode; see hashgrid.py for the vocabulary.
//
// It is limited by memory accesses to scattered entries, not by arithmetic. On one Zen 4 core, 8 levels of 4 features
// take 40 to 50 ns per point if all levels fit into the L1 cache (mostly loads of 8 entries, 8 offsets and 8 weights per
// level), and 120 ns for eight fine levels of 2^16 entries (1 MiB each) in the L2 cache; the usual resolutions, 16 to
// 768, take 80 to 95 ns. So the offsets are computed a batch ahead, and entries of large levels are prefetched 16 points
// before they are read, which saves a fifth of the forward pass. Prefetching in the backward pass, huge pages, wider
// vectors and other batch sizes made no measurable difference. Two idle cores, rays in order, 8 levels of 4 features: 21
// million points/s forward, 20 for the gradient of the table; 5 levels of 2 features: 55 and 48. The backward pass
// computes the offsets again; storing them would write and read 64 bytes per point and level.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace {

constexpr int kBatch = 256;           // points whose offsets are computed before the first entry is read
constexpr int kPitch = kBatch + 16;   // not a power of two: the rows of a batch map to different cache sets
constexpr int kChunk = 4 * kBatch;    // points that a thread evaluates at all levels
constexpr int kAhead = 16;            // points between prefetching an entry and reading it
constexpr uint64_t kSmall = 1 << 17;  // bytes of a level that stays in cache: prefetching it costs time

// One level of the grid; `start` is the index of its first value in the table.
struct Level {
    int64_t start;
    uint32_t entries, side, features;
    float resolution;
    bool hashed, large;
};

std::vector<Level> make_levels(const int32_t* resolutions, const int32_t* entries, int count, int features) {
    std::vector<Level> levels(count);
    int64_t start = 0;
    for (int i = 0; i < count; ++i) {
        const uint64_t side = uint64_t(resolutions[i]) + 1, size = uint64_t(entries[i]);
        levels[i] = {start, uint32_t(size), uint32_t(side), uint32_t(features), float(resolutions[i]),
                     size / (side * side) < side,  // size < side^3, which may exceed 64 bits
                     size * features * sizeof(float) > kSmall};
        start += int64_t(size) * features;
    }
    return levels;
}

// Coordinates of points in the unit cube, one array per axis.
struct Axes {
    const float *x, *y, *z;
};

// Clamp to [0, 1]; NaN becomes 0.
inline float unit(float value) {
    value = value > 0.0f ? value : 0.0f;
    return value < 1.0f ? value : 1.0f;
}

void split_axes(const float* points, int n, float* x, float* y, float* z) {
    for (int i = 0; i < n; ++i)
        x[i] = unit(points[3 * i]), y[i] = unit(points[3 * i + 1]), z[i] = unit(points[3 * i + 2]);
}

// The eight corners of the cells of a batch; bits 0, 1, 2 of a corner's index are 1 at the upper end in x, y, z.
struct Corners {
    alignas(64) uint32_t place[8][kPitch];  // offset of the first feature in the values of the level
    alignas(64) float share[8][kPitch];     // interpolation weight
    alignas(64) float fraction[3][kPitch];
};

inline uint32_t cell(float scaled, uint32_t last) { return std::min(uint32_t(int32_t(scaled)), last); }

void find_corners(const Level& level, Axes p, int n, Corners& out) {
    const uint32_t last = level.side - 2, features = level.features, mask = level.entries - 1;
    const uint32_t step_y = level.hashed ? 2654435761u : level.side;
    const uint32_t step_z = level.hashed ? 805459861u : level.side * level.side;
    const float resolution = level.resolution;
    alignas(64) uint32_t x[kBatch], y[kBatch], z[kBatch];
    for (int i = 0; i < n; ++i) {
        const float sx = p.x[i] * resolution, sy = p.y[i] * resolution, sz = p.z[i] * resolution;
        x[i] = cell(sx, last), y[i] = cell(sy, last), z[i] = cell(sz, last);
        const float fx = sx - float(int32_t(x[i])), fy = sy - float(int32_t(y[i])), fz = sz - float(int32_t(z[i]));
        y[i] *= step_y, z[i] *= step_z;
        const float yz00 = (1 - fy) * (1 - fz), yz10 = fy * (1 - fz), yz01 = (1 - fy) * fz, yz11 = fy * fz;
        out.share[0][i] = (1 - fx) * yz00, out.share[1][i] = fx * yz00;
        out.share[2][i] = (1 - fx) * yz10, out.share[3][i] = fx * yz10;
        out.share[4][i] = (1 - fx) * yz01, out.share[5][i] = fx * yz01;
        out.share[6][i] = (1 - fx) * yz11, out.share[7][i] = fx * yz11;
        out.fraction[0][i] = fx, out.fraction[1][i] = fy, out.fraction[2][i] = fz;
    }
    for (int corner = 0; corner < 8; ++corner) {
        const uint32_t up_x = corner & 1, up_y = corner & 2 ? step_y : 0, up_z = corner & 4 ? step_z : 0;
        uint32_t* place = out.place[corner];
        if (!level.hashed)
            for (int i = 0; i < n; ++i) place[i] = (x[i] + up_x + y[i] + up_y + z[i] + up_z) * features;
        else if ((level.entries & mask) == 0)  // a power of two
            for (int i = 0; i < n; ++i) place[i] = (((x[i] + up_x) ^ (y[i] + up_y) ^ (z[i] + up_z)) & mask) * features;
        else
            for (int i = 0; i < n; ++i)
                place[i] = (((x[i] + up_x) ^ (y[i] + up_y) ^ (z[i] + up_z)) % level.entries) * features;
    }
}

// The features of an entry as a vector: GCC and Clang load four of them with one instruction.
template <int F>
struct Vector {
    typedef float type __attribute__((vector_size(F * sizeof(float))));
};

template <int F>
inline typename Vector<F>::type load(const float* from) {
    typename Vector<F>::type value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <int F>
inline void store(float* to, typename Vector<F>::type value) {
    std::memcpy(to, &value, sizeof value);
}

inline void prefetch(const float* table, const Corners& at, int i, int n) {
    if (i + kAhead < n)
        for (int c = 0; c < 8; ++c) __builtin_prefetch(table + at.place[c][i + kAhead]);
}

template <int F>
void read_batch(const float* table, bool large, const Corners& at, int n, float* out, int64_t width) {
    for (int i = 0; i < n; ++i) {
        if (large) prefetch(table, at, i, n);
        auto even = load<F>(table + at.place[0][i]) * at.share[0][i];
        auto odd = load<F>(table + at.place[1][i]) * at.share[1][i];
        for (int c = 2; c < 8; c += 2) {
            even += load<F>(table + at.place[c][i]) * at.share[c][i];
            odd += load<F>(table + at.place[c + 1][i]) * at.share[c + 1][i];
        }
        store<F>(out + i * width, even + odd);
    }
}

template <int F>
void forward(const float* points, int64_t n, const float* table, const std::vector<Level>& levels,
             [[maybe_unused]] int threads, float* out) {
    const int64_t width = int64_t(levels.size()) * F;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t from = 0; from < n; from += kChunk) {
        const int count = int(std::min<int64_t>(kChunk, n - from));
        alignas(64) float x[kChunk], y[kChunk], z[kChunk];
        Corners corners;
        split_axes(points + 3 * from, count, x, y, z);
        for (size_t l = 0; l < levels.size(); ++l)
            for (int b = 0; b < count; b += kBatch) {
                const int m = std::min(kBatch, count - b);
                find_corners(levels[l], {x + b, y + b, z + b}, m, corners);
                read_batch<F>(table + levels[l].start, levels[l].large, corners, m, out + (from + b) * width + l * F,
                              width);
            }
    }
}

// The points whose row of the gradient is not all zero: their indices and coordinates.
struct Rows {
    int64_t count;
    std::unique_ptr<int64_t[]> number;
    std::unique_ptr<float[]> x, y, z;

    explicit Rows(int64_t m)
        : count(m), number(new int64_t[m]), x(new float[m]), y(new float[m]), z(new float[m]) {}
    void set(int64_t to, int64_t i, const float* p) {
        number[to] = i, x[to] = unit(p[0]), y[to] = unit(p[1]), z[to] = unit(p[2]);
    }
};

inline bool any(const float* row, int64_t width) {
    uint32_t bits_set = 0;
    for (int64_t i = 0; i < width; ++i) {
        uint32_t bits;
        std::memcpy(&bits, row + i, sizeof bits);
        bits_set |= bits << 1;  // without the sign, so that -0 counts as zero
    }
    return bits_set != 0;
}

Rows nonzero_rows(const float* points, const float* grad, int64_t n, int64_t width, [[maybe_unused]] int threads) {
    const int64_t chunks = (n + kChunk - 1) / kChunk;
    std::unique_ptr<uint8_t[]> nonzero(new uint8_t[n]);
    std::vector<int64_t> first(chunks + 1, 0);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < chunks; ++k) {
        int64_t found = 0;
        for (int64_t i = k * kChunk; i < std::min(n, (k + 1) * kChunk); ++i)
            found += nonzero[i] = any(grad + i * width, width);
        first[k + 1] = found;
    }
    for (int64_t k = 0; k < chunks; ++k) first[k + 1] += first[k];
    Rows rows(first[chunks]);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < chunks; ++k)
        for (int64_t i = k * kChunk, to = first[k]; i < std::min(n, (k + 1) * kChunk); ++i)
            if (nonzero[i]) rows.set(to++, i, points + 3 * i);
    return rows;
}

template <int F>
void add_batch(float* table_grad, const Corners& at, int n, const float* grad, const int64_t* row, int64_t width) {
    for (int i = 0; i < n; ++i) {
        const auto g = load<F>(grad + row[i] * width);
        for (int c = 0; c < 8; ++c) {
            float* entry = table_grad + at.place[c][i];
            store<F>(entry, load<F>(entry) + g * at.share[c][i]);
        }
    }
}

// Each level is computed by one thread, in the order of the points: no atomics, and sums are reproducible bit for bit.
template <int F>
void backward_table(const float* points, int64_t n, const float* grad, const std::vector<Level>& levels, int threads,
                    float* table_grad) {
    const int count = int(levels.size());
    const int64_t width = int64_t(count) * F;
    const Rows rows = nonzero_rows(points, grad, n, width, threads);
#pragma omp parallel for schedule(dynamic) num_threads(std::min(threads, count))
    for (int k = 0; k < count; ++k) {
        const int l = count - 1 - k;  // the finest first, because they take longest
        float* own = table_grad + levels[l].start;
        std::memset(own, 0, sizeof(float) * F * levels[l].entries);
        Corners corners;
        for (int64_t from = 0; from < rows.count; from += kBatch) {
            const int m = int(std::min<int64_t>(kBatch, rows.count - from));
            find_corners(levels[l], {&rows.x[from], &rows.y[from], &rows.z[from]}, m, corners);
            add_batch<F>(own, corners, m, grad + l * F, &rows.number[from], width);
        }
    }
}

// Adds the gradient of a level with respect to the coordinates of a batch to `slope`.
template <int F>
void slope_batch(const float* table, const Corners& at, int n, const float* grad, int64_t width, float scale,
                 float* slope_x, float* slope_y, float* slope_z) {
    alignas(64) float dot[8][kPitch];
    for (int i = 0; i < n; ++i) {
        const auto g = load<F>(grad + i * width);
        for (int c = 0; c < 8; ++c) {
            const auto product = load<F>(table + at.place[c][i]) * g;
            float sum = product[0];
            for (int f = 1; f < F; ++f) sum += product[f];
            dot[c][i] = sum;
        }
    }
    // Along an axis: differences over the four edges of the cell, interpolated bilinearly along the other two axes.
    const auto across = [&](int axis, int one, int two, float* slope) {
        const int up = 1 << axis, a = 1 << one, b = 1 << two;
        for (int i = 0; i < n; ++i) {
            const float u = at.fraction[one][i], v = at.fraction[two][i];
            slope[i] += scale * ((1 - v) * ((1 - u) * (dot[up][i] - dot[0][i]) + u * (dot[up + a][i] - dot[a][i])) +
                                 v * ((1 - u) * (dot[up + b][i] - dot[b][i]) + u * (dot[7][i] - dot[a + b][i])));
        }
    };
    across(0, 1, 2, slope_x), across(1, 2, 0, slope_y), across(2, 0, 1, slope_z);
}

template <int F>
void backward_points(const float* points, int64_t n, const float* table, const float* grad,
                     const std::vector<Level>& levels, [[maybe_unused]] int threads, float* points_grad) {
    const int64_t width = int64_t(levels.size()) * F;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t from = 0; from < n; from += kBatch) {
        const int m = int(std::min<int64_t>(kBatch, n - from));
        alignas(64) float x[kBatch], y[kBatch], z[kBatch], slope[3][kPitch] = {};
        Corners corners;
        split_axes(points + 3 * from, m, x, y, z);
        for (size_t l = 0; l < levels.size(); ++l) {
            find_corners(levels[l], {x, y, z}, m, corners);
            slope_batch<F>(table + levels[l].start, corners, m, grad + from * width + l * F, width,
                           levels[l].resolution, slope[0], slope[1], slope[2]);
        }
        for (int i = 0; i < m; ++i)
            for (int axis = 0; axis < 3; ++axis) {
                const int64_t at = 3 * (from + i) + axis;
                points_grad[at] = points[at] >= 0 && points[at] <= 1 ? slope[axis][i] : 0;  // constant outside the cube
            }
    }
}

// Calls `work` with the number of features as a compile-time constant. Returns the status: 0, or 1 if memory could not be
// allocated, 2 for other failures. No exception leaves it; none is thrown inside parallel regions, which do not allocate.
template <typename Work>
int with_features(int features, Work work) noexcept {
    try {
        if (features == 1) return work(std::integral_constant<int, 1>()), 0;
        if (features == 2) return work(std::integral_constant<int, 2>()), 0;
        if (features == 4) return work(std::integral_constant<int, 4>()), 0;
        if (features == 8) return work(std::integral_constant<int, 8>()), 0;
        return 2;
    } catch (const std::bad_alloc&) {
        return 1;
    } catch (...) {
        return 2;
    }
}

}  // namespace

// All arrays are contiguous: points n × 3, tables entries × features, out and grad n × (levels · features).
// cpu_hashgrid.py has checked their sizes. Functions return the status of with_features.
extern "C" {

int hashgrid_forward(const float* points, int64_t n, const float* table, const int32_t* resolutions,
                     const int32_t* entries, int count, int features, int threads, float* out) {
    return with_features(features, [&](auto f) {
        forward<f()>(points, n, table, make_levels(resolutions, entries, count, features), threads, out);
    });
}

// Overwrites the gradient of the table.
int hashgrid_backward_table(const float* points, int64_t n, const float* grad, const int32_t* resolutions,
                            const int32_t* entries, int count, int features, int threads, float* table_grad) {
    return with_features(features, [&](auto f) {
        backward_table<f()>(points, n, grad, make_levels(resolutions, entries, count, features), threads, table_grad);
    });
}

int hashgrid_backward_points(const float* points, int64_t n, const float* table, const float* grad,
                             const int32_t* resolutions, const int32_t* entries, int count, int features, int threads,
                             float* points_grad) {
    return with_features(features, [&](auto f) {
        const auto levels = make_levels(resolutions, entries, count, features);
        backward_points<f()>(points, n, table, grad, levels, threads, points_grad);
    });
}
}
