#include "sparseblock.h"

#include <stdint.h>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

void sb_evict(const void *data, int64_t bytes) {
    constexpr uintptr_t LINE = 64; /* no longer than a line of any processor's cache */
    const char *const end = (const char *)data + bytes;
    for (const char *p = (const char *)((uintptr_t)data / LINE * LINE); p < end; p += LINE) {
#if defined(__x86_64__)
        _mm_clflush(p);
#elif defined(__aarch64__)
        asm volatile("dc civac, %0" : : "r"(p) : "memory");
#endif
    }
#if defined(__x86_64__)
    _mm_mfence();
#elif defined(__aarch64__)
    asm volatile("dsb sy" : : : "memory");
#endif
}
