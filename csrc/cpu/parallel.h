/* The threads that share a kernel's work. */
#pragma once

#include <stdint.h>

#include "scratch.h"

namespace sb {

/* Calls f(closure, t) for every t in [0, threads), at the same time where there are as many threads; none is to wait for another.
 * Threads of the team where this one leads one, else OpenMP's. */
void on_threads(int threads, void (*f)(const void *closure, int t), const void *closure);

template <class F>
void on_threads(int threads, const F &f) {
    if (threads == 1) f(0);
    else if (threads > 1) on_threads(threads, [](const void *closure, int t) { (*(const F *)closure)(t); }, &f);
}

/* Calls f(closure) on this thread, which leads a team of `threads` meanwhile: the others spin until on_threads has work for them. To
 * begin and end an OpenMP region takes 0.7 us, this 0.2, and a frame is hundreds of steps of some tens. */
void with_team(int threads, void (*f)(const void *closure), const void *closure);

template <class F>
void with_team(int threads, const F &f) {
    with_team(threads, [](const void *closure) { (*(const F *)closure)(); }, &f);
}

/* Stretch t of `threads` ends before this item. (Static, as what follows: files for different instruction sets must not share it.) */
static inline int64_t stretch_end(int64_t items, int threads, int t) { return items * (t + 1) / threads; }

/* The item that the thread of `item` takes next; `items`: there is none, or another thread's. */
static inline int64_t next_item(int64_t item, int64_t items, int threads) {
    for (int t = 0; t < threads; ++t)
        if (item + 1 == stretch_end(items, threads, t)) return items;
    return item + 1;
}

/* Calls f(item) for every item. Each thread takes those of a stretch of its own, in order, and then what others have left of theirs: so,
 * layer after layer, a thread finds in its caches what it wrote there for the layer before. */
template <class F>
void parallel_for(int64_t items, int threads, const F &f) {
    if (threads > items) threads = (int)items;
    if (threads <= 1) {
        for (int64_t i = 0; i < items; ++i) f(i);
        return;
    }
    struct alignas(64) Stretch {
        int64_t next, end;
    };
    Stretch *const stretches = (Stretch *)scratch(SCRATCH_STRETCHES, sizeof(Stretch) * threads);
    for (int t = 0; t < threads; ++t) stretches[t] = {stretch_end(items, threads, t - 1), stretch_end(items, threads, t)};
    on_threads(threads, [&](int own) {
        for (int t = 0; t < threads; ++t) {
            Stretch &stretch = stretches[(own + t) % threads];
            for (int64_t i; (i = __atomic_fetch_add(&stretch.next, 1, __ATOMIC_RELAXED)) < stretch.end;) f(i);
        }
    });
}

} // namespace sb
