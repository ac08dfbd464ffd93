// Work on bricks of samples on CPUs: the functions of bricks.py, cell_bounds.py and marching_cubes.py, which are the
// reference implementation and define the vocabulary. Results are equal bit for bit, for any number of threads: values
// are computed by the same operations in the same order, without fused multiplication and addition.
//
// Threads take bricks in turn. A brick reads samples of its neighbors and requests samples that they own; while samples
// are requested, values and known are only read, and all writes to `requested` store 1.

#ifdef __clang__
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

namespace {

constexpr int S = 8;                // samples along a brick
constexpr int kSamples = S * S * S;
constexpr int N = S + 1;            // samples along a brick and its shared layer
constexpr int kBlock = N * N * N;
constexpr int kGroup = 32;          // bricks that a thread takes at once
constexpr int kMaxFaces = 5;        // of a cell
constexpr double kWeld = 1e-4;      // marching_cubes.WELD
constexpr float kBeyond = -1e-30f;  // sample_grid.BEYOND
constexpr double kClip = 1e18;

}  // namespace

extern "C" {

// The arrays of Bricks and the lattice; cpu_bricks.py has the same structure.
struct Store {
    void* values;                      // count × 8 × 8 × 8, float or double
    uint8_t *known, *requested;        // the same shape
    const int64_t* coords;             // count × 3
    const int32_t* id_at;              // grid
    int64_t count, grid[3];            // stored bricks; bricks along each axis
    int64_t samples[3];                // of the lattice
    const double* along[3];            // their coordinates
    int32_t wide, closed, threads;     // wide: values are double
};

// The coarse grid that bricks begin with.
struct Coarse {
    const void* values;
    const uint8_t *known, *candidates;  // of samples; of cells, may be null
    int64_t shape[3];                   // samples
    int32_t stride;
};

}  // extern "C"

namespace {

template <class T>
T* values_of(const Store& s) {
    return static_cast<T*>(s.values);
}

// The ids of a brick and of the seven bricks that own its shared layer; bits 4, 2, 1 of an index: the next in x, y, z.
struct Owners {
    int64_t id[8];
    Owners(const Store& s, int64_t brick) {
        const int64_t* c = s.coords + 3 * brick;
        for (int o = 0; o < 8; ++o)
            id[o] = s.id_at[((c[0] + (o >> 2)) * s.grid[1] + c[1] + (o >> 1 & 1)) * s.grid[2] + c[2] + (o & 1)];
    }
};

// The samples of a brick M + 1 along each axis, including the shared layer.
template <int M, class E>
void read(const E* stored, const Owners& owners, E* out) {
    constexpr int stride = S / M;
    for (int x = 0; x <= M; ++x)
        for (int y = 0; y <= M; ++y, out += M + 1) {
            const int who = (x == M) * 4 + (y == M) * 2, place = ((x % M) * S + y % M) * S * stride;
            const E* row = stored + owners.id[who] * kSamples + place;
            for (int z = 0; z < M; ++z) out[z] = row[z * stride];
            out[M] = stored[owners.id[who + 1] * kSamples + place];
        }
}

// Number of cells of a stride along an axis that begin within the lattice, of the brick at a coordinate.
inline int cells_within(int64_t brick, int64_t samples, int stride) {
    const int64_t left = samples - 1 - brick * S;
    return int(std::clamp<int64_t>((left + stride - 1) / stride, 0, S / stride));
}

inline void request(const Store& s, const Owners& owners, int x, int y, int z) {
    const int who = (x == S) * 4 + (y == S) * 2 + (z == S);
    uint8_t* at = s.requested + owners.id[who] * kSamples + ((x % S) * S + y % S) * S + z % S;
    __atomic_store_n(at, uint8_t(1), __ATOMIC_RELAXED);
}

// Whether corners of cell (x, y, z) of a block of `n` samples a side are in a set.
template <int n>
inline void corners(const uint8_t* set, int x, int y, int z, bool& any, bool& all) {
    const uint8_t* a = set + (x * n + y) * n + z;
    const uint8_t* b = a + n * n;
    const int sum = a[0] + a[1] + a[n] + a[n + 1] + b[0] + b[1] + b[n] + b[n + 1];
    any = sum > 0, all = sum == 8;
}

// Calls `work(i)` for i in [0, n), in groups, on several threads.
template <class Work>
void in_parallel(int64_t n, [[maybe_unused]] int threads, Work work) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t from = 0; from < n; from += kGroup)
        for (int64_t i = from; i < std::min(n, from + kGroup); ++i) work(i);
}

// ---- Candidate cells --------------------------------------------------------------------------------------------

// What cell_bounds.candidates needs to know.
struct Bounds {
    double limit, sides[3];         // ROUNDING · diagonal²; 4 · side
    float factor;                   // of the squared slope where it is measured, else the squared slope
    int32_t measured;               // whether the slope is measured
    const uint8_t* surface_cells;   // of the whole lattice at this stride, or null
    int64_t surface_shape[3];
};

// cell_bounds.squared_slope of a cell: `at(i, j, k)` are its corners.
template <class T, class At>
T squared_slope(At at, const T* four_sides) {
    T sum[3];
    const auto along = [&](int axis, auto rise) {
        const T mean = ((rise(0, 0) + rise(1, 0)) + (rise(0, 1) + rise(1, 1))) / four_sides[axis];
        sum[axis] = mean * mean;
    };
    along(0, [&](int j, int k) { return at(1, j, k) - at(0, j, k); });
    along(1, [&](int i, int k) { return at(i, 1, k) - at(i, 0, k); });
    along(2, [&](int i, int j) { return at(i, j, 1) - at(i, j, 0); });
    return (sum[0] + sum[1]) + sum[2];
}

// Maximum of `cells` over each cell and those that touch it; M a side.
template <class T, int M>
void widen(T* cells) {
    constexpr int step[3] = {M * M, M, 1};
    for (int axis = 0; axis < 3; ++axis) {
        T from[M * M * M];
        std::copy(cells, cells + M * M * M, from);
        for (int i = 0; i < M * M * M; ++i) {
            const int place = i / step[axis] % M;
            if (place > 0) cells[i] = std::max(cells[i], from[i - step[axis]]);
            if (place < M - 1) cells[i] = std::max(cells[i], from[i + step[axis]]);
        }
    }
}

// Bricks._candidates: marks the candidates among the M³ cells of a brick; returns whether there are any.
template <class T, int M>
bool find_candidates(const Store& s, const Bounds& bounds, int64_t brick, const Owners& owners, uint8_t* found) {
    constexpr int n = M + 1;
    const int64_t* c = s.coords + 3 * brick;
    T v[n * n * n], slope[M * M * M], sides[3];
    uint8_t known[n * n * n], inside[n * n * n], valid[M * M * M];
    read<M>(s.known, owners, known);
    const int limit[3] = {cells_within(c[0], s.samples[0], S / M), cells_within(c[1], s.samples[1], S / M),
                          cells_within(c[2], s.samples[2], S / M)};
    bool some = false;
    for (int x = 0, i = 0; x < M; ++x)
        for (int y = 0; y < M; ++y)
            for (int z = 0; z < M; ++z, ++i) {
                bool any, all;
                corners<n>(known, x, y, z, any, all);
                valid[i] = all && x < limit[0] && y < limit[1] && z < limit[2];
                some |= valid[i];
            }
    if (!some) return false;
    read<M>(values_of<T>(s), owners, v);
    for (int i = 0; i < n * n * n; ++i) inside[i] = v[i] >= 0;
    for (int axis = 0; axis < 3; ++axis) sides[axis] = T(bounds.sides[axis]);
    if (bounds.measured) {
        for (int x = 0, i = 0; x < M; ++x)
            for (int y = 0; y < M; ++y)
                for (int z = 0; z < M; ++z, ++i) {
                    const T* at = v + (x * n + y) * n + z;
                    const auto corner = [&](int p, int q, int r) { return at[(p * n + q) * n + r]; };
                    slope[i] = valid[i] ? squared_slope<T>(corner, sides) : T(0);
                }
        widen<T, M>(slope);
    }
    for (int i = 0; i < n * n * n; ++i) {
        const T clipped = std::min(std::max(v[i], T(-kClip)), T(kClip));
        v[i] = clipped * clipped;
    }
    some = false;
    for (int x = 0, i = 0; x < M; ++x)
        for (int y = 0; y < M; ++y)
            for (int z = 0; z < M; ++z, ++i) {
                if (!valid[i]) {
                    found[i] = 0;
                    continue;
                }
                const T *a = v + (x * n + y) * n + z, *b = a + n * n;
                const T sum = std::max(std::max(a[0] + b[n + 1], a[n + 1] + b[0]), std::max(a[1] + b[n], a[n] + b[1]));
                const T squared = bounds.measured ? T(bounds.factor) * slope[i] : T(bounds.factor);
                bool any, all;
                corners<n>(inside, x, y, z, any, all);
                found[i] = sum <= T(bounds.limit) * squared || (any && !all);
                if (bounds.surface_cells != nullptr)
                    found[i] |= bounds.surface_cells[((c[0] * M + x) * bounds.surface_shape[1] + c[1] * M + y) *
                                                         bounds.surface_shape[2] + c[2] * M + z];
                some |= found[i];
            }
    return some;
}

// Bricks._initial_candidates: the M³ cells of a brick in the coarse grid.
template <int M>
bool initial_candidates(const Store& s, const Coarse& coarse, int64_t brick, uint8_t* found) {
    const int64_t *c = s.coords + 3 * brick, ny = coarse.shape[1] - 1, nz = coarse.shape[2] - 1;
    bool some = false;
    for (int x = 0, i = 0; x < M; ++x)
        for (int y = 0; y < M; ++y)
            for (int z = 0; z < M; ++z, ++i)
                some |= found[i] = coarse.candidates[((c[0] * M + x) * ny + c[1] * M + y) * nz + c[2] * M + z];
    return some;
}

// Requests the samples of half the stride in the marked cells of a brick.
template <int M>
void request_halved(const Store& s, const Owners& owners, const uint8_t* found) {
    constexpr int half = S / M / 2;
    for (int x = 0, i = 0; x < M; ++x)
        for (int y = 0; y < M; ++y)
            for (int z = 0; z < M; ++z, ++i) {
                if (!found[i]) continue;
                for (int p = 0; p < 3; ++p)
                    for (int q = 0; q < 3; ++q)
                        for (int r = 0; r < 3; ++r)
                            request(s, owners, (2 * x + p) * half, (2 * y + q) * half, (2 * z + r) * half);
            }
}

template <class T, int M>
void refine(const Store& s, const Bounds& bounds, const Coarse* coarse, const int64_t* ids, int64_t n) {
    in_parallel(n, s.threads, [&](int64_t i) {
        const Owners owners(s, ids[i]);
        uint8_t found[M * M * M];
        const bool some = coarse != nullptr ? initial_candidates<M>(s, *coarse, ids[i], found)
                                            : find_candidates<T, M>(s, bounds, ids[i], owners, found);
        if (some) request_halved<M>(s, owners, found);
    });
}

// ---- Samples ----------------------------------------------------------------------------------------------------

// Bricks._fill: the bricks [first, count) begin with the coarse samples.
template <class T>
void fill(const Store& s, const Coarse& coarse, int64_t first) {
    const int stride = coarse.stride, per = S / stride;
    const T* values = static_cast<const T*>(coarse.values);
    in_parallel(s.count - first, s.threads, [&](int64_t i) {
        const int64_t brick = first + i, *c = s.coords + 3 * brick;
        T* out = values_of<T>(s) + brick * kSamples;
        uint8_t* known = s.known + brick * kSamples;
        const auto index = [&](int axis, int at) { return std::min(c[axis] * per + at / stride, coarse.shape[axis] - 1); };
        for (int x = 0; x < S; ++x)
            for (int y = 0; y < S; ++y)
                for (int z = 0; z < S; ++z, ++out, ++known) {
                    const int64_t from = (index(0, x) * coarse.shape[1] + index(1, y)) * coarse.shape[2] + index(2, z);
                    *out = values[from];
                    if (x % stride == 0 && y % stride == 0 && z % stride == 0) *known = coarse.known[from];
                }
    });
}

// Bricks._spread: unknown samples take the value at their index rounded down to the stride.
template <class T>
void spread(const Store& s, int stride) {
    const int down = ~(stride - 1);
    in_parallel(s.count, s.threads, [&](int64_t brick) {
        T* v = values_of<T>(s) + brick * kSamples;
        const uint8_t* known = s.known + brick * kSamples;
        for (int x = 0, i = 0; x < S; ++x)
            for (int y = 0; y < S; ++y)
                for (int z = 0; z < S; ++z, ++i)
                    if (!known[i]) v[i] = v[((x & down) * S + (y & down)) * S + (z & down)];
    });
}

inline uint64_t eight(const uint8_t* from) {
    uint64_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

// Clears the requests of known samples and, in a closed box, of those beyond it, which are known from then on.
// Writes the number of the others in each brick, and returns their sum; `owners` marks bricks with any new sample.
template <class T>
int64_t count_requests(const Store& s, int64_t* counts, uint8_t* owners) {
    in_parallel(s.count, s.threads, [&](int64_t brick) {
        uint8_t *wanted = s.requested + brick * kSamples, *known = s.known + brick * kSamples;
        int64_t count = 0;
        for (int i = 0; i < kSamples; i += 8) {
            const uint64_t left = eight(wanted + i) & ~eight(known + i);
            std::memcpy(wanted + i, &left, sizeof left);
            count += __builtin_popcountll(left);
        }
        owners[brick] = count > 0;
        const int64_t* c = s.coords + 3 * brick;
        bool border = false;
        for (int axis = 0; axis < 3; ++axis)
            border |= s.closed && (c[axis] == 0 || (c[axis] + 1) * S > s.samples[axis] - 1);
        for (int i = 0; border && count && i < kSamples; ++i) {
            const int64_t at[3] = {c[0] * S + i / (S * S), c[1] * S + i / S % S, c[2] * S + i % S};
            bool beyond = false;
            for (int axis = 0; axis < 3; ++axis) beyond |= at[axis] < 1 || at[axis] >= s.samples[axis] - 1;
            if (!wanted[i] || !beyond) continue;
            wanted[i] = 0, known[i] = 1, --count;
            values_of<T>(s)[brick * kSamples + i] = T(kBeyond);
        }
        counts[brick] = count;
    });
    int64_t total = 0;
    for (int64_t brick = 0; brick < s.count; ++brick) total += counts[brick];
    return total;
}

// Writes the positions of the requested samples in the flattened arrays, in order, and clears the requests.
void list_requests(const Store& s, const int64_t* counts, int64_t* flat) {
    std::vector<int64_t> first(s.count + 1, 0);
    for (int64_t brick = 0; brick < s.count; ++brick) first[brick + 1] = first[brick] + counts[brick];
    in_parallel(s.count, s.threads, [&](int64_t brick) {
        if (!counts[brick]) return;
        uint8_t* wanted = s.requested + brick * kSamples;
        int64_t* out = flat + first[brick];
        for (int i = 0; i < kSamples; i += 8) {
            uint64_t word = eight(wanted + i);
            for (; word; word &= word - 1) *out++ = brick * kSamples + i + __builtin_ctzll(word) / 8;
        }
        std::memset(wanted, 0, kSamples);
    });
}

// Coordinates of samples, given their positions in the flattened arrays.
template <class T>
void points(const Store& s, const int64_t* flat, int64_t n, T* out) {
    in_parallel(n, s.threads, [&](int64_t i) {
        const int64_t* c = s.coords + 3 * (flat[i] / kSamples);
        const int64_t within[3] = {flat[i] / (S * S) % S, flat[i] / S % S, flat[i] % S};
        for (int axis = 0; axis < 3; ++axis)
            out[3 * i + axis] = T(s.along[axis][std::min(c[axis] * S + within[axis], s.samples[axis] - 1)]);
    });
}

// Stores the values of evaluated samples relative to the iso value; `range` receives lowest, highest and whether all
// are finite.
template <class T, class F>
void store(const Store& s, const int64_t* flat, int64_t n, const F* found, double iso, int below, double* range) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    int finite = 1;
    T* values = values_of<T>(s);
#pragma omp parallel for schedule(static) num_threads(s.threads) reduction(min : low, finite) reduction(max : high)
    for (int64_t i = 0; i < n; ++i) {
        const double value = double(found[i]);
        finite = std::min(finite, int(std::isfinite(value)));
        low = std::min(low, value), high = std::max(high, value);
        values[flat[i]] = T(below ? -(value - iso) : value - iso);
        s.known[flat[i]] = 1;
    }
    range[0] = low, range[1] = high, range[2] = finite;
}

// ---- Surface tracking -------------------------------------------------------------------------------------------

// Which of the six faces of a block have samples on both sides: bits 2 axis + end, where end 0 is the lower face.
uint8_t crossed_faces(const uint8_t* inside) {
    uint8_t crossed = 0;
    constexpr int step[3] = {N * N, N, 1};
    for (int axis = 0; axis < 3; ++axis)
        for (int end = 0; end < 2; ++end) {
            const uint8_t* face = inside + end * S * step[axis];
            int sum = 0;
            for (int i = 0; i < N; ++i)
                for (int j = 0; j < N; ++j) sum += face[i * step[(axis + 1) % 3] + j * step[(axis + 2) % 3]];
            crossed |= uint8_t((sum > 0 && sum < N * N) << (2 * axis + end));
        }
    return crossed;
}

// Whether the signs of a block differ; `inside` receives them.
template <class T>
bool signs(const Store& s, const Owners& owners, T* v, uint8_t* inside) {
    read<S>(values_of<T>(s), owners, v);
    int sum = 0;
    for (int i = 0; i < kBlock; ++i) sum += inside[i] = v[i] >= 0;
    return sum > 0 && sum < kBlock;
}

// Bricks._incomplete: requests unknown corners of cells with a sign change; `crossed` receives crossed_faces.
template <class T>
void track(const Store& s, const int64_t* ids, int64_t n, uint8_t* crossed) {
    in_parallel(n, s.threads, [&](int64_t i) {
        const Owners owners(s, ids[i]);
        const int64_t* c = s.coords + 3 * ids[i];
        T v[kBlock];
        uint8_t inside[kBlock], known[kBlock];
        crossed[i] = 0;
        if (!signs(s, owners, v, inside)) return;
        crossed[i] = crossed_faces(inside);
        read<S>(s.known, owners, known);
        int sum = 0;
        for (int k = 0; k < kBlock; ++k) sum += known[k];
        if (sum == kBlock) return;
        const int nx = cells_within(c[0], s.samples[0], 1), ny = cells_within(c[1], s.samples[1], 1),
                  nz = cells_within(c[2], s.samples[2], 1);
        for (int x = 0; x < nx; ++x)
            for (int y = 0; y < ny; ++y)
                for (int z = 0; z < nz; ++z) {
                    bool any, all, any_known, all_known;
                    corners<N>(inside, x, y, z, any, all);
                    if (!any || all) continue;
                    corners<N>(known, x, y, z, any_known, all_known);
                    if (all_known) continue;
                    for (int p = 0; p < 8; ++p) {
                        const int at[3] = {x + (p >> 2), y + (p >> 1 & 1), z + (p & 1)};
                        if (!known[(at[0] * N + at[1]) * N + at[2]]) request(s, owners, at[0], at[1], at[2]);
                    }
                }
    });
}

// ---- Triangles --------------------------------------------------------------------------------------------------

struct Vertex {
    double at[3];
};

// Vertices and faces of some bricks; corners of faces are indices into the vertices of the same piece.
struct Piece {
    std::vector<uint64_t> keys;
    std::vector<Vertex> vertices;
    std::vector<uint32_t> faces;
};

struct Table {
    uint8_t counts[256];
    uint16_t edges[256][kMaxFaces * 3];  // 3 · sample + axis, relative to the cell's first sample
};

// The vertex on an edge and its key; see MeshBuilder._vertices.
Vertex vertex_on(const Store& s, const int64_t* start, int axis, double low, double high, uint64_t& key) {
    int64_t end[3] = {start[0], start[1], start[2]};
    ++end[axis];
    Vertex a, b;
    bool equal = true;
    for (int k = 0; k < 3; ++k) {
        a.at[k] = s.along[k][start[k]], b.at[k] = s.along[k][end[k]];
        equal &= a.at[k] == b.at[k];
    }
    const double share = low / (low - high);
    const bool on_start = share <= kWeld || equal, on_end = !on_start && share >= 1 - kWeld;
    const auto linear = [&](const int64_t* i) { return uint64_t((i[0] * s.samples[1] + i[1]) * s.samples[2] + i[2]); };
    if (on_start || on_end) {
        int64_t nearest[3];
        for (int k = 0; k < 3; ++k)
            nearest[k] = std::clamp<int64_t>((on_start ? start : end)[k], s.closed, s.samples[k] - 1 - s.closed);
        key = 4 * linear(nearest) + 3;
        return on_start ? a : b;
    }
    key = 4 * linear(start) + axis;
    for (int k = 0; k < 3; ++k) a.at[k] = a.at[k] + share * (b.at[k] - a.at[k]);
    return a;
}

// Adds the vertices and triangles of a brick to a piece.
template <class T>
void march(const Store& s, int64_t brick, const Table& table, Piece& piece) {
    const Owners owners(s, brick);
    const int64_t* c = s.coords + 3 * brick;
    T v[kBlock];
    uint8_t inside[kBlock];
    if (!signs(s, owners, v, inside)) return;
    int32_t number[3 * kBlock];
    std::fill(number, number + 3 * kBlock, -1);
    const int nx = cells_within(c[0], s.samples[0], 1), ny = cells_within(c[1], s.samples[1], 1),
              nz = cells_within(c[2], s.samples[2], 1);
    for (int x = 0; x < nx; ++x)
        for (int y = 0; y < ny; ++y) {
            const uint8_t *a = inside + (x * N + y) * N, *b = a + N * N;
            uint8_t cases[S];
            for (int z = 0; z < S; ++z)
                cases[z] = uint8_t(a[z] | a[z + 1] << 1 | a[z + N] << 2 | a[z + N + 1] << 3 | b[z] << 4 |
                                   b[z + 1] << 5 | b[z + N] << 6 | b[z + N + 1] << 7);
            for (int z = 0; z < nz; ++z) {
                const int which = cases[z], corners = 3 * table.counts[which];
                for (int k = 0; k < corners; ++k) {
                    const int edge = 3 * ((x * N + y) * N + z) + table.edges[which][k];
                    if (number[edge] < 0) {
                        constexpr int step[3] = {N * N, N, 1};
                        const int at = edge / 3, axis = edge % 3;
                        const int64_t start[3] = {c[0] * S + at / (N * N), c[1] * S + at / N % N, c[2] * S + at % N};
                        uint64_t key;
                        number[edge] = int32_t(piece.vertices.size());
                        piece.vertices.push_back(
                            vertex_on(s, start, axis, double(v[at]), double(v[at + step[axis]]), key));
                        piece.keys.push_back(key);
                    }
                    piece.faces.push_back(uint32_t(number[edge]));
                }
            }
        }
}

struct Keyed {
    uint64_t key;
    uint32_t index;
};

// Sorts by key, stable: radix sort of as many bits as the largest key has.
void sort(std::vector<Keyed>& items, uint64_t largest) {
    constexpr int kBits = 11;
    std::vector<Keyed> other(items.size());
    for (int shift = 0; shift < 64 && largest >> shift; shift += kBits) {
        std::vector<size_t> first((1 << kBits) + 1, 0);
        const auto digit = [&](const Keyed& item) { return item.key >> shift & ((1 << kBits) - 1); };
        for (const Keyed& item : items) ++first[digit(item) + 1];
        for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
        for (const Keyed& item : items) other[first[digit(item)]++] = item;
        items.swap(other);
    }
}

}  // namespace

extern "C" {

// A mesh in the making.
struct Mesh {
    std::vector<Vertex> vertices;
    std::vector<int64_t> faces;
};

}  // extern "C"

namespace {

// MeshBuilder.welded: joins the pieces, welds vertices of equal keys and drops degenerate faces.
void weld(const std::vector<Piece>& pieces, uint64_t largest, Mesh& mesh) {
    const int64_t n = int64_t(pieces.size());
    std::vector<int64_t> first(n + 1, 0);
    for (int64_t p = 0; p < n; ++p) first[p + 1] = first[p] + int64_t(pieces[p].keys.size());
    std::vector<Keyed> order(first[n]);
    for (int64_t p = 0; p < n; ++p)
        for (size_t i = 0; i < pieces[p].keys.size(); ++i)
            order[first[p] + i] = {pieces[p].keys[i], uint32_t(first[p] + i)};
    std::vector<const Vertex*> at(first[n]);
    for (int64_t p = 0; p < n; ++p)
        for (size_t i = 0; i < pieces[p].vertices.size(); ++i) at[first[p] + i] = &pieces[p].vertices[i];
    sort(order, largest);
    std::vector<int64_t> number(first[n]);
    mesh.vertices.reserve(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
        if (i == 0 || order[i].key != order[i - 1].key) mesh.vertices.push_back(*at[order[i].index]);
        number[order[i].index] = int64_t(mesh.vertices.size()) - 1;
    }
    size_t corners = 0;
    for (const Piece& piece : pieces) corners += piece.faces.size();
    mesh.faces.reserve(corners);
    for (int64_t p = 0; p < n; ++p)
        for (size_t f = 0; f < pieces[p].faces.size(); f += 3) {
            const uint32_t* corner = &pieces[p].faces[f];
            const int64_t a = number[first[p] + corner[0]], b = number[first[p] + corner[1]],
                          c = number[first[p] + corner[2]];
            if (a != b && b != c && c != a) mesh.faces.insert(mesh.faces.end(), {a, b, c});
        }
}

template <class T>
void triangles(const Store& s, const int64_t* ids, int64_t n, const Table& table, Mesh& mesh) {
    std::vector<Piece> pieces((n + kGroup - 1) / kGroup);
    bool failed = false;
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (size_t p = 0; p < pieces.size(); ++p) try {
            for (int64_t i = int64_t(p) * kGroup; i < std::min<int64_t>(n, (int64_t(p) + 1) * kGroup); ++i)
                march<T>(s, ids[i], table, pieces[p]);
        } catch (const std::bad_alloc&) {
#pragma omp atomic write
            failed = true;
        }
    if (failed) throw std::bad_alloc();
    weld(pieces, 4 * uint64_t(s.samples[0]) * s.samples[1] * s.samples[2], mesh);
}

// Calls `work` with a value of the type of the samples. Returns the status: 0, or 1 if memory could not be allocated, 2
// for other failures.
template <class Work>
int typed(const Store& s, Work work) noexcept {
    try {
        s.wide ? work(double()) : work(float());
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    } catch (...) {
        return 2;
    }
}

}  // namespace

extern "C" {

int bricks_fill(const Store* s, const Coarse* coarse, int64_t first) {
    return typed(*s, [&](auto t) { fill<decltype(t)>(*s, *coarse, first); });
}

// Requests the samples of half the stride in candidate cells of the bricks `ids`: those of the coarse grid, if given.
int bricks_refine(const Store* s, const Bounds* bounds, const Coarse* coarse, const int64_t* ids, int64_t n, int stride) {
    return typed(*s, [&](auto t) {
        using T = decltype(t);
        if (stride == 8) refine<T, 1>(*s, *bounds, coarse, ids, n);
        if (stride == 4) refine<T, 2>(*s, *bounds, coarse, ids, n);
        if (stride == 2) refine<T, 4>(*s, *bounds, coarse, ids, n);
    });
}

int bricks_spread(const Store* s, int stride) {
    return typed(*s, [&](auto t) { spread<decltype(t)>(*s, stride); });
}

int bricks_count(const Store* s, int64_t* counts, uint8_t* owners, int64_t* total) {
    return typed(*s, [&](auto t) { *total = count_requests<decltype(t)>(*s, counts, owners); });
}

int bricks_list(const Store* s, const int64_t* counts, int64_t* flat) {
    return typed(*s, [&](auto) { list_requests(*s, counts, flat); });
}

int bricks_points(const Store* s, const int64_t* flat, int64_t n, void* out) {
    return typed(*s, [&](auto t) { points(*s, flat, n, static_cast<decltype(t)*>(out)); });
}

int bricks_store(const Store* s, const int64_t* flat, int64_t n, const void* found, int found_wide, double iso, int below,
                 double* range) {
    return typed(*s, [&](auto t) {
        using T = decltype(t);
        if (found_wide) store<T>(*s, flat, n, static_cast<const double*>(found), iso, below, range);
        else store<T>(*s, flat, n, static_cast<const float*>(found), iso, below, range);
    });
}

int bricks_track(const Store* s, const int64_t* ids, int64_t n, uint8_t* crossed) {
    return typed(*s, [&](auto t) { track<decltype(t)>(*s, ids, n, crossed); });
}

// The mesh of the bricks `ids`: a handle for bricks_mesh_take, and the numbers of vertices and faces. `counts` and
// `edges` are those of marching_cubes.cases().
int bricks_mesh(const Store* s, const int64_t* ids, int64_t n, const int64_t* counts, const int64_t* edges, Mesh** mesh,
                int64_t* sizes) {
    return typed(*s, [&](auto t) {
        Table table = {};
        for (int which = 0; which < 256; ++which) {
            table.counts[which] = uint8_t(counts[which]);
            for (int k = 0; k < 3 * kMaxFaces; ++k) {
                const int64_t* e = edges + 4 * (which * 3 * kMaxFaces + k);
                table.edges[which][k] = uint16_t(3 * ((e[0] * N + e[1]) * N + e[2]) + e[3]);
            }
        }
        *mesh = new Mesh;
        try {
            triangles<decltype(t)>(*s, ids, n, table, **mesh);
        } catch (...) {
            delete *mesh;
            throw;
        }
        sizes[0] = int64_t((*mesh)->vertices.size()), sizes[1] = int64_t((*mesh)->faces.size()) / 3;
    });
}

// Copies a mesh to arrays and frees it.
int bricks_mesh_take(Mesh* mesh, double* vertices, int64_t* faces) {
    std::memcpy(vertices, mesh->vertices.data(), mesh->vertices.size() * sizeof(Vertex));
    std::memcpy(faces, mesh->faces.data(), mesh->faces.size() * sizeof(int64_t));
    delete mesh;
    return 0;
}

}  // extern "C"
