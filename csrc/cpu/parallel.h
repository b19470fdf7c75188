/* Numbered items on several threads. */
#pragma once

#include <omp.h>

#include "scratch.h"
#include "vec.h"

namespace sb::SB_ISA {

/* Stretch t of `threads` ends before this item. */
inline int64_t stretch_end(int64_t items, int threads, int t) { return items * (t + 1) / threads; }

/* The item that the thread of `item` takes next; `items`: there is none, or another thread's. */
inline int64_t next_item(int64_t item, int64_t items, int threads) {
    for (int t = 0; t < threads; ++t)
        if (item + 1 == stretch_end(items, threads, t)) return items;
    return item + 1;
}

/* Calls f(item) for every item. Each thread takes those of a stretch of its own, in order, and then what others have left of theirs: so,
 * layer after layer, a thread finds in its caches what it wrote there for the layer before. */
template <class F>
void parallel_for(int64_t items, int threads, F f) {
    if (threads <= 1) {
        for (int64_t i = 0; i < items; ++i) f(i);
        return;
    }
    struct alignas(64) Stretch {
        int64_t next, end;
    };
    Stretch *const stretches = (Stretch *)scratch(SCRATCH_STRETCHES, sizeof(Stretch) * threads);
    for (int t = 0; t < threads; ++t) stretches[t] = {stretch_end(items, threads, t - 1), stretch_end(items, threads, t)};
#pragma omp parallel num_threads(threads)
    for (int t = 0, own = omp_get_thread_num(); t < threads; ++t) {
        Stretch &stretch = stretches[(own + t) % threads];
        for (int64_t i; (i = __atomic_fetch_add(&stretch.next, 1, __ATOMIC_RELAXED)) < stretch.end;) f(i);
    }
}

} // namespace sb::SB_ISA
