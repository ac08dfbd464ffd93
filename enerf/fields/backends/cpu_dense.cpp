// Fused dense networks on a CPU. The reference implementation is dense.bind in dense.py, which defines layers and
// activation buffers.
//
// All layers are evaluated for one tile of points before the next tile, so that the output of a layer is in cache when
// the next layer reads it; bias, ReLU and rounding are applied while the sums are in registers. In the backward pass,
// mask, gradient of the inputs and gradient of the weights are computed tile by tile as well.
//
// All three products (outputs, gradient of the inputs, gradient of the weights) use one micro kernel: an R × (NC · VL)
// block of sums in registers, R numbers broadcast against NC vectors of a packed panel. It works on units of 32 bits:
// one float, or a pair of bf16 along the summed axis, which AVX-512 multiplies and adds into one fp32 sum
// (vdpbf16ps). Only the factors are bf16.
//
// It is limited by arithmetic. Two Zen 4 cores reach 346 GFLOP/s in a whole training step of fern.txt in bf16 and 178
// in fp32, 88 % of what torch.mm reaches there with large matrices (392 and 203), which is about their peak
// (benchmarks/step.py). The kernel takes 95 % of the step; one thread alone runs the backward pass at 190 GFLOP/s of
// about 220. The rest is spent on moving the sums of weight gradients through the second-level cache once per tile,
// packing pairs of points, masks, sums of bias gradients, and writing the activations for the backward pass.
//
// The order of every sum is fixed for a given number of threads: each thread has one contiguous range of points, and
// the weight gradients of the ranges are added in order. Two runs agree bit for bit.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VL = 16, R = 8;
#else
constexpr int VL = 8, R = 6;
#endif
constexpr int NC = 2, WIDE = NC * VL;          // columns of a panel
constexpr long FORWARD_TILE = 12 * R, BACKWARD_TILE = 48 * R;  // points
typedef float Vec __attribute__((vector_size(4 * VL), aligned(4)));
typedef uint32_t u32;
typedef uint16_t u16;

inline long padded(long n, long to) { return (n + to - 1) / to * to; }

inline u16 to_bf16(float x) {  // round to nearest, ties to even; infinities and NaN are kept
    u32 bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return u16(bits >> 16 | 0x40);
    return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline Vec broadcast(u32 unit) {
    float x;
    std::memcpy(&x, &unit, 4);
    return x - Vec{};
}

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

// ---------------------------------------------------------------- factors in fp32 and bf16

struct Fp32 {
    typedef float E;
    static constexpr int PER = 1;  // elements per unit
    static inline E make(float x) { return x; }
    static inline void line(const float* x, long width, long stride, E* to) {
        std::copy(x, x + width, to);
        std::fill(to + width, to + stride, 0.0f);
    }
    static inline void fma(Vec& sum, u32 a, const u32* b) { sum += broadcast(a) * load(reinterpret_cast<const float*>(b)); }
    static inline Vec read(const E* p) { return load(p); }
    template <int N> static inline void write(E* p, const Vec* v) {
        for (int c = 0; c < N; c++) store(p + c * VL, v[c]);
    }
    static inline void mask(E* g, const E* y, long n) {
        for (long i = 0; i < n; i++) g[i] = y[i] <= 0 ? 0.0f : g[i];
    }
    // pack a panel of WIDE columns: one row per point
    static inline void panel(const E* x, long stride, long points, u32* out) {
        for (long p = 0; p < points; p++) std::memcpy(out + p * WIDE, x + p * stride, WIDE * 4);
    }
};

#if HAS_BF16
struct Bf16 {
    typedef u16 E;
    static constexpr int PER = 2;
    static inline E make(float x) { return to_bf16(x); }
    static inline void line(const float* x, long width, long stride, E* to) {  // stride is a multiple of 32
        for (long i = 0; i < stride; i += VL) {
            __mmask16 on = i >= width ? 0 : width - i >= VL ? 0xffff : (1u << (width - i)) - 1;
            _mm256_storeu_si256((__m256i*)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(on, x + i)));
        }
    }
    static inline void fma(Vec& sum, u32 a, const u32* b) {
        sum = (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)_mm512_loadu_si512(b));
    }
    static inline Vec read(const E* p) {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
        return (Vec)_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    template <int N> static inline void write(E* p, const Vec* v) {
        if constexpr (N == 2)
            _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0]));
        else
            for (int c = 0; c < N; c++) _mm256_storeu_si256((__m256i*)(p + c * VL), (__m256i)_mm512_cvtneps_pbh((__m512)v[c]));
    }
    static inline void mask(E* g, const E* y, long n) {  // n is a multiple of 16
        const __m256i magnitude = _mm256_set1_epi16(0x7fff);
        for (long i = 0; i < n; i += 16) {
            __mmask16 on = _mm256_test_epi16_mask(_mm256_loadu_si256((const __m256i*)(y + i)), magnitude);
            _mm256_storeu_si256((__m256i*)(g + i), _mm256_maskz_loadu_epi16(on, g + i));
        }
    }
    // pack a panel of WIDE columns: one row per pair of consecutive points
    static inline void panel(const E* x, long stride, long points, u32* out) {
        alignas(64) static const u16 LOW[32] = {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
                                                8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
        const __m512i low = _mm512_load_si512(LOW), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
        for (long p = 0; p < points; p += 2, out += WIDE) {
            __m512i a = _mm512_loadu_si512(x + p * stride), b = _mm512_loadu_si512(x + (p + 1) * stride);
            _mm512_storeu_si512(out, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(out + VL, _mm512_permutex2var_epi16(a, high, b));
        }
    }
};
#endif

// ---------------------------------------------------------------- the micro kernel

// sums[r][c] += Σ_k unit(a, r, k) · panel(k, c)
template <class P, int N> inline void multiply(Vec (&sums)[R][N], const u32* a, long row, long step, const u32* b, long units) {
    for (long k = 0; k < units; k++, a += step, b += N * VL) {
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < N; c++) P::fma(sums[r][c], a[r * row], b + c * VL);
    }
}

// ---------------------------------------------------------------- networks

struct Layer {
    std::vector<int> sources;
    int out, width, relu, output;  // out: its buffer; output: index in the returned values, or -1
    long forward_at, backward_at, bias_at, gradient_at, bias_gradient_at;
};

template <class P> struct Net {
    int n_inputs, n_buffers;
    std::vector<int> widths;
    std::vector<long> strides;  // elements from one point to the next, a multiple of WIDE
    std::vector<Layer> layers;
    long packed_units = 0, gradient_floats = 0;

    long units(int buffer) const { return (widths[buffer] + P::PER - 1) / P::PER; }
    long unit_stride(int buffer) const { return strides[buffer] / P::PER; }

    // plan: n_inputs, n_layers, widths of all buffers, then for each layer: number of sources, sources, ReLU, output
    explicit Net(const int* plan) {
        n_inputs = *plan++;
        int n_layers = *plan++;
        n_buffers = n_inputs + n_layers;
        widths.assign(plan, plan + n_buffers);
        plan += n_buffers;
        for (int w : widths) strides.push_back(padded(w, WIDE));
        for (int l = 0; l < n_layers; l++) {
            Layer layer;
            int n_sources = *plan++;
            layer.sources.assign(plan, plan + n_sources);
            plan += n_sources;
            layer.relu = *plan++;
            layer.output = *plan++;
            layer.out = n_inputs + l;
            layer.width = widths[layer.out];
            layer.forward_at = packed_units;
            for (int s : layer.sources) packed_units += units(s) * padded(layer.width, VL);
            layer.backward_at = packed_units;
            for (int s : layer.sources) packed_units += units(layer.out) * padded(widths[s], VL);
            layer.bias_at = packed_units;
            packed_units += padded(layer.width, WIDE);
            layer.gradient_at = gradient_floats;
            for (int s : layer.sources) gradient_floats += padded(layer.width, R) * strides[s];
            layer.bias_gradient_at = gradient_floats;
            gradient_floats += strides[layer.out];
            layers.push_back(layer);
        }
    }

    // pack a matrix m(k, c) with `rows` rows k: panels of WIDE columns, and a last one of VL columns where that is enough
    template <class M> u32* pack_panels(u32* out, long rows, long columns, M m) const {
        for (long c0 = 0; c0 < padded(columns, VL);) {
            long n = padded(columns, VL) - c0 >= WIDE ? WIDE : VL;
            for (long k = 0; k < rows; k += P::PER)
                for (long c = c0; c < c0 + n; c++, out++) {
                    typename P::E pair[P::PER];
                    for (int i = 0; i < P::PER; i++) pair[i] = P::make(k + i < rows && c < columns ? m(k + i, c) : 0.0f);
                    std::memcpy(out, pair, 4);
                }
            c0 += n;
        }
        return out;
    }

    void pack(const float* const* weights, const float* const* biases, u32* out) const {
        for (size_t l = 0; l < layers.size(); l++) {
            const Layer& layer = layers[l];
            long n_in = 0, first = 0;
            for (int s : layer.sources) n_in += widths[s];
            u32 *forward = out + layer.forward_at, *backward = out + layer.backward_at;
            for (int s : layer.sources) {
                const float* w = weights[l] + first;
                forward = pack_panels(forward, widths[s], layer.width, [&](long k, long c) { return w[c * n_in + k]; });
                backward = pack_panels(backward, layer.width, widths[s], [&](long k, long c) { return w[k * n_in + c]; });
                first += widths[s];
            }
            float* bias = reinterpret_cast<float*>(out + layer.bias_at);
            std::fill(bias, bias + padded(layer.width, WIDE), 0.0f);
            std::copy(biases[l], biases[l] + layer.width, bias);
        }
    }
};

// convert fp32 rows to padded rows of factors; `repeat` points share a row; points from `rows` on are zero
template <class P> void stage(const float* from, long width, long first, long rows, long all, long repeat, long stride, typename P::E* to) {
    long row = first / repeat, left = repeat - first % repeat;  // remaining points that share this row
    for (long p = 0; p < all; p++, to += stride) {
        P::line(from + row * width, p < rows ? width : 0, stride, to);
        if (--left == 0) row++, left = repeat;
    }
}

// outputs of a layer for one panel of columns and `rows` points
template <class P, int N>
void forward_block(const Net<P>& net, const Layer& layer, const u32* const* panels, long column, long points, long rows,
                   typename P::E* const* buffers, const float* bias, float* out) {
    for (long p = 0; p < points; p += R) {
        Vec sums[R][N];
        for (int r = 0; r < R; r++)
            for (int c = 0; c < N; c++) sums[r][c] = load(bias + column + c * VL);
        for (size_t i = 0; i < layer.sources.size(); i++) {
            int s = layer.sources[i];
            const u32* a = reinterpret_cast<const u32*>(buffers[s] + p * net.strides[s]);
            multiply<P, N>(sums, a, net.unit_stride(s), 1, panels[i], net.units(s));
        }
        for (int r = 0; r < R; r++) {
            if (layer.relu)
                for (int c = 0; c < N; c++) sums[r][c] = sums[r][c] < 0 ? Vec{} : sums[r][c];  // keeps NaN
            if (layer.output < 0) {
                P::template write<N>(buffers[layer.out] + (p + r) * net.strides[layer.out] + column, sums[r]);
            } else if (p + r < rows) {
                float line[N * VL];
                for (int c = 0; c < N; c++) store(line + c * VL, sums[r][c]);
                long n = std::min<long>(N * VL, layer.width - column);
                std::memcpy(out + (p + r) * layer.width + column, line, n * 4);
            }
        }
    }
}

template <class P> void clear_padding(const Net<P>& net, int buffer, long points, typename P::E* at) {
    long from = padded(net.widths[buffer], VL), n = net.strides[buffer] - from;
    for (long p = 0; n && p < points; p++) std::memset(at + p * net.strides[buffer] + from, 0, n * sizeof(typename P::E));
}

template <class P>
void forward_layer(const Net<P>& net, const Layer& layer, const u32* packed, long points, long rows, typename P::E* const* buffers, float* out) {
    const float* bias = reinterpret_cast<const float*>(packed + layer.bias_at);
    std::vector<const u32*> panels;
    const u32* at = packed + layer.forward_at;
    for (int s : layer.sources) {
        panels.push_back(at);
        at += net.units(s) * padded(layer.width, VL);
    }
    for (long column = 0; column < padded(layer.width, VL);) {
        bool wide = padded(layer.width, VL) - column >= WIDE;
        if (wide)
            forward_block<P, NC>(net, layer, panels.data(), column, points, rows, buffers, bias, out);
        else
            forward_block<P, 1>(net, layer, panels.data(), column, points, rows, buffers, bias, out);
        long n = wide ? WIDE : VL;
        for (size_t i = 0; i < panels.size(); i++) panels[i] += net.units(layer.sources[i]) * n;
        column += n;
    }
    if (layer.output < 0) clear_padding(net, layer.out, points, buffers[layer.out]);
}

// range of points of thread t of `threads`, a multiple of R
inline void range(long n, int t, int threads, long& from, long& to) {
    long blocks = (n + R - 1) / R;
    from = std::min(n, blocks * t / threads * R);
    to = std::min(n, blocks * (t + 1) / threads * R);
}

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

template <class P>
void forward(const Net<P>& net, const u32* packed, const float* const* inputs, const long* repeats, long n,
             typename P::E* const* saved, float* const* outs, int threads) {
    in_threads(threads, [&](int t, int of) {
        typedef typename P::E E;
        long from, to;
        range(n, t, of, from, to);
        std::vector<E*> buffers(net.n_buffers);
        std::vector<std::unique_ptr<E[]>> own;
        for (int s = 0; !saved && s < net.n_buffers; s++) {
            own.emplace_back(new E[FORWARD_TILE * net.strides[s]]);
            buffers[s] = own.back().get();
        }
        for (long p = from; p < to; p += FORWARD_TILE) {
            long rows = std::min(FORWARD_TILE, to - p), points = padded(rows, R);
            for (int s = 0; saved && s < net.n_buffers; s++) buffers[s] = saved[s] ? saved[s] + p * net.strides[s] : nullptr;
            for (int s = 0; s < net.n_inputs; s++)
                stage<P>(inputs[s], net.widths[s], p, rows, points, repeats[s], net.strides[s], buffers[s]);
            for (const Layer& layer : net.layers)
                forward_layer(net, layer, packed, points, rows, buffers.data(),
                              layer.output < 0 ? nullptr : outs[layer.output] + p * layer.width);
        }
    });
}

// ---------------------------------------------------------------- backward

// gradient of a source: G[source] (+)= G[out] · W; of an input: added to its fp32 gradient
template <class P, int N>
void input_block(const Net<P>& net, const Layer& layer, int s, const u32* panel, long column, long points, long rows,
                 const typename P::E* from, typename P::E* to, bool add, float* input) {
    for (long p = 0; p < points; p += R) {
        Vec sums[R][N];
        for (int r = 0; r < R; r++)
            for (int c = 0; c < N; c++) sums[r][c] = add ? P::read(to + (p + r) * net.strides[s] + column + c * VL) : Vec{};
        const u32* a = reinterpret_cast<const u32*>(from + p * net.strides[layer.out]);
        multiply<P, N>(sums, a, net.unit_stride(layer.out), 1, panel, net.units(layer.out));
        for (int r = 0; r < R; r++) {
            if (!input) {
                P::template write<N>(to + (p + r) * net.strides[s] + column, sums[r]);
            } else if (p + r < rows) {
                float line[N * VL];
                for (int c = 0; c < N; c++) store(line + c * VL, sums[r][c]);
                long n = std::min<long>(N * VL, net.widths[s] - column);
                for (long i = 0; i < n; i++) input[(p + r) * net.widths[s] + column + i] += line[i];
            }
        }
    }
}

template <class P>
void input_gradient(const Net<P>& net, const Layer& layer, int s, const u32* panel, long points, long rows,
                    const typename P::E* from, typename P::E* to, bool add, float* input) {
    for (long column = 0; column < padded(net.widths[s], VL);) {
        bool wide = padded(net.widths[s], VL) - column >= WIDE;
        if (wide)
            input_block<P, NC>(net, layer, s, panel, column, points, rows, from, to, add, input);
        else
            input_block<P, 1>(net, layer, s, panel, column, points, rows, from, to, add, input);
        long n = wide ? WIDE : VL;
        panel += net.units(layer.out) * n;
        column += n;
    }
    if (!input) clear_padding(net, s, points, to);
}

// gradient of the weights of one source: dW[o][i] += Σ_p dZ[p][o] · x[p][i]
template <class P>
void weight_gradient(const Net<P>& net, const Layer& layer, int s, long points, const u32* dz, long dz_step,
                     const typename P::E* x, u32* panel, float* gradient) {
    for (long column = 0; column < net.strides[s]; column += WIDE) {
        P::panel(x + column, net.strides[s], points, panel);
        for (long o = 0; o < layer.width; o += R) {
            Vec sums[R][NC];
            float* at = gradient + o * net.strides[s] + column;
            for (int r = 0; r < R; r++)
                for (int c = 0; c < NC; c++) sums[r][c] = load(at + r * net.strides[s] + c * VL);
            multiply<P, NC>(sums, dz + o, 1, dz_step, panel, points / P::PER);
            for (int r = 0; r < R; r++)
                for (int c = 0; c < NC; c++) store(at + r * net.strides[s] + c * VL, sums[r][c]);
        }
    }
}

template <class P> struct Backward {
    typedef typename P::E E;
    const Net<P>& net;
    std::vector<E*> gradient;               // of activation buffers, from first write to last read
    std::vector<std::unique_ptr<E[]>> own;  // memory of the gradients
    std::vector<E*> spare;  // unused memory
    std::unique_ptr<u32[]> panel, pairs;
    std::vector<float> sums;

    explicit Backward(const Net<P>& n) : net(n), gradient(n.n_buffers, nullptr), sums(n.gradient_floats, 0.0f) {
        panel.reset(new u32[BACKWARD_TILE * WIDE]);
        pairs.reset(new u32[BACKWARD_TILE * widest() + WIDE]());
    }
    long widest() const { return *std::max_element(net.strides.begin(), net.strides.end()); }
    E* take() {
        if (spare.empty()) {
            own.emplace_back(new E[BACKWARD_TILE * widest() + R]);  // weight_gradient reads R columns at a time
            spare.push_back(own.back().get());
        }
        E* buffer = spare.back();
        spare.pop_back();
        return buffer;
    }

    void tile(const u32* packed, E* const* saved, const float* const* grads, float* const* inputs, long p, long rows) {
        long points = padded(rows, R);
        for (size_t l = net.layers.size(); l-- > 0;) {
            const Layer& layer = net.layers[l];
            int o = layer.out;
            if (layer.output >= 0) {
                gradient[o] = take();
                stage<P>(grads[layer.output], layer.width, p, rows, points, 1, net.strides[o], gradient[o]);
            } else if (!gradient[o]) {
                continue;  // no layer reads it
            }
            E* g = gradient[o];
            if (layer.relu) P::mask(g, saved[o] + p * net.strides[o], points * net.strides[o]);
            add_bias_gradient(layer, g, points);
            add_weight_gradients(layer, g, saved, p, points);
            const u32* panels = packed + layer.backward_at;
            for (int s : layer.sources) {
                bool is_input = s < net.n_inputs;
                if (!is_input || inputs[s]) {
                    bool add = !is_input && gradient[s];
                    if (!is_input && !add) gradient[s] = take();
                    input_gradient(net, layer, s, panels, points, rows, g, gradient[s], add,
                                   is_input ? inputs[s] + p * net.widths[s] : nullptr);
                }
                panels += net.units(o) * padded(net.widths[s], VL);
            }
            spare.push_back(g);
            gradient[o] = nullptr;
        }
    }

    void add_bias_gradient(const Layer& layer, const E* g, long points) {
        long stride = net.strides[layer.out];
        for (long c = 0; c < padded(layer.width, VL); c += VL) {
            float* at = sums.data() + layer.bias_gradient_at + c;
            Vec sum = load(at), other{};
            for (long p = 0; p < points; p += 2) {
                sum += P::read(g + p * stride + c);
                other += P::read(g + (p + 1) * stride + c);
            }
            store(at, sum + other);
        }
    }

    void add_weight_gradients(const Layer& layer, const E* g, E* const* saved, long p, long points) {
        long stride = net.strides[layer.out];
        const u32* dz = reinterpret_cast<const u32*>(g);
        if (P::PER == 2) {
            std::vector<u32>& lines = line_buffer;
            lines.resize(BACKWARD_TILE * WIDE);
            for (long c = 0; c < stride; c += WIDE) {
                P::panel(g + c, stride, points, lines.data());
                for (long k = 0; k < points / 2; k++) std::memcpy(pairs.get() + k * stride + c, lines.data() + k * WIDE, WIDE * 4);
            }
            dz = pairs.get();
        }
        float* at = sums.data() + layer.gradient_at;
        for (int s : layer.sources) {
            weight_gradient(net, layer, s, points, dz, stride, saved[s] + p * net.strides[s], panel.get(), at);
            at += padded(layer.width, R) * net.strides[s];
        }
    }
    std::vector<u32> line_buffer;
};

template <class P>
void backward(const Net<P>& net, const u32* packed, typename P::E* const* saved, const float* const* grads, long n,
              float* const* weights, float* const* biases, float* const* inputs, int threads) {
    std::vector<std::unique_ptr<Backward<P>>> parts(std::max(1, threads));
    in_threads(threads, [&](int t, int of) {
        long from, to;
        range(n, t, of, from, to);
        parts[t].reset(new Backward<P>(net));
        for (long p = from; p < to; p += BACKWARD_TILE)
            parts[t]->tile(packed, saved, grads, inputs, p, std::min(BACKWARD_TILE, to - p));
    });
    for (size_t l = 0; l < net.layers.size(); l++) {
        const Layer& layer = net.layers[l];
        long n_in = 0, first = 0, at = layer.gradient_at;
        for (int s : layer.sources) n_in += net.widths[s];
        for (int s : layer.sources) {
            for (auto& part : parts)
                for (long o = 0; part && o < layer.width; o++)
                    for (long i = 0; i < net.widths[s]; i++)
                        weights[l][o * n_in + first + i] += part->sums[at + o * net.strides[s] + i];
            at += padded(layer.width, R) * net.strides[s];
            first += net.widths[s];
        }
        for (auto& part : parts)
            for (long o = 0; part && o < layer.width; o++) biases[l][o] += part->sums[layer.bias_gradient_at + o];
    }
}

template <class P>
void run_forward(const int* plan, const u32* packed, const float* const* inputs, const long* repeats, long n, void* const* saved,
                 float* const* outs, int threads) {
    forward(Net<P>(plan), packed, inputs, repeats, n, reinterpret_cast<typename P::E* const*>(saved), outs, threads);
}

}  // namespace

// ---------------------------------------------------------------- interface for Python; low: bf16 factors

// Functions return the status of status_of unless described otherwise. cpu_dense.py has checked the plan and the sizes of
// all arrays.

extern "C" {

int dense_has_bf16() { return HAS_BF16; }
int dense_rows() { return R; }
int dense_panel() { return WIDE; }

// units of a packed network, or -1 if memory could not be allocated
long dense_packed_units(const int* plan, int low) {
    long units = -1;
    status_of([&] {
#if HAS_BF16
        if (low) return void(units = Net<Bf16>(plan).packed_units);
#endif
        units = Net<Fp32>(plan).packed_units;
    });
    return units;
}

int dense_pack(const int* plan, int low, const float* const* weights, const float* const* biases, u32* out) {
    return status_of([&] {
#if HAS_BF16
        if (low) return Net<Bf16>(plan).pack(weights, biases, out);
#endif
        Net<Fp32>(plan).pack(weights, biases, out);
    });
}

// saved: memory of each activation buffer that is not an output (n rounded up to a multiple of dense_rows(), widths to
// one of dense_panel()), or null to discard activations
int dense_forward(const int* plan, int low, const u32* packed, const float* const* inputs, const long* repeats, long n,
                  void* const* saved, float* const* outs, int threads) {
    return status_of([&] {
#if HAS_BF16
        if (low) return run_forward<Bf16>(plan, packed, inputs, repeats, n, saved, outs, threads);
#endif
        run_forward<Fp32>(plan, packed, inputs, repeats, n, saved, outs, threads);
    });
}

// adds to weights, biases and (where not null) inputs
int dense_backward(const int* plan, int low, const u32* packed, void* const* saved, const float* const* grads, long n,
                   float* const* weights, float* const* biases, float* const* inputs, int threads) {
    return status_of([&] {
#if HAS_BF16
        if (low) {
            auto activations = reinterpret_cast<u16* const*>(saved);
            return backward(Net<Bf16>(plan), packed, activations, grads, n, weights, biases, inputs, threads);
        }
#endif
        auto activations = reinterpret_cast<float* const*>(saved);
        backward(Net<Fp32>(plan), packed, activations, grads, n, weights, biases, inputs, threads);
    });
}
}
