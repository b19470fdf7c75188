/* As many fused multiply-adds as the processor does: enough independent ones to hide what each takes. */
#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
typedef float vec __attribute__((vector_size(BYTES)));
enum { LANES = BYTES / 4, CHAINS = 12 };

/* FLOP done by `threads` threads, `rounds` times CHAINS vectors each; what they computed goes to `sink`. */
double peak(int threads, long rounds, float *sink) {
#pragma omp parallel num_threads(threads)
    {
        vec sum[CHAINS], factor, addend;
        for (int i = 0; i < LANES; ++i) factor[i] = 0.999f, addend[i] = 0.001f * (float)i;
        for (int k = 0; k < CHAINS; ++k) sum[k] = addend * (float)k;
        for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
            for (int k = 0; k < CHAINS; ++k) sum[k] = sum[k] * factor + addend;
        }
        float total = 0.0f;
        for (int k = 0; k < CHAINS; ++k)
            for (int i = 0; i < LANES; ++i) total += sum[k][i];
#pragma omp critical
        *sink += total;
    }
    return 2.0 * LANES * CHAINS * (double)rounds * threads;
}
