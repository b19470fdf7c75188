#include "parallel.h"

#include <omp.h>
#include <sched.h>

#include <atomic>

namespace sb {
namespace {

/* Some ms, then who else wants the processor may have it. Who gives it up sooner is away when the others go on: two processes on two
 * processors took 1.7 times as long so. */
constexpr int SPINS = 100000;

template <class Condition>
void wait_until(Condition holds) {
    for (int i = 0; !holds(); ++i) {
        if (i >= SPINS) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#elif defined(__aarch64__)
        else asm volatile("yield");
#endif
    }
}

class Team {
public:
    int size = 1; /* members, the leader among them */

    void lead(int threads, void (*f)(const void *, int), const void *closure) {
        f_ = f;
        closure_ = closure;
        threads_ = threads;
        working_.store(size - 1, std::memory_order_relaxed);
        number_.fetch_add(1, std::memory_order_release);
        if (f) share(0);
        wait_until([&] { return !working_.load(std::memory_order_acquire); });
    }
    void dismiss() { lead(0, nullptr, nullptr); }

    /* What a member does until it is dismissed. */
    void serve(int member) {
        for (uint64_t number = 0;; ++number) {
            wait_until([&] { return number_.load(std::memory_order_acquire) != number; });
            const bool dismissed = !f_;
            if (!dismissed) share(member);
            working_.fetch_sub(1, std::memory_order_release);
            if (dismissed) return;
        }
    }

private:
    void share(int member) {
        for (int t = member; t < threads_; t += size) f_(closure_, t);
    }

    alignas(64) void (*f_)(const void *, int) = nullptr; /* none: dismissed */
    const void *closure_ = nullptr;
    int threads_ = 0;
    std::atomic<uint64_t> number_{0}; /* of calls of f_ so far */
    alignas(64) std::atomic<int> working_{0};     /* members, but for the leader */
};

thread_local Team *led = nullptr; /* by this thread */

} // namespace

void on_threads(int threads, void (*f)(const void *, int), const void *closure) {
    if (led) return led->lead(threads, f, closure);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) f(closure, t);
}

void with_team(int threads, void (*f)(const void *), const void *closure) {
    if (threads <= 1 || threads > omp_get_num_procs() || led) return f(closure); /* who spins must not keep others from their work */
    Team team;
#pragma omp parallel num_threads(threads)
    {
        const int member = omp_get_thread_num();
        if (member) {
            team.serve(member);
        } else {
            team.size = omp_get_num_threads();
            led = &team;
            f(closure);
            led = nullptr;
            team.dismiss();
        }
    }
}

} // namespace sb
