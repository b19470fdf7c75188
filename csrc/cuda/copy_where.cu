/* Copies stretches of memory where a flag is set: what a frame leaves behind, if it counts. Each group takes every so many bytes of all. */
#include "device.h"

namespace sb {

constexpr int MOST_COPIES = 24;

struct Copies {
    void *to[MOST_COPIES];
    const void *from[MOST_COPIES];
    int64_t bytes[MOST_COPIES];
};

template <class Word>
SB_DEVICE void copy_words(void *to, const void *from, int64_t bytes) {
    const int64_t step = group_count() * thread_count();
    for (int64_t i = group_index() * thread_count() + thread_index(); i < bytes / (int64_t)sizeof(Word); i += step)
        ((Word *)to)[i] = ((const Word *)from)[i];
}

} // namespace sb

SB_ENTRY(const uint8_t *flag, sb::Copies copies, int32_t count) {
    using namespace sb;
    await_kernels_before();
    if (!*flag) return;
    for (int i = 0; i < count; ++i) {
        const int64_t bytes = copies.bytes[i];
        if (((uint64_t)copies.to[i] | (uint64_t)copies.from[i] | (uint64_t)bytes) % 16) copy_words<uint8_t>(copies.to[i], copies.from[i], bytes);
        else copy_words<Vector<uint32_t, 4>>(copies.to[i], copies.from[i], bytes);
    }
}
