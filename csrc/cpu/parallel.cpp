#include "parallel.h"

#include <omp.h>
#include <sched.h>

#include <atomic>
#include <chrono>

namespace sb {
namespace {

using Clock = std::chrono::steady_clock;

/* How long a thread spins before others that want the processor may have it. Who gives it up sooner is away when the others go on: two
 * processes on two processors took 1.7 times as long so. */
constexpr auto PATIENCE = std::chrono::milliseconds(5);

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Condition>
void wait_until(Condition holds) {
    Clock::time_point start;
    for (uint64_t i = 1; !holds(); ++i) {
        pause();
        if (i % 1024) continue; /* a look at the clock takes as long as a step's whole hand-over */
        const Clock::time_point now = Clock::now();
        if (i == 1024) start = now;
        else if (now - start > PATIENCE) sched_yield();
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
    alignas(64) std::atomic<int> working_{0}; /* members, but for the leader */
};

thread_local Team *led = nullptr; /* by this thread */

} // namespace

void on_threads(int threads, void (*f)(const void *, int), const void *closure) {
    if (Team *const team = led) {
        led = nullptr; /* whatever f does */
        team->lead(threads, f, closure);
        led = team;
        return;
    }
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
