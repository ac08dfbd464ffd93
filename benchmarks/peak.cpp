// Arithmetic peak of this processor: a loop of multiply-and-add instructions on registers, without memory accesses.

#include <algorithm>
#include <chrono>
#include <cstdint>
#ifdef _OPENMP
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AMX_TILE__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_AMX 1
#else
#define HAS_AMX 0
#endif

namespace {

constexpr long TIMES = 2000000;  // rounds of the loop

#if HAS_AMX
struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const TileConfig CONFIG;

long tiles() {  // floating-point operations of the loop
    _tile_loadconfig(&CONFIG);
    for (long i = 0; i < TIMES / 4; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return TIMES / 4 * 4 * 16 * 16 * 32 * 2;
}
#endif

// twelve independent sums of one instruction
#define SUMS_LOOP(NAME, VECTOR, ZERO, INSTRUCTION, OPERATIONS)                                                        \
    long NAME() {                                                                                                     \
        VECTOR s[12], x = ZERO;                                                                                       \
        for (VECTOR& each : s) each = x;                                                                              \
        for (long i = 0; i < TIMES; i++)                                                                              \
            asm volatile(INSTRUCTION " %12, %12, %0\n" INSTRUCTION " %12, %12, %1\n" INSTRUCTION " %12, %12, %2\n"     \
                         INSTRUCTION " %12, %12, %3\n" INSTRUCTION " %12, %12, %4\n" INSTRUCTION " %12, %12, %5\n"     \
                         INSTRUCTION " %12, %12, %6\n" INSTRUCTION " %12, %12, %7\n" INSTRUCTION " %12, %12, %8\n"     \
                         INSTRUCTION " %12, %12, %9\n" INSTRUCTION " %12, %12, %10\n" INSTRUCTION " %12, %12, %11\n"   \
                         : "+v"(s[0]), "+v"(s[1]), "+v"(s[2]), "+v"(s[3]), "+v"(s[4]), "+v"(s[5]), "+v"(s[6]),        \
                           "+v"(s[7]), "+v"(s[8]), "+v"(s[9]), "+v"(s[10]), "+v"(s[11])                               \
                         : "v"(x));                                                                                   \
        return TIMES * 12 * OPERATIONS;                                                                               \
    }

#if defined(__AVX512BF16__)
SUMS_LOOP(pairs, __m512, _mm512_setzero_ps(), "vdpbf16ps", 64)
#endif
#if defined(__AVX512F__)
SUMS_LOOP(products, __m512, _mm512_setzero_ps(), "vfmadd231ps", 32)
#elif defined(__FMA__)
SUMS_LOOP(products, __m256, _mm256_setzero_ps(), "vfmadd231ps", 16)
#endif

// operations per second of all threads together, the fastest of several tries
double fastest(long (*loop)(), int threads) {
    double best = 0;
    for (int turn = 0; turn < 5; turn++) {
        long operations = 0;
        const auto began = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
        operations += loop();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
        best = std::max(best, operations / seconds);
    }
    return best;
}

}  // namespace

extern "C" {

// operations per second of an instruction: 0 FMA in fp32, 1 vdpbf16ps, 2 tdpbf16ps; 0 where it does not exist
double peak_of(int instruction, int threads) {
#if HAS_AMX
    if (instruction == 2 && syscall(SYS_arch_prctl, 0x1023, 18) == 0) return fastest(tiles, threads);
#endif
#if defined(__AVX512BF16__)
    if (instruction == 1) return fastest(pairs, threads);
#endif
#if defined(__AVX512F__) || defined(__FMA__)
    if (instruction == 0) return fastest(products, threads);
#endif
    return 0;
}
}
