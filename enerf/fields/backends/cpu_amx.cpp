// Fused dense networks on a CPU with matrix tiles (AMX): bf16 factors, fp32 sums. The reference implementation is
// dense.bind in dense.py, which defines layers and activation buffers.
//
// One instruction, tdpbf16ps, adds to a tile of 16 × 16 sums the product of a tile of 16 rows × 32 factors and a tile of
// 32 factors × 16 columns, whose factors are interleaved in pairs along the summed axis. Nothing is transposed, because
// the epilogue of each product writes all forms that later products read, and the orientation alternates:
//
//   forward    Y (points × outputs)  = X · Wᵀ        rows are points;    writes Y as rows of 32 features (left factor
//                                                    of the next layer) and as pairs of points (right factor of dW)
//   backward   Gᵀ (inputs × points)  = Wᵀ · dZᵀ      rows are features;  writes G as pairs of features (right factor
//                                                    of the next layer) and as rows of 32 points (left factor of dW)
//   weights    dW (outputs × inputs) = dZᵀ · X
//
// All of them are stored as contiguous tiles of 1 KB. The gradient of a buffer is summed over all layers that read it
// before it is rounded. ReLU leaves one bit for each value: a row of 16 features for each point, of which the backward
// pass takes columns.
//
// All layers are evaluated for one tile of points before the next. The order of every sum is fixed for a given number of
// points and threads.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_AMX 1
#else
#define HAS_AMX 0
#endif

#if HAS_AMX

namespace {

typedef uint16_t u16;
typedef uint32_t u32;
constexpr long BLOCK = 32;         // points of a block: two tiles
constexpr long TILE = 512;         // bf16 factors of a tile
constexpr long SUMS = 256;         // fp32 sums of a tile, and the 4-byte units of its factors
constexpr long FORWARD_POINTS = 256;   // for which all layers are evaluated before the next points
constexpr long BACKWARD_POINTS = 512;  // the same in the backward pass, unless there are fewer
constexpr long SUMMED_POINTS = 256;    // whose factors of weight gradients stay in the first-level cache
constexpr long AHEAD = 32;             // lines of 64 bytes that are fetched ahead during the products of a block

inline long parts(long n, long of) { return (n + of - 1) / of; }

inline u16 to_bf16(float x) {  // round to nearest, ties to even; infinities and NaN are kept
    u32 bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return u16(bits >> 16 | 0x40);
    return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// ---------------------------------------------------------------- tiles

struct alignas(64) TileConfig {  // eight registers of 16 rows of 64 bytes
    uint8_t palette = 1, start = 0, reserved[14] = {};
    u16 bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const TileConfig CONFIG;  // in static memory: GCC does not know that the instruction reads all of it

struct Tiles {  // the tile registers of this thread
    Tiles() { _tile_loadconfig(&CONFIG); }
    ~Tiles() { _tile_release(); }
};

// Complete all writes before tiles are loaded: GCC does not know that the instruction reads memory.
inline void written() { asm volatile("" ::: "memory"); }

// sums in registers 0 to 3: tiles (0, 0), (0, 1), (1, 0), (1, 1) of an M × N block
template <int M, int N> inline void load_sums(const float* from, long row, long column, long stride) {
    written();
    _tile_loadd(0, from, stride);
    if (N == 2) _tile_loadd(1, from + column, stride);
    if (M == 2) _tile_loadd(2, from + row, stride);
    if (M == 2 && N == 2) _tile_loadd(3, from + row + column, stride);
}

template <int M, int N> inline void store_sums(float* to, long row, long column, long stride) {
    _tile_stored(0, to, stride);
    if (N == 2) _tile_stored(1, to + column, stride);
    if (M == 2) _tile_stored(2, to + row, stride);
    if (M == 2 && N == 2) _tile_stored(3, to + row + column, stride);
}

template <int M, int N> inline void zero_sums() {
    _tile_zero(0);
    if (N == 2) _tile_zero(1);
    if (M == 2) _tile_zero(2);
    if (M == 2 && N == 2) _tile_zero(3);
}

// sums += Σ_k left(k) · right(k); the second row (column) of tiles is `down` (`across`) further, the next k a step
template <int M, int N>
inline void multiply(const u16* left, long down, long left_step, const u16* right, long across, long right_step, long n) {
    written();
    for (long k = 0; k < n; k++, left += left_step, right += right_step) {
        _tile_loadd(6, right, 64);
        _tile_loadd(4, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (N == 2) {
            _tile_loadd(7, right + across, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (M == 2) {
            _tile_loadd(5, left + down, 64);
            _tile_dpbf16ps(2, 5, 6);
            if (N == 2) _tile_dpbf16ps(3, 5, 7);
        }
    }
}

// call f.run<M, N>() for the number of tiles
template <class F> inline void sized(int m, int n, F f) {
    if (m == 2 && n == 2) f.template run<2, 2>();
    else if (m == 2) f.template run<2, 1>();
    else if (n == 2) f.template run<1, 2>();
    else f.template run<1, 1>();
}

// ---------------------------------------------------------------- vectors

alignas(64) const u16 LOW[32] = {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
                                 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};

// Writes past the caches: what the backward pass reads is larger than they are, and would be read before it is written.
struct Past {
    static inline void store(u16* to, __m512i x) { _mm512_stream_si512((__m512i*)to, x); }
};

struct Cached {
    static inline void store(u16* to, __m512i x) { _mm512_store_si512(to, x); }
};

template <class To> struct Pairs {  // interleaves two rows of 32 factors
    __m512i low = _mm512_load_si512(LOW), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    inline void operator()(__m512i a, __m512i b, u16* first, u16* second) const {
        To::store(first, _mm512_permutex2var_epi16(a, low, b));
        if (second) To::store(second, _mm512_permutex2var_epi16(a, high, b));
    }
};

inline __m512i rounded(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

inline __mmask16 first_lanes(long n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }

// A block of 32 points × 32 features (two tiles of features, or one). Rows of factors go to `left`, where the second 16
// points are `down` further, and pairs of points to `first` and `second`, if given; bits of ReLU to `bits`, where those of
// the second tile of features are `across` further.
struct Forms {
    u16 *left, *first, *second, *bits;
    long down, across;
};

template <bool RELU, class Row> inline void write_points(const Forms& to, Row row) {
    const Pairs<Past> pairs;
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    alignas(64) u32 positive[BLOCK];
    for (long p = 0; p < BLOCK; p += 2) {
        __m512i r[2];
        for (int i = 0; i < 2; i++) {
            __m512 low, high;
            row(p + i, low, high);
            if (RELU) low = _mm512_max_ps(_mm512_setzero_ps(), low), high = _mm512_max_ps(_mm512_setzero_ps(), high);  // keeps NaN
            r[i] = rounded(low, high);
            if (RELU) positive[p + i] = _mm512_test_epi16_mask(r[i], magnitude);
        }
        u16* at = to.left + (p / 16) * to.down + (p % 16) * 32;
        _mm512_store_si512(at, r[0]);
        _mm512_store_si512(at + 32, r[1]);
        if (to.first) pairs(r[0], r[1], to.first + p * 16, to.second ? to.second + p * 16 : nullptr);
    }
    if (!RELU || !to.bits) return;
    __m512i a = _mm512_load_si512(positive), b = _mm512_load_si512(positive + 16);
    _mm256_store_si256((__m256i*)to.bits, _mm512_cvtepi32_epi16(a));
    _mm256_store_si256((__m256i*)(to.bits + 16), _mm512_cvtepi32_epi16(b));
    if (!to.second) return;
    _mm256_store_si256((__m256i*)(to.bits + to.across), _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)));
    _mm256_store_si256((__m256i*)(to.bits + to.across + 16), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)));
}

// A tile of 16 features × 32 points of gradients: factors of masked rows to `rows`, pairs of features to `pairs` and, for
// the second 16 points, `across` further; sums of points are added to 16 numbers for each feature.
inline void write_features(const float* from, const u16* bits, u16* rows, u16* to, long across, float* sums) {
    const Pairs<Cached> pairs;
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512i columns = bits ? _mm512_load_si512(bits) : _mm512_set1_epi16(-1);
    __m512i r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        __mmask32 on = _mm512_movepi16_mask(_mm512_slli_epi16(columns, 15 - i));
        r[i] = _mm512_maskz_mov_epi16(on, rounded(_mm512_load_ps(from + i * 32), _mm512_load_ps(from + i * 32 + 16)));
        _mm512_store_si512(rows + i * 32, r[i]);
        _mm512_store_ps(sums + i * 16, _mm512_dpbf16_ps(_mm512_load_ps(sums + i * 16), (__m512bh)r[i], ones));
        if (i % 2) pairs(r[i - 1], r[i], to + (i / 2) * 32, to + across + (i / 2) * 32);
    }
}

// to[c][r] += from[r][c], 16 × 16, for the first columns and rows
inline void add_transposed(const float* from, long from_stride, float* to, long to_stride, long columns, long rows) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(from + i * from_stride);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d a = (__m512d)t[i + j], b = (__m512d)t[i + j + 2];
            r[i + 2 * j] = (__m512)_mm512_unpacklo_pd(a, b);
            r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd(a, b);
        }
    for (int j = 0; j < 4; j++)
        for (int h = 0; h < 2; h++) {
            t[8 * h + j] = _mm512_shuffle_f32x4(r[8 * h + j], r[8 * h + 4 + j], 0x88);
            t[8 * h + 4 + j] = _mm512_shuffle_f32x4(r[8 * h + j], r[8 * h + 4 + j], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
        r[8 + j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xdd);
    }
    const __mmask16 on = first_lanes(rows);
    for (long c = 0; c < std::min(16L, columns); c++)
        _mm512_mask_storeu_ps(to + c * to_stride, on, _mm512_add_ps(r[c], _mm512_maskz_loadu_ps(on, to + c * to_stride)));
}

// ---------------------------------------------------------------- networks

struct Layer {
    std::vector<int> sources, columns;  // buffers, and their first columns in the weights
    int out, width, n_in, relu, output;  // out: its buffer; output: index in the returned values, or -1
    long forward_at, bias_at, gradient_at, bias_gradient_at;
};

struct Use {  // of a buffer by a layer
    int layer, column;
};

struct Net {
    int n_inputs, n_buffers;
    std::vector<int> widths;
    std::vector<Layer> layers;
    std::vector<std::vector<Use>> uses;
    std::vector<long> backward_at;
    std::vector<bool> reached;  // by a gradient
    long packed_units = 0, gradient_floats = 0;

    long tiles(int buffer) const { return parts(widths[buffer], 16); }
    long blocks(int buffer) const { return parts(widths[buffer], 32); }

    // plan: n_inputs, n_layers, widths of all buffers, then for each layer: number of sources, sources, ReLU, output
    explicit Net(const int* plan) {
        n_inputs = *plan++;
        const int n_layers = *plan++;
        n_buffers = n_inputs + n_layers;
        widths.assign(plan, plan + n_buffers);
        plan += n_buffers;
        uses.resize(n_buffers);
        for (int l = 0; l < n_layers; l++) {
            Layer layer{};
            const int n_sources = *plan++;
            layer.sources.assign(plan, plan + n_sources);
            plan += n_sources;
            layer.relu = *plan++;
            layer.output = *plan++;
            layer.out = n_inputs + l;
            layer.width = widths[layer.out];
            for (int s : layer.sources) {
                layer.columns.push_back(layer.n_in);
                uses[s].push_back({l, layer.n_in});
                layer.n_in += widths[s];
            }
            place(layer);
            layers.push_back(layer);
        }
        reached.resize(n_buffers);
        backward_at.resize(n_buffers);
        for (int b = n_buffers; b-- > 0;) {
            reached[b] = b >= n_inputs && layers[b - n_inputs].output >= 0;
            backward_at[b] = packed_units;
            for (const Use& use : uses[b]) {
                const int out = layers[use.layer].out;
                packed_units += tiles(b) * blocks(out) * SUMS;
                reached[b] = reached[b] || reached[out];
            }
        }
    }

    void place(Layer& layer) {  // in the packed weights and in the sums of gradients
        layer.bias_at = packed_units;
        packed_units += blocks(layer.out) * BLOCK;
        layer.forward_at = packed_units;
        layer.gradient_at = gradient_floats;
        for (int s : layer.sources) {
            packed_units += blocks(s) * tiles(layer.out) * SUMS;
            gradient_floats += tiles(layer.out) * tiles(s) * SUMS;
        }
        layer.bias_gradient_at = gradient_floats;
        gradient_floats += tiles(layer.out) * SUMS;
    }

    void pack(const float* const* weights, const float* const* biases, u32* out) const {
        for (size_t l = 0; l < layers.size(); l++) {
            const Layer& layer = layers[l];
            float* bias = reinterpret_cast<float*>(out + layer.bias_at);
            std::fill(bias, bias + blocks(layer.out) * BLOCK, 0.0f);
            std::copy(biases[l], biases[l] + layer.width, bias);
            pack_right(layer, weights[l], reinterpret_cast<u16*>(out + layer.forward_at));
        }
        for (int b = 0; b < n_buffers; b++) pack_left(b, weights, reinterpret_cast<u16*>(out + backward_at[b]));
    }

    // right factors of a layer: for each block of outputs and 32 inputs of a source its tiles (pairs of inputs, outputs)
    void pack_right(const Layer& layer, const float* weights, u16* out) const {
        for (long t = 0; t < tiles(layer.out); t += 2)
            for (size_t i = 0; i < layer.sources.size(); i++)
                for (long k = 0; k < blocks(layer.sources[i]); k++)
                    for (long h = t; h < std::min(t + 2, tiles(layer.out)); h++, out += TILE)
                        for (long e = 0; e < TILE; e++) {
                            const long o = h * 16 + e / 2 % 16, in = k * 32 + e / 32 * 2 + e % 2;
                            const bool inside = o < layer.width && in < widths[layer.sources[i]];
                            out[e] = inside ? to_bf16(weights[o * layer.n_in + layer.columns[i] + in]) : 0;
                        }
    }

    // left factors of the gradient of a buffer: for each block of its features, layer that reads it and 32 of its outputs
    void pack_left(int b, const float* const* weights, u16* out) const {
        for (long t = 0; t < tiles(b); t += 2)
            for (const Use& use : uses[b]) {
                const Layer& layer = layers[use.layer];
                for (long k = 0; k < blocks(layer.out); k++)
                    for (long h = t; h < std::min(t + 2, tiles(b)); h++, out += TILE)
                        for (long e = 0; e < TILE; e++) {
                            const long in = h * 16 + e / 32, o = k * 32 + e % 32;
                            const bool inside = o < layer.width && in < widths[b];
                            out[e] = inside ? to_bf16(weights[use.layer][o * layer.n_in + use.column + in]) : 0;
                        }
            }
    }

    bool has_bits(int b) const { return b >= n_inputs && layers[b - n_inputs].relu; }
    // bytes of the saved form of 32 points of a buffer: its tiles of pairs of points, then bits
    long saved_bytes(int b) const { return tiles(b) * (TILE * 2 + (has_bits(b) ? BLOCK * 2 : 0)); }
};

// The saved form of a buffer for one range of at most BACKWARD_POINTS points.
struct Saved {
    u16 *factors, *bits;
    long blocks;  // of points
    Saved(const Net& net, void* const* saved, int b, long points, long from, long n) {
        const long before = from / BLOCK;
        blocks = parts(std::min(points, n - from), BLOCK);
        factors = reinterpret_cast<u16*>(static_cast<char*>(saved[b]) + before * net.saved_bytes(b));
        bits = net.has_bits(b) ? factors + blocks * net.tiles(b) * TILE : nullptr;
    }
    u16* tile(long t, long block) const { return factors + (t * blocks + block) * TILE; }
    u16* mask(long t, long block) const { return bits ? bits + (t * blocks + block) * BLOCK : nullptr; }
};

// Pieces of memory of one size that are taken and given back, aligned for vectors.
template <class E> class Pool {
    long size;
    std::vector<std::unique_ptr<char[]>> own;
    std::vector<E*> spare;

   public:
    explicit Pool(long n) : size(n) {}
    E* take() {
        if (spare.empty()) {
            own.emplace_back(new char[size * sizeof(E) + 64]);
            const uintptr_t at = reinterpret_cast<uintptr_t>(own.back().get());
            spare.push_back(reinterpret_cast<E*>((at + 63) / 64 * 64));
        }
        E* found = spare.back();
        spare.pop_back();
        return found;
    }
    void give(E* memory) { spare.push_back(memory); }
};

// call work(thread, threads) in each thread; an exception of any of them is thrown again by the caller's thread, because
// one that left the parallel region would end the process
template <class Work> void in_threads(int threads, Work work) {
#ifdef _OPENMP
    std::exception_ptr error;
#pragma omp parallel num_threads(threads)
    {
        try {
            work(omp_get_thread_num(), omp_get_num_threads());
        } catch (...) {
#pragma omp critical
            error = std::current_exception();
        }
    }
    if (error) std::rethrow_exception(error);
#else
    work(0, 1);
#endif
}

// ---------------------------------------------------------------- forward

struct Forward {
    const Net& net;
    const u32* packed;
    void* const* saved;  // null: activations are discarded
    float* const* outs;
    long n, points;      // points of a range, by which the saved forms are laid out
    Pool<u16> pool;
    std::vector<u16*> rows;  // left factors of each buffer, while a later layer reads them
    float* sums;
    Pool<float> scratch;

    Forward(const Net& m, const u32* w, void* const* s, float* const* o, long all, long range)
        : net(m), packed(w), saved(s), outs(o), n(all), points(range), pool(FORWARD_POINTS * widest(m)),
          rows(m.n_buffers, nullptr), scratch(BLOCK * BLOCK * 4) {
        sums = scratch.take();
    }
    static long widest(const Net& net) {
        long most = 0;
        for (int b = 0; b < net.n_buffers; b++) most = std::max(most, net.blocks(b) * BLOCK);
        return most;
    }

    Forms forms(int b, long tile, long block, const std::optional<Saved>& kept, long kept_block) const {
        const bool two = tile + 1 < net.tiles(b);
        u16* left = rows[b] + (block * 2 * net.blocks(b) + tile / 2) * TILE;
        if (!kept) return {left, nullptr, nullptr, nullptr, net.blocks(b) * TILE, 0};
        return {left, kept->tile(tile, kept_block), two ? kept->tile(tile + 1, kept_block) : nullptr,
                kept->mask(tile, kept_block), net.blocks(b) * TILE, kept->blocks * BLOCK};
    }

    // all layers for `count` points from `from`, in the range that begins at `range`
    void run(const float* const* inputs, const long* repeats, long range, long from, long count) {
        for (int b = 0; b < net.n_inputs; b++) stage(b, inputs[b], repeats[b], range, from, count);
        for (size_t l = 0; l < net.layers.size(); l++) {
            const Layer& layer = net.layers[l];
            if (layer.output < 0) rows[layer.out] = pool.take();
            for (long tile = 0; tile < net.tiles(layer.out); tile += 2) {
                if (tile + 1 < net.tiles(layer.out)) outputs<2>(layer, tile, range, from, count);
                else outputs<1>(layer, tile, range, from, count);
            }
            for (int b = 0; b <= layer.out; b++) give_back(b, int(l));
        }
    }

    void give_back(int b, int after) {
        if (!rows[b] || (!net.uses[b].empty() && net.uses[b].back().layer > after)) return;
        pool.give(rows[b]);
        rows[b] = nullptr;
    }

    // factors of an input; `repeat` points share a row, points from n on are zero
    void stage(int b, const float* input, long repeat, long range, long from, long count) {
        rows[b] = pool.take();
        std::optional<Saved> kept;
        if (saved) kept.emplace(net, saved, b, points, range, n);
        const long width = net.widths[b];
        for (long block = 0; block < parts(count, BLOCK); block++)
            for (long tile = 0; tile < net.tiles(b); tile += 2) {
                const __mmask16 first = first_lanes(width - tile * 16), second = first_lanes(width - tile * 16 - 16);
                const long p0 = from + block * BLOCK;
                write_points<false>(forms(b, tile, block, kept, (p0 - range) / BLOCK), [&](long p, __m512& low, __m512& high) {
                    const bool inside = p0 + p < n;
                    const float* at = input + (inside ? (p0 + p) / repeat : 0) * width + tile * 16;
                    low = _mm512_maskz_loadu_ps(inside ? first : 0, at);
                    high = _mm512_maskz_loadu_ps(inside ? second : 0, at + 16);
                });
            }
    }

    // a block of outputs of a layer
    template <int N> void outputs(const Layer& layer, long tile, long range, long from, long count) {
        const float* bias = reinterpret_cast<const float*>(packed + layer.bias_at) + tile * 16;
        const u16* weights = reinterpret_cast<const u16*>(packed + layer.forward_at);
        for (int s : layer.sources) weights += net.blocks(s) * tile * TILE;
        std::optional<Saved> kept;
        if (saved && layer.output < 0) kept.emplace(net, saved, layer.out, points, range, n);
        for (long block = 0; block < parts(count, BLOCK); block++) {
            load_sums<2, N>(bias, 0, 16, 0);
            const u16* right = weights;
            for (int s : layer.sources) {
                const long k = net.blocks(s);
                multiply<2, N>(rows[s] + block * 2 * k * TILE, k * TILE, TILE, right, TILE, N * TILE, k);
                right += k * N * TILE;
            }
            float* at = sums + block % 2 * BLOCK * BLOCK;
            store_sums<2, N>(at, 16 * BLOCK, 16, BLOCK * 4);
            if (layer.output >= 0) {
                write_output(layer, tile, at, from + block * BLOCK);
                continue;
            }
            const Forms to = forms(layer.out, tile, block, kept, (from - range) / BLOCK + block);
            const auto row = [&](long p, __m512& low, __m512& high) {
                low = _mm512_load_ps(at + p * BLOCK);
                high = N == 2 ? _mm512_load_ps(at + p * BLOCK + 16) : _mm512_setzero_ps();
            };
            if (layer.relu) write_points<true>(to, row);
            else write_points<false>(to, row);
        }
    }

    void write_output(const Layer& layer, long tile, const float* from, long p0) const {
        const long width = std::min(32L, layer.width - tile * 16);
        for (long p = p0; p < std::min(n, p0 + BLOCK); p++)
            std::memcpy(outs[layer.output] + p * layer.width + tile * 16, from + (p - p0) * BLOCK, width * 4);
    }
};

void forward(const Net& net, const u32* packed, const float* const* inputs, const long* repeats, long n, long points,
             void* const* saved, float* const* outs, int threads) {
    const long ranges = parts(n, points);
    in_threads(threads, [&](int t, int of) {
        const Tiles tiles;
        Forward pass(net, packed, saved, outs, n, points);
        for (long r = ranges * t / of; r < ranges * (t + 1) / of; r++)
            for (long from = r * points; from < std::min(n, (r + 1) * points); from += FORWARD_POINTS)
                pass.run(inputs, repeats, r * points, from, std::min({FORWARD_POINTS, n - from, (r + 1) * points - from}));
        _mm_sfence();  // what was written past the caches is there for every thread
    });
}

// ---------------------------------------------------------------- backward

// Memory that is read soon, brought to the second-level cache a few lines at a time.
struct Ahead {
    const char* at = nullptr;
    long lines = 0;
    Ahead() = default;
    Ahead(const void* from, long bytes) : at(static_cast<const char*>(from)), lines(bytes / 64) {}
    inline void fetch(long n) {
        for (n = std::min(n, lines), lines -= n; n > 0; n--, at += 64) _mm_prefetch(at, _MM_HINT_T1);
    }
};

struct Backward {
    const Net& net;
    const u32* packed;
    void* const* saved;
    const float* const* grads;
    float* const* inputs;
    long n, points;
    Pool<u16> pool;
    std::vector<u16*> pairs;  // gradient of each buffer as pairs of features, while a product reads it
    u16* rows;                // the last gradient as rows of points
    Pool<float> scratch;
    float *sums, *block_sums;
    Ahead activations, accumulated;

    Backward(const Net& m, const u32* w, void* const* s, const float* const* g, float* const* i, long all, long range)
        : net(m), packed(w), saved(s), grads(g), inputs(i), n(all), points(range),
          pool(parts(range, BLOCK) * BLOCK * Forward::widest(m)), pairs(m.n_buffers, nullptr), rows(pool.take()),
          scratch(m.gradient_floats + 2 * BLOCK * BLOCK) {
        sums = scratch.take();
        block_sums = sums + net.gradient_floats;
        std::fill(sums, sums + net.gradient_floats, 0.0f);
    }

    void run(long from) {
        const long blocks = parts(std::min(points, n - from), BLOCK);
        for (int b = net.n_buffers; b-- > 0;) {
            if (!net.reached[b]) continue;
            if (b < net.n_inputs) {
                if (inputs[b]) input_gradient(b, from, blocks);
                continue;
            }
            const Layer& layer = net.layers[b - net.n_inputs];
            pairs[b] = pool.take();
            if (layer.output >= 0) {
                stage(layer, from, blocks);
            } else {
                const Saved kept(net, saved, b, points, from, n);
                const int s = layer.sources[0];
                activations = Ahead(Saved(net, saved, s, points, from, n).factors, net.tiles(s) * blocks * TILE * 2);
                accumulated = Ahead(sums + layer.gradient_at, (layer.bias_gradient_at - layer.gradient_at) * 4);
                for (long tile = 0; tile < net.tiles(b); tile += 2) {
                    if (tile + 1 < net.tiles(b)) gradient<2>(layer, kept, tile, blocks);
                    else gradient<1>(layer, kept, tile, blocks);
                }
            }
            weight_gradients(layer, from, blocks);
            for (int o = b; o < net.n_buffers; o++) give_back(o, b);
        }
        for (int o = net.n_inputs; o < net.n_buffers; o++) give_back(o, 0);
    }

    void give_back(int o, int done) {  // unless a buffer before `done` needs it
        if (!pairs[o]) return;
        for (int s : net.layers[o - net.n_inputs].sources)
            if (s < done && (s >= net.n_inputs || inputs[s])) return;
        pool.give(pairs[o]);
        pairs[o] = nullptr;
    }

    // the gradient of an output from fp32 rows
    void stage(const Layer& layer, long from, long blocks) {
        const float* grad = grads[layer.output];
        const long width = layer.width, tiles = net.tiles(layer.out);
        alignas(64) float block[16 * BLOCK];
        for (long k = 0; k < blocks; k++)
            for (long tile = 0; tile < tiles; tile++) {
                std::fill(block, block + 16 * BLOCK, 0.0f);
                for (long p = 0; p < BLOCK && from + k * BLOCK + p < n; p++)
                    for (long o = tile * 16; o < std::min(width, tile * 16 + 16); o++)
                        block[o % 16 * BLOCK + p] = grad[(from + k * BLOCK + p) * width + o];
                write(layer, tile, k, blocks, block, nullptr);
            }
        clear_odd(layer.out, blocks);
    }

    void write(const Layer& layer, long tile, long k, long blocks, const float* block, const u16* bits) {
        const long across = net.blocks(layer.out) * TILE;
        u16* to = pairs[layer.out] + (k * 2 * net.blocks(layer.out) + tile / 2) * TILE + tile % 2 * (TILE / 2);
        write_features(block, bits, rows + (tile * blocks + k) * TILE, to, across, sums + layer.bias_gradient_at + tile * SUMS);
    }

    void clear_odd(int b, long blocks) {  // the second half of the last tiles, if there is no such half
        if (net.tiles(b) % 2 == 0) return;
        for (long k = 0; k < 2 * blocks; k++)
            std::memset(pairs[b] + ((k + 1) * net.blocks(b)) * TILE - TILE / 2, 0, TILE);
    }

    // sums of the gradient of M tiles of features of a buffer for a block of points
    template <int M> inline void products(int b, long tile, long k, float* to) {
        const u16* left = reinterpret_cast<const u16*>(packed + net.backward_at[b]);
        for (const Use& use : net.uses[b]) left += net.blocks(net.layers[use.layer].out) * tile * TILE;
        zero_sums<M, 2>();
        for (const Use& use : net.uses[b]) {
            const int out = net.layers[use.layer].out;
            const long count = net.blocks(out);
            if (net.reached[out])
                multiply<M, 2>(left, TILE, M * TILE, pairs[out] + k * 2 * count * TILE, count * TILE, TILE, count);
            left += count * M * TILE;
        }
        store_sums<M, 2>(to, 16 * BLOCK, 16, BLOCK * 4);
    }

    template <int M> void gradient(const Layer& layer, const Saved& kept, long tile, long blocks) {
        for (long k = 0; k < blocks; k++) {
            activations.fetch(AHEAD);
            accumulated.fetch(AHEAD);
            float* at = block_sums + k % 2 * BLOCK * BLOCK;
            products<M>(layer.out, tile, k, at);
            for (int h = 0; h < M; h++)
                write(layer, tile + h, k, blocks, at + h * 16 * BLOCK, layer.relu ? kept.mask(tile + h, k) : nullptr);
        }
        if (M == 1) clear_odd(layer.out, blocks);
    }

    void input_gradient(int b, long from, long blocks) {
        const long width = net.widths[b];
        for (long tile = 0; tile < net.tiles(b); tile += 2)
            for (long k = 0; k < blocks; k++) {
                const long count = std::min(2L, net.tiles(b) - tile);
                if (count == 2) products<2>(b, tile, k, block_sums);
                else products<1>(b, tile, k, block_sums);
                for (long h = 0; h < 2 * count; h++) {  // of two tiles of points in each tile of features
                    const long p = from + k * BLOCK + h % 2 * 16, first = (tile + h / 2) * 16;
                    const float* sum = block_sums + h / 2 * 16 * BLOCK + h % 2 * 16;
                    if (p < n) add_transposed(sum, BLOCK, inputs[b] + p * width + first, width, n - p, width - first);
                }
            }
    }

    void weight_gradients(const Layer& layer, long from, long blocks) {
        float* to = sums + layer.gradient_at;
        for (int s : layer.sources) {
            const Saved kept(net, saved, s, points, from, n);
            for (long p = 0; p < blocks; p += SUMMED_POINTS / BLOCK) {
                const long count = std::min(blocks - p, SUMMED_POINTS / BLOCK);
                for (long o = 0; o < net.tiles(layer.out); o += 2)
                    for (long i = 0; i < net.tiles(s); i += 2)
                        sized(std::min(2L, net.tiles(layer.out) - o), std::min(2L, net.tiles(s) - i),
                              WeightBlock{rows + (o * blocks + p) * TILE, kept.tile(i, p), blocks * TILE, count,
                                          to + (o * net.tiles(s) + i) * SUMS, net.tiles(s) * SUMS});
            }
            to += net.tiles(layer.out) * net.tiles(s) * SUMS;
        }
    }

    struct WeightBlock {
        const u16 *left, *right;
        long stride, count;
        float* to;
        long down;
        template <int M, int N> void run() const {
            load_sums<M, N>(to, down, SUMS, 64);
            multiply<M, N>(left, stride, TILE, right, stride, TILE, count);
            store_sums<M, N>(to, down, SUMS, 64);
        }
    };
};

// weights and biases += sums of one thread, for the layers of this thread
void add_gradients(const Net& net, const float* sums, float* const* weights, float* const* biases, size_t first, size_t step) {
    for (size_t l = first; l < net.layers.size(); l += step) {
        const Layer& layer = net.layers[l];
        const float* from = sums + layer.gradient_at;
        for (size_t i = 0; i < layer.sources.size(); i++) {
            const long tiles = net.tiles(layer.sources[i]), width = net.widths[layer.sources[i]];
            for (long o = 0; o < layer.width; o++)
                for (long t = 0; t < tiles; t++) {
                    const float* row = from + (o / 16 * tiles + t) * SUMS + o % 16 * 16;
                    float* to = weights[l] + o * layer.n_in + layer.columns[i] + t * 16;
                    const __mmask16 on = first_lanes(width - t * 16);
                    _mm512_mask_storeu_ps(to, on, _mm512_add_ps(_mm512_maskz_loadu_ps(on, to), _mm512_load_ps(row)));
                }
            from += net.tiles(layer.out) * tiles * SUMS;
        }
        for (long o = 0; o < layer.width; o++)
            biases[l][o] += _mm512_reduce_add_ps(_mm512_load_ps(sums + layer.bias_gradient_at + o * 16));
    }
}

void backward(const Net& net, const u32* packed, void* const* saved, const float* const* grads, long n, long points,
              float* const* weights, float* const* biases, float* const* inputs, int threads) {
    const long ranges = parts(n, points);
    std::vector<std::unique_ptr<Backward>> all(std::max(1, threads));
    in_threads(threads, [&](int t, int of) {
        const Tiles tiles;
        all[t].reset(new Backward(net, packed, saved, grads, inputs, n, points));
        for (long r = ranges * t / of; r < ranges * (t + 1) / of; r++) all[t]->run(r * points);
    });
    in_threads(threads, [&](int t, int of) {
        for (auto& one : all)
            if (one) add_gradients(net, one->sums, weights, biases, t, of);
    });
}

// whether the system lets this process use tiles (Linux: the permission XTILEDATA)
bool permitted() {
    static const bool is = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return is;
}

// status of a function of the interface: 0, or 1 if memory could not be allocated, 2 for other exceptions
template <class Work> int status_of(Work work) noexcept {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    } catch (...) {
        return 2;
    }
}

}  // namespace

// ---------------------------------------------------------------- interface for Python

// Functions return the status of status_of unless described otherwise. cpu_amx.py has checked the plan and the sizes of
// all arrays.

extern "C" {

// whether this process may use tiles; to be called before the others
int amx_available() { return permitted(); }

// units of 4 bytes of a packed network, or -1 if memory could not be allocated
long amx_packed_units(const int* plan) {
    long units = -1;
    status_of([&] { units = Net(plan).packed_units; });
    return units;
}

int amx_pack(const int* plan, const float* const* weights, const float* const* biases, u32* out) {
    return status_of([&] { Net(plan).pack(weights, biases, out); });
}

// points of a range, the unit of work of a thread
long amx_points(long n, int threads) {
    const long ranges = std::max(1L, parts(n, BACKWARD_POINTS * threads)) * threads;
    return std::max(1L, parts(parts(n, ranges), BLOCK)) * BLOCK;
}

// bytes of the saved form of 32 points of each buffer
int amx_saved_bytes(const int* plan, long* bytes) {
    return status_of([&] {
        const Net net(plan);
        for (int b = 0; b < net.n_buffers; b++) bytes[b] = net.saved_bytes(b);
    });
}

// saved: memory of each activation buffer that is not an output, or null to discard activations
int amx_forward(const int* plan, const u32* packed, const float* const* inputs, const long* repeats, long n, long points,
                void* const* saved, float* const* outs, int threads) {
    return status_of([&] { forward(Net(plan), packed, inputs, repeats, n, points, saved, outs, threads); });
}

// adds to weights, biases and (where not null) inputs
int amx_backward(const int* plan, const u32* packed, void* const* saved, const float* const* grads, long n, long points,
                 float* const* weights, float* const* biases, float* const* inputs, int threads) {
    return status_of([&] { backward(Net(plan), packed, saved, grads, n, points, weights, biases, inputs, threads); });
}
}

#else

extern "C" {
int amx_available() { return 0; }
}

#endif
