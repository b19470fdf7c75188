/* device.h on CUDA, sm_80 and up. No header of the toolkit is needed, so the compiler at run time starts at once. */
#pragma once

#define SB_DEVICE __device__ __forceinline__
#define SB_UNROLL _Pragma("unroll")     /* for arrays that are to stay in registers */
#define SB_NO_UNROLL _Pragma("unroll 1") /* for long code, where registers are short */
#define SB_ENTRY(...) extern "C" __global__ void __launch_bounds__(SB_THREADS, SB_GROUPS_PER_SM) SB_NAME(__VA_ARGS__)

namespace sb {

SB_DEVICE int thread_index() { return (int)threadIdx.x; }
SB_DEVICE int64_t group_index() { return blockIdx.x; }
SB_DEVICE int64_t group_count() { return gridDim.x; }

/* Until the kernels launched before on this stream have ended and what they wrote is seen: every thread says it before it touches what
 * they write or read. From here on the next kernel may begin as well, as far as its own wait. Before sm_90 kernels never overlap. */
SB_DEVICE void await_kernels_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The same, but the next kernel begins only when this one has ended. So it, and all after it, may read what this one writes before they
 * wait, by load_latest. */
SB_DEVICE void await_kernels_before_alone() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* Read from where all multiprocessors see it, not from what this one may remember. */
SB_DEVICE int32_t load_latest(const int32_t *p) {
    int32_t v;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

/* All threads of the group. */
SB_DEVICE void barrier() { __syncthreads(); }
SB_DEVICE void memory_fence() { __threadfence(); }
SB_DEVICE int atomic_add(int *p, int v) { return atomicAdd(p, v); }

/* The dynamic shared memory of the group, at a multiple of 1024 bytes. */
SB_DEVICE char *shared_memory() {
    extern __shared__ __align__(1024) char sb_shared_memory[];
    return sb_shared_memory;
}

/* Collectives of a whole warp of 32. */
SB_DEVICE uint32_t vote(bool v) { return __ballot_sync(~0u, v); }
SB_DEVICE void warp_barrier() { __syncwarp(); }
template <class T>
SB_DEVICE T shuffle(T v, int lane) { return __shfl_sync(~0u, v, lane); }
template <class T>
SB_DEVICE T shuffle_xor(T v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
template <class T>
SB_DEVICE T shuffle_up(T v, int delta) { return __shfl_up_sync(~0u, v, delta); }
SB_DEVICE int bit_count(uint32_t v) { return __popc(v); }

/* Copies from global to shared memory that go on while the thread does; where !valid zeros are written and nothing is read. */
template <int BYTES>
SB_DEVICE void copy_async(void *shared, const void *global, bool valid) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared), read = valid ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(read) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(BYTES), "r"(read) : "memory");
}
SB_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits for this thread's copies but those of the last N groups that it committed; a barrier shows them to the others. */
template <int N>
SB_DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Begins to bring the 128 bytes around it nearer. */
SB_DEVICE void fetch_line(const void *global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

/* Four 8x8 matrices of 16-bit elements: lanes 8i to 8i + 7 give the rows of matrix i, 16 aligned bytes each. In r[i] lane l
 * receives elements 2 (l % 4) and the next of row l / 4 (transposed: of column l / 4). */
SB_DEVICE void load_matrix(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
SB_DEVICE void load_matrix_transposed(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

#define SB_MMA(name, shape)                                                                                             \
    SB_DEVICE void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {                                \
        asm("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                \
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                            \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                        \
    }
SB_MMA(multiply_half, "m16n8k16.row.col.f32.f16.f16.f32")
SB_MMA(multiply_bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
SB_MMA(multiply_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef SB_MMA

SB_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
SB_DEVICE uint32_t bits_of_float(float v) { return __float_as_uint(v); }
SB_DEVICE float float_of_half(uint16_t bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
SB_DEVICE uint16_t half_of_float(float v) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
SB_DEVICE uint16_t bfloat16_of_float(float v) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
/* The nearest TF32, ties away from zero, as the bits of a float. */
SB_DEVICE uint32_t tf32_of_float(float v) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return bits;
}

/* The larger of both of two values; NaN is larger than any. */
SB_DEVICE uint32_t larger_halves(uint32_t a, uint32_t b) {
    uint32_t v;
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
    return v;
}
SB_DEVICE uint32_t larger_bfloat16s(uint32_t a, uint32_t b) {
    uint32_t v;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
    return v;
}

SB_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SB_DEVICE float exp(float v) { return ::expf(v); }
SB_DEVICE float expm1(float v) { return ::expm1f(v); }
SB_DEVICE float log(float v) { return ::logf(v); }
SB_DEVICE float log1p(float v) { return ::log1pf(v); }
SB_DEVICE float tanh(float v) { return ::tanhf(v); }
SB_DEVICE float erf(float v) { return ::erff(v); }
SB_DEVICE float erfc(float v) { return ::erfcf(v); }
SB_DEVICE float normal_distribution(float v) { return ::normcdff(v); } /* P(X <= v) */
SB_DEVICE float sqrt(float v) { return __fsqrt_rn(v); }
SB_DEVICE double sqrt(double v) { return __dsqrt_rn(v); }
SB_DEVICE float floor(float v) { return ::floorf(v); }
/* v, of which the compiler knows nothing: what follows from it is not computed ahead of a loop, to lie in registers there. */
SB_DEVICE int opaque(int v) {
    asm volatile("" : "+r"(v));
    return v;
}
SB_DEVICE float infinity() { return __int_as_float(0x7f800000); }

SB_DEVICE void check_aligned(const void *, int) {} /* emulated, it is checked */

} // namespace sb
