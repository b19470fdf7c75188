/* device.h on a host: every thread of a group is a fiber, see emulated/machine.cpp. Slow, and strict: what on a GPU would be
 * wrong only now and then is wrong here always, or is an error with a clear message.
 *  - shared memory begins as NaN, and so does what an asynchronous copy will write, until the wait that covers it;
 *  - between two barriers the threads run one after another, in an order that changes from barrier to barrier;
 *  - threads of a warp that wait at different places, or threads of a group at different barriers, are an error;
 *  - so are threads that end without having waited for the kernels before;
 *  - so are unaligned accesses of vectors and matrices, and writes past the shared memory;
 *  - built with the address sanitizer, so is whatever else touches memory that is no tensor's or is past the shared memory. */
#pragma once

#include <math.h>
#include <string.h>

/* Always: what depends on SB_THREADS must not be merged by the linker with another kernel's. */
#define SB_DEVICE inline __attribute__((always_inline))
#define SB_UNROLL
#define SB_NO_UNROLL
#define SB_JOIN(a, b) SB_JOIN_(a, b)
#define SB_JOIN_(a, b) a##b
#define SB_TEXT(a) SB_TEXT_(a)
#define SB_TEXT_(a) #a
/* SB_NAME(grid, shared, arguments): runs the kernel, `arguments` pointing to its parameters, one after another, as the CUDA
 * driver takes them; returns what went wrong, or NULL. */
#define SB_ENTRY(...)                                                                                                   \
    static void SB_JOIN(body_of_, SB_NAME)(__VA_ARGS__);                                                                \
    extern "C" __attribute__((visibility("default"))) const char *SB_NAME(int64_t grid, int64_t shared, void **arguments) { \
        const auto body = [](void **p) { sb::emulated::apply(SB_JOIN(body_of_, SB_NAME), p); };                         \
        return sb::emulated::run({SB_TEXT(SB_NAME), body, SB_THREADS, grid, shared, arguments});                        \
    }                                                                                                                   \
    static void SB_JOIN(body_of_, SB_NAME)(__VA_ARGS__)

namespace sb {
namespace emulated {

struct Launch {
    const char *name;
    void (*body)(void **);
    int threads;
    int64_t grid, shared;
    void **arguments;
};
const char *run(const Launch &launch);

/* Calls a kernel's body with its parameters. */
template <int... I>
struct Numbers {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    typedef Numbers<I...> type;
};
template <class A>
A argument(const void *p) { /* may lie anywhere */
    A a;
    memcpy(&a, p, sizeof(A));
    return a;
}
template <class... A, int... I>
void apply(void (*body)(A...), void **p, Numbers<I...>) {
    body(argument<A>(p[I])...);
}
template <class... A>
void apply(void (*body)(A...), void **p) {
    apply(body, p, typename Count<sizeof...(A)>::type());
}

/* Where in a source a collective stands: what threads that meet there must agree on. */
struct Site {
    const char *file;
    int line;
};
enum Collective { BARRIER, WARP_BARRIER, VOTE, SHUFFLE, LOAD_MATRIX, LOAD_MATRIX_TRANSPOSED, MULTIPLY_HALF, MULTIPLY_BFLOAT16, MULTIPLY_TF32, SIGNAL };

/* What a thread brings to a collective of its warp, and takes from it. */
struct Exchange {
    uint64_t value;  /* vote, shuffle */
    int lane;        /* shuffle: whose value */
    const void *row; /* load_matrix */
    uint32_t *r;
    float *d; /* multiply_add */
    const uint32_t *a, *b;
    void *signal; /* and the parity of its round, `value` */
    bool copies;  /* whether it may stand behind copies of threads */
};
void meet(Collective kind, Site site, Exchange *exchange);
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void copy(void *shared, const void *global, int bytes, bool valid);
void commit();
void wait(int pending);
void await_kernels_before();
int thread();
int64_t group(), groups();
char *shared();

} // namespace emulated

#define SB_HERE                                                                                                         \
    emulated::Site { file, line }
#define SB_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

SB_DEVICE int thread_index() { return emulated::thread(); }
SB_DEVICE int64_t group_index() { return emulated::group(); }
SB_DEVICE int64_t group_count() { return emulated::groups(); }
SB_DEVICE char *shared_memory() { return emulated::shared(); }
SB_DEVICE void await_kernels_before() { emulated::await_kernels_before(); }
SB_DEVICE void await_kernels_before_alone() { emulated::await_kernels_before(); }
SB_DEVICE int32_t load_latest(const int32_t *p) { return *p; }

SB_DEVICE void barrier(SB_SITE) { emulated::meet(emulated::BARRIER, SB_HERE, nullptr); }
SB_DEVICE void memory_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
SB_DEVICE int atomic_add(int *p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }

SB_DEVICE uint32_t vote(bool v, SB_SITE) {
    emulated::Exchange e = {};
    e.value = v;
    emulated::meet(emulated::VOTE, SB_HERE, &e);
    return (uint32_t)e.value;
}
SB_DEVICE void warp_barrier(SB_SITE) {
    emulated::Exchange e = {};
    emulated::meet(emulated::WARP_BARRIER, SB_HERE, &e);
}
template <class T>
SB_DEVICE T shuffle(T v, int lane, SB_SITE) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move at most 8 bytes");
    emulated::Exchange e = {};
    memcpy(&e.value, &v, sizeof(T));
    e.lane = lane;
    emulated::meet(emulated::SHUFFLE, SB_HERE, &e);
    memcpy(&v, &e.value, sizeof(T));
    return v;
}
template <class T>
SB_DEVICE T shuffle_xor(T v, int mask, SB_SITE) {
    return shuffle(v, (thread_index() % 32) ^ mask, file, line);
}
template <class T>
SB_DEVICE T shuffle_up(T v, int delta, SB_SITE) {
    const int lane = thread_index() % 32;
    return shuffle(v, lane < delta ? lane : lane - delta, file, line);
}
SB_DEVICE int bit_count(uint32_t v) { return __builtin_popcount(v); }

template <int BYTES>
SB_DEVICE void copy_async(void *shared, const void *global, bool valid) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    emulated::copy(shared, global, BYTES, valid);
}
SB_DEVICE void commit_copies() { emulated::commit(); }
template <int N>
SB_DEVICE void wait_copies() { emulated::wait(N); }

SB_DEVICE void fetch_line(const void *) {}

SB_DEVICE void load_matrix(uint32_t (&r)[4], const void *row, SB_SITE) {
    emulated::Exchange e = {};
    e.r = r;
    e.row = row;
    emulated::meet(emulated::LOAD_MATRIX, SB_HERE, &e);
}
SB_DEVICE void load_matrix_transposed(uint32_t (&r)[4], const void *row, SB_SITE) {
    emulated::Exchange e = {};
    e.r = r;
    e.row = row;
    emulated::meet(emulated::LOAD_MATRIX_TRANSPOSED, SB_HERE, &e);
}

#define SB_MMA(name, kind)                                                                                              \
    SB_DEVICE void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SB_SITE) {                       \
        emulated::Exchange e = {};                                                                                      \
        e.d = d;                                                                                                        \
        e.a = a;                                                                                                        \
        e.b = b;                                                                                                        \
        emulated::meet(kind, SB_HERE, &e);                                                                              \
    }
SB_MMA(multiply_half, emulated::MULTIPLY_HALF)
SB_MMA(multiply_bfloat16, emulated::MULTIPLY_BFLOAT16)
SB_MMA(multiply_tf32, emulated::MULTIPLY_TF32)
#undef SB_MMA

SB_DEVICE float float_of_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}
SB_DEVICE uint32_t bits_of_float(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}
SB_DEVICE float float_of_half(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x0f800000) return float_of_bits(sign | rest | 0x7f800000);      /* infinity and NaN */
    return float_of_bits(sign | bits_of_float(float_of_bits(rest) * 0x1p112f)); /* exact, also from subnormals */
}
SB_DEVICE uint16_t half_of_float(float v) {
    const uint32_t bits = bits_of_float(v), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7fff);
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
    if (magnitude < 0x38800000) /* subnormal: the sum's last bit is 2^-24 */
        return (uint16_t)(sign | (bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}
SB_DEVICE uint16_t bfloat16_of_float(float v) {
    const uint32_t bits = bits_of_float(v);
    return v != v ? 0x7fff : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
SB_DEVICE uint32_t tf32_of_float(float v) {
    const uint32_t bits = bits_of_float(v);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
}

SB_DEVICE float larger(float a, float b) { return a != a || a > b ? a : b; }
SB_DEVICE uint32_t larger_halves(uint32_t a, uint32_t b) {
    const float low = larger(float_of_half((uint16_t)a), float_of_half((uint16_t)b));
    const float high = larger(float_of_half((uint16_t)(a >> 16)), float_of_half((uint16_t)(b >> 16)));
    return half_of_float(low) | (uint32_t)half_of_float(high) << 16;
}
SB_DEVICE uint32_t larger_bfloat16s(uint32_t a, uint32_t b) {
    const float low = larger(float_of_bits(a << 16), float_of_bits(b << 16));
    const float high = larger(float_of_bits(a & 0xffff0000), float_of_bits(b & 0xffff0000));
    return bfloat16_of_float(low) | (uint32_t)bfloat16_of_float(high) << 16;
}

SB_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
SB_DEVICE float exp(float v) { return ::expf(v); }
SB_DEVICE float expm1(float v) { return ::expm1f(v); }
SB_DEVICE float log(float v) { return ::logf(v); }
SB_DEVICE float log1p(float v) { return ::log1pf(v); }
SB_DEVICE float tanh(float v) { return ::tanhf(v); }
SB_DEVICE float erf(float v) { return ::erff(v); }
SB_DEVICE float erfc(float v) { return ::erfcf(v); }
SB_DEVICE float normal_distribution(float v) { return (float)(0.5 * ::erfc(-0.70710678118654752 * v)); }
SB_DEVICE float sqrt(float v) { return ::sqrtf(v); }
SB_DEVICE double sqrt(double v) { return ::sqrt(v); }
SB_DEVICE float floor(float v) { return ::floorf(v); }
SB_DEVICE int opaque(int v) { return v; }
SB_DEVICE float infinity() { return __builtin_inff(); }

SB_DEVICE void check_aligned(const void *p, int bytes) {
    if ((uint64_t)p % bytes) emulated::fail("%d bytes are read or written at %p, which is not a multiple", bytes, p);
}

} // namespace sb
