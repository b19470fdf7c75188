#include "parallel.h"

#include <omp.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <new>

namespace sb {
namespace {

using Clock = std::chrono::steady_clock;

/* How long a thread spins before others that want the processor may have it. At 5 ms, frames beside other work took up to a third longer. */
constexpr auto PATIENCE = std::chrono::microseconds(200);

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

/* A leader and the members that spin until it has work for them. A call's shares are dealt to all of them, but no member has to come: when
 * the leader is through with its own shares it takes those of who has not begun, whose processor others may have. */
class Team {
public:
    int size = 1; /* the leader, who is number 0, among them */

    explicit Team(int most) : members_((Member *)scratch(SCRATCH_TEAM, sizeof(Member) * most)) {
        for (int member = 0; member < most; ++member) new (&members_[member]) Member();
    }

    void lead(int shares, void (*f)(const void *, int), const void *closure) {
        const uint64_t call = call_.load(std::memory_order_relaxed) + 1;
        const int dealt = shares < size ? shares : size;
        f_ = f;
        closure_ = closure;
        shares_ = shares;
        for (int member = dealt; member < size; ++member) members_[member].at.store(finished(call), std::memory_order_relaxed);
        call_.store(call, std::memory_order_release);
        work(0);
        for (int member = 1; member < dealt; ++member) take(member, call);
        for (int member = 1; member < dealt; ++member)
            wait_until([&] { return members_[member].at.load(std::memory_order_acquire) == finished(call); });
    }
    void dismiss() { call_.store(DISMISSED, std::memory_order_relaxed); }

    /* What a member does until it is dismissed. */
    void serve(int member) {
        for (uint64_t last = 0;;) {
            uint64_t call = 0;
            wait_until([&] { return (call = call_.load(std::memory_order_acquire)) != last; });
            if (call == DISMISSED) return;
            take(member, call);
            last = call;
        }
    }

private:
    static constexpr uint64_t DISMISSED = ~(uint64_t)0;
    static constexpr uint64_t begun(uint64_t call) { return 2 * call - 1; }
    static constexpr uint64_t finished(uint64_t call) { return 2 * call; }

    /* Does the member's part of the call, if nobody has begun it. The call's fields hold from then on until it is finished. */
    void take(int member, uint64_t call) {
        std::atomic<uint64_t> &at = members_[member].at;
        uint64_t before = finished(call - 1);
        if (!at.compare_exchange_strong(before, begun(call), std::memory_order_acquire, std::memory_order_relaxed)) return;
        work(member);
        at.store(finished(call), std::memory_order_release);
    }
    void work(int member) {
        for (int t = member; t < shares_; t += size) f_(closure_, t);
    }

    struct alignas(64) Member {
        std::atomic<uint64_t> at{finished(0)};
    };
    Member *const members_;
    void (*f_)(const void *, int) = nullptr;
    const void *closure_ = nullptr;
    int shares_ = 0;
    alignas(64) std::atomic<uint64_t> call_{0}; /* counted from 1 */
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
    Team team(threads);
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
