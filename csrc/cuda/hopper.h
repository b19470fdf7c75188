/* What device.h has not, for Hopper alone (sm_90a): signals, copies of boxes, products of a warpgroup. */
#pragma once

#include "device.h"

#ifdef SB_EMULATED
#include "emulated/hopper.h"
#else

#define SB_CONSTANT const __grid_constant__ /* a parameter that copy_box may read */

namespace sb {

/* A tensor in memory and the size of its boxes: what cuTensorMapEncodeTiled makes. */
struct alignas(64) TensorMap {
    uint64_t words[16];
};

/* Begins to read what copy_box will need of it. */
SB_DEVICE void prefetch(const TensorMap &map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

/* A place in shared memory, which 32 bits are enough for. */
typedef uint32_t SharedAddress;
SB_DEVICE SharedAddress shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* A signal counts, in shared memory, arrivals and bytes; each time that all have come a new round begins. */
constexpr int SIGNAL = 8; /* bytes */
SB_DEVICE void prepare(SharedAddress signal, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(signal), "r"(arrivals) : "memory");
}
/* Shows them to copies; a barrier shows them to the other threads. */
SB_DEVICE void signals_are_prepared() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
SB_DEVICE void arrive(SharedAddress signal) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(signal) : "memory"); }
/* The round ends no sooner than so many bytes were copied. */
SB_DEVICE void arrive_and_expect(SharedAddress signal, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(signal), "r"(bytes) : "memory");
}
/* Arrives by itself, when all that this thread copied so far by copy_async has come. */
SB_DEVICE void arrive_when_copied(SharedAddress signal) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(signal) : "memory");
}
/* Until the last round of this parity, 0 or 1, has ended; the round before the first has parity 1. */
SB_DEVICE void wait(SharedAddress signal, int parity) {
    /* A loop that the compiler does not see: threads that wait do not part. */
    asm volatile("{ .reg .pred ended;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
                 "@ended bra over;\n"
                 "bra again;\n"
                 "over: }" ::"r"(signal),
                 "r"(parity)
                 : "memory");
}
/* The same, where products read what copy_async brought. */
SB_DEVICE void wait_for_copies(SharedAddress signal, int parity) {
    wait(signal, parity);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Copies the box from element (c, x, y, n) on, zeros outside of the tensor, rows of 128 bytes swizzled as matrices want them. */
SB_DEVICE void copy_box(SharedAddress to, const TensorMap &map, SharedAddress signal, int c, int x, int y, int n) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
                 "l"(&map), "r"(signal), "r"(c), "r"(x), "r"(y), "r"(n)
                 : "memory");
}
template <int BYTES>
SB_DEVICE void copy_async(SharedAddress to, const void *global, bool valid) {
    static_assert(BYTES == 16, "a row is copied by 16 bytes");
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? BYTES : 0) : "memory");
}

/* Rows of 128 bytes in shared memory, eight close together and then the next eight `group_bytes` further; the swizzle
 * repeats from multiples of 1024 bytes on. */
struct Matrix {
    uint32_t low, high;

    SB_DEVICE uint64_t bits() const { return (uint64_t)high << 32 | low; }
};
SB_DEVICE Matrix matrix(SharedAddress rows, int group_bytes) {
    return {(rows & 0x3ffff) >> 4 | 1u << 16, (uint32_t)group_bytes >> 4 | 1u << 30};
}
SB_DEVICE Matrix ahead(Matrix m, int bytes) { return {m.low + (bytes >> 4), m.high}; }

/* Products of a warpgroup run by themselves from their beginning until the wait for their group; nobody touches the sums in between. */
SB_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
SB_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until all but the last GROUPS that were committed have ended. */
template <int GROUPS>
SB_DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory"); }
/* The compiler moves no access of the sums across: before the first product, and when the last has ended. */
template <int N>
SB_DEVICE void hold(float (&sums)[N][4]) {
    SB_UNROLL
    for (int k = 0; k < N; ++k)
        SB_UNROLL
        for (int r = 0; r < 4; ++r) asm volatile("" : "+f"(sums[k][r])::"memory");
}

#define SB_SUMS1(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SB_SUMS4(i) SB_SUMS1(i), SB_SUMS1(i + 1), SB_SUMS1(i + 2), SB_SUMS1(i + 3)

/* d += a b of 64 x 16 and 16 x N elements, rows of a and columns of b in shared memory. Of every 16 rows a warp has those that
 * multiply_add gives its lanes, and of every eight columns the same two. */
#define SB_WGMMA64(T, type)                                                                                            \
    SB_DEVICE void multiply_add(float (&d)[8][4], Matrix a, Matrix b, T) {                                             \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                                  \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                          \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"                  \
                     "}, %32, %33, 1, 1, 1, 0, 0;"                                                                     \
                     : SB_SUMS4(0), SB_SUMS4(4)                                                                        \
                     : "l"(a.bits()), "l"(b.bits()));                                                                      \
    }
SB_WGMMA64(half, "f16")
SB_WGMMA64(bfloat16, "bf16")
#undef SB_WGMMA64
#define SB_WGMMA128(T, type)                                                                                           \
    SB_DEVICE void multiply_add(float (&d)[16][4], Matrix a, Matrix b, T) {                                            \
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                                 \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                          \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                \
                     "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                \
                     "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"                  \
                     "}, %64, %65, 1, 1, 1, 0, 0;"                                                                     \
                     : SB_SUMS4(0), SB_SUMS4(4), SB_SUMS4(8), SB_SUMS4(12)                                             \
                     : "l"(a.bits()), "l"(b.bits()));                                                                      \
    }
SB_WGMMA128(half, "f16")
SB_WGMMA128(bfloat16, "bf16")
#undef SB_WGMMA128
#undef SB_SUMS4
#undef SB_SUMS1

/* Registers of the threads of a warpgroup, from now on. */
template <int REGISTERS>
SB_DEVICE void give_registers_back() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }
template <int REGISTERS>
SB_DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }

} // namespace sb

#endif
