/* A thread block on a host. Its threads are fibers: each runs until it meets a collective, then the scheduler runs the next.
 * Where all lanes of a warp meet, or all threads of the group, the collective is carried out and they go on. Groups are
 * shared among OpenMP threads, each with a machine of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define SB_THREADS 0 /* no kernel's */
#include "../hopper.h"

namespace sb::emulated {
namespace {

constexpr size_t STACK = 128 << 10, GUARD = 4 << 10, MARGIN = 4 << 10;
constexpr size_t ALIGNED = 1024; /* where the shared memory begins */
constexpr int ROW = 128;         /* bytes of a row of a box or matrix */
constexpr int64_t MOST_SHARED = 227 << 10; /* of sm_90; sm_80 has 163 KB */

/* What the address sanitizer is told, where it is there: which stack runs, and what a kernel may not touch. */
struct Stack {
    const void *bottom = nullptr;
    size_t bytes = 0;
    void *frames = nullptr; /* the sanitizer's, while another stack runs */
};
#ifdef __SANITIZE_ADDRESS__
void leave_for(Stack &from, const Stack &to) { __sanitizer_start_switch_fiber(&from.frames, to.bottom, to.bytes); }
void enter(const Stack &to, Stack *from = nullptr) {
    __sanitizer_finish_switch_fiber(to.frames, from ? &from->bottom : nullptr, from ? &from->bytes : nullptr);
}
void forbid(const void *from, size_t bytes) { __asan_poison_memory_region(from, bytes); }
void allow(const void *from, size_t bytes) { __asan_unpoison_memory_region(from, bytes); }
/* What the machine will read later is read where the kernel asks for it, so that a report says where. */
void check_readable(const void *from, int bytes) {
    for (int i = 0; i < bytes; ++i) (void)((const volatile char *)from)[i];
}
#else
void leave_for(Stack &, const Stack &) {}
void enter(const Stack &, Stack * = nullptr) {}
void forbid(const void *, size_t) {}
void allow(const void *, size_t) {}
void check_readable(const void *, int) {}
#endif

enum State { READY, WAITING, DONE };

struct Copy {
    void *to;
    const void *from;
    int bytes, batch;
    bool valid;
};

struct Box {
    char *to;
    const TensorMap *map;
    Signal *signal;
    int from[4];
};

/* At a signal, of a thread whose copies have not landed. */
struct Arrival {
    Signal *signal;
    std::vector<Copy> copies;
};

struct Fiber {
    jmp_buf context;
    Stack stack;
    bool started = false; /* inside of the loop of `live` */
    State state;
    Collective kind;
    Site site;
    Exchange *exchange;
    bool awaited;             /* the kernels before */
    std::vector<Copy> copies; /* that have not landed, oldest first */
    int committed;            /* batches of copies */
    std::vector<std::pair<int, Product>> products; /* that have not been carried out, oldest first, each with its group */
    int groups;                                    /* that were committed */
};

const char *name_of(Collective kind) {
    const char *names[] = {"barrier", "warp_barrier", "vote",         "shuffle",     "load_matrix",
                           "load_matrix_transposed", "multiply_add of half", "multiply_add of bfloat16", "multiply_add of tf32",
                           "signal"};
    return names[kind];
}

class Machine {
  public:
    const Launch *launch = nullptr;
    int64_t group = 0;
    int current = -1;
    std::string error;

    void run_group(const Launch &given, int64_t index) {
        launch = &given;
        group = index;
        error.clear();
        prepare();
        for (uint64_t phase = 0; error.empty() && !pass(phase); ++phase) {}
        if (error.empty()) check_margins();
        for (int t = 0; t < launch->threads; ++t)
            if (fibers[t].state != DONE) fibers[t].started = false; /* its stack is given up */
        current = -1;
        launch = nullptr;
    }

    void meet(Collective kind, Site site, Exchange *exchange) {
        Fiber &fiber = fibers[current];
        fiber.kind = kind;
        fiber.site = site;
        fiber.exchange = exchange;
        fiber.state = WAITING;
        leave(fiber);
    }

    [[noreturn]] void fail(const char *message) {
        report("thread %d: %s", current, message);
        leave_for(fibers[current].stack, stack);
        _longjmp(scheduler, 1);
    }
    /* Of the address sanitizer. The thread goes on to its next collective. */
    void found(const char *text) {
        const char *end = strstr(text, "\nSUMMARY"); /* bytes in hexadecimal follow */
        if (launch && error.empty()) report("%.*s", (int)(end ? end - text : strlen(text)), text);
    }

    void copy(void *to, const void *from, int bytes, bool valid) {
        check_shared(to, bytes, "copy_async");
        check_aligned(to, bytes);
        if (valid) check_aligned(from, bytes), check_readable(from, bytes);
        memset(to, 0xff, bytes);
        Fiber &fiber = fibers[current];
        fiber.copies.push_back({to, from, bytes, fiber.committed, valid});
    }
    void await_kernels_before() { fibers[current].awaited = true; }
    void commit() { ++fibers[current].committed; }
    void wait(int pending) {
        Fiber &fiber = fibers[current];
        size_t landed = 0;
        for (; landed < fiber.copies.size() && fiber.copies[landed].batch < fiber.committed - pending; ++landed) land(fiber.copies[landed]);
        fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + landed);
    }

    void arrive(Signal *signal, int bytes) {
        check_shared(signal, sizeof(Signal), "a signal");
        --signal->missing;
        settle(signal, bytes);
    }
    /* The thread's copies so far land when a thread waits for the signal. */
    void arrive_when_copied(Signal *signal) {
        check_shared(signal, sizeof(Signal), "a signal");
        arrivals.push_back({signal, std::move(fibers[current].copies)});
        fibers[current].copies.clear();
    }
    void settle(Signal *signal, int bytes) {
        signal->bytes += bytes;
        if (signal->missing || signal->bytes) return;
        signal->round ^= 1;
        signal->missing = signal->arrivals;
    }
    void copy_box(void *to, const TensorMap &map, Signal *signal, const int (&from)[4]) {
        if ((uintptr_t)map.data % 16 || map.strides[0] % 16 || map.strides[1] % 16 || map.strides[2] % 16)
            emulated::fail("copy_box of a tensor that does not lie at multiples of 16 bytes");
        const int bytes = bytes_of(map);
        check_shared(to, bytes, "copy_box");
        check_shared(signal, sizeof(Signal), "a signal");
        if ((to_offset(to) & 1023) || map.box[0] * map.element > ROW) emulated::fail("copy_box to %p, which is not where a swizzle begins", to);
        memset(to, 0xff, bytes);
        boxes.push_back({(char *)to, &map, signal, {from[0], from[1], from[2], from[3]}});
        for_each_element(boxes.back(), [&](char *, const char *from) {
            if (from) check_readable(from, map.element);
        });
    }
    void multiply(const Product &product) { fibers[current].products.push_back({fibers[current].groups, product}); }
    void commit_products() { ++fibers[current].groups; }
    void wait_products(int groups) {
        Fiber &fiber = fibers[current];
        size_t ended = 0;
        for (; ended < fiber.products.size() && fiber.products[ended].first < fiber.groups - groups; ++ended) carry_out(fiber.products[ended].second);
        fiber.products.erase(fiber.products.begin(), fiber.products.begin() + ended);
    }

    char *shared() { return memory.data() + offset; }

    /* The loop of a fiber's life: one kernel thread after another. */
    void live(int thread) {
        enter(fibers[thread].stack, &stack);
        for (;;) {
            launch->body(launch->arguments);
            if (!fibers[thread].awaited) report("thread %d ends and has not waited for the kernels before", thread);
            fibers[thread].state = DONE;
            leave(fibers[thread]);
        }
    }

  private:
    std::vector<Fiber> fibers;
    std::vector<char> memory;
    size_t offset = 0;
    std::vector<Box> boxes; /* that have not landed */
    std::vector<Arrival> arrivals;
    bool moved = false;     /* whether a thread has run since it was set to false */
    jmp_buf scheduler;
    Stack stack; /* the scheduler's */

    void leave(Fiber &fiber) {
        if (!_setjmp(fiber.context)) {
            leave_for(fiber.stack, stack);
            _longjmp(scheduler, 1);
        }
        enter(fibers[current].stack); /* `fiber` may have moved: a launch with more threads */
    }

    void prepare() {
        if ((int)fibers.size() < launch->threads) fibers.resize(launch->threads);
        for (int t = 0; t < launch->threads; ++t) {
            fibers[t].state = READY;
            fibers[t].awaited = false;
            fibers[t].copies.clear();
            fibers[t].committed = fibers[t].groups = 0;
            fibers[t].products.clear();
        }
        boxes.clear();
        arrivals.clear();
        allow(memory.data(), memory.size());
        memory.resize(2 * MARGIN + ALIGNED + launch->shared);
        memset(memory.data(), 0xff, memory.size());
        offset = MARGIN + (-(uintptr_t)(memory.data() + MARGIN) & (ALIGNED - 1));
        forbid(memory.data(), memory.size());
        allow(shared(), launch->shared);
    }

    void resume(int thread);

    /* Runs every thread to its next barrier, warps and lanes in an order that changes; whether all have ended. */
    bool pass(uint64_t phase) {
        const int warps = launch->threads / WARP;
        const uint64_t dice = ((uint64_t)group * 1000003 + phase + 1) * 0x9e3779b97f4a7c15ull >> 32;
        int unsignalled;
        do {
            moved = false;
            for (int i = 0; i < warps; ++i) {
                const int warp = (int)((dice + i) % warps);
                if (!run_warp(dice >> 16 & 1 ? warps - 1 - warp : warp, dice >> 17 & 1)) return false;
            }
            unsignalled = -1;
            for (int t = 0; t < launch->threads; ++t)
                if (fibers[t].state == WAITING && fibers[t].kind == SIGNAL) unsignalled = t;
        } while (unsignalled >= 0 && moved);
        if (unsignalled >= 0) {
            const Site site = fibers[unsignalled].site;
            report("thread %d waits at %s:%d for a signal that nobody gives", unsignalled, site.file, site.line);
            return false;
        }
        int waiting = -1, ended = -1;
        for (int t = 0; t < launch->threads; ++t) {
            const Fiber &fiber = fibers[t];
            if (fiber.state == DONE) ended = t;
            else if (waiting < 0) waiting = t;
            else if (differ(fibers[waiting], fiber)) return diverged(waiting, t);
        }
        if (waiting < 0) return true;
        if (ended >= 0) return diverged(waiting, ended);
        for (int t = 0; t < launch->threads; ++t) fibers[t].state = READY;
        return false;
    }

    /* Runs a warp until all of its lanes wait at a barrier of the group or for a signal, or have ended. */
    bool run_warp(int warp, bool backwards) {
        const int first = warp * WARP;
        for (;;) {
            for (int i = 0; i < WARP; ++i) {
                const int t = first + (backwards ? WARP - 1 - i : i);
                if (fibers[t].state == READY) moved = true, resume(t);
                if (!error.empty()) return false;
            }
            int meeting = -1, ready = 0, unsignalled = 0;
            for (int t = first; t < first + WARP; ++t) {
                Fiber &fiber = fibers[t];
                if (fiber.state != WAITING || fiber.kind == BARRIER) continue;
                if (fiber.kind != SIGNAL) meeting = t;
                else if (given(*fiber.exchange)) fiber.state = READY, ++ready;
                else ++unsignalled;
            }
            if (ready) continue;
            if (meeting < 0 || unsignalled) return true;
            for (int t = first; t < first + WARP; ++t)
                if (fibers[t].state == DONE || differ(fibers[t], fibers[meeting])) return diverged(meeting, t);
            exchange(&fibers[first], first);
            if (!error.empty()) return false;
            for (int t = first; t < first + WARP; ++t) fibers[t].state = READY;
        }
    }

    static bool differ(const Fiber &a, const Fiber &b) {
        return a.kind != b.kind || a.site.line != b.site.line || strcmp(a.site.file, b.site.file);
    }

    bool diverged(int waiting, int other) {
        const Fiber &a = fibers[waiting], &b = fibers[other];
        if (b.state == DONE)
            report("thread %d waits at the %s of %s:%d, but thread %d has ended", waiting, name_of(a.kind), a.site.file, a.site.line, other);
        else
            report("thread %d waits at the %s of %s:%d, but thread %d at the %s of %s:%d", waiting, name_of(a.kind), a.site.file,
                   a.site.line, other, name_of(b.kind), b.site.file, b.site.line);
        return false;
    }

    /* Whether the round has ended that a thread waits for. */
    bool given(const Exchange &exchange) {
        Signal *signal = (Signal *)exchange.signal;
        for (size_t i = 0; i < boxes.size();)
            if (boxes[i].signal == signal) {
                land(boxes[i]);
                boxes.erase(boxes.begin() + i);
            } else ++i;
        for (size_t i = 0; i < arrivals.size();)
            if (arrivals[i].signal == signal) {
                if (!exchange.copies && !arrivals[i].copies.empty()) report("products would not see copies: wait_for_copies shows them");
                for (const Copy &copy : arrivals[i].copies) land(copy);
                arrivals.erase(arrivals.begin() + i);
                arrive(signal, 0);
            } else ++i;
        return signal->round != exchange.value;
    }

    static void land(const Copy &c) {
        if (c.valid) memcpy(c.to, c.from, c.bytes);
        else memset(c.to, 0, c.bytes);
    }
    static int bytes_of(const TensorMap &map) { return map.box[0] * map.box[1] * map.box[2] * map.box[3] * map.element; }
    size_t to_offset(const void *p) { return (const char *)p - shared(); }
    /* Where the byte is that would be at p without swizzle. */
    char *swizzled(const char *p) {
        const size_t at = to_offset(p);
        return shared() + (at ^ (at >> 7 & 7) << 4);
    }

    /* Calls f(to, from) for the elements of a box; `from` is null outside of the tensor. */
    template <class F>
    static void for_each_element(const Box &box, const F &f) {
        const TensorMap &map = *box.map;
        char *to = box.to;
        for (int n = 0; n < map.box[3]; ++n)
            for (int y = 0; y < map.box[2]; ++y)
                for (int x = 0; x < map.box[1]; ++x, to += ROW) {
                    const int at[] = {0, box.from[1] + x * map.steps[1], box.from[2] + y * map.steps[2], box.from[3] + n * map.steps[3]};
                    const char *row = map.data;
                    bool inside = true;
                    for (int axis = 1; axis < 4; ++axis) {
                        inside = inside && at[axis] >= 0 && at[axis] < map.sizes[axis];
                        row += at[axis] * map.strides[axis - 1];
                    }
                    for (int i = 0; i < map.box[0]; ++i) {
                        const int64_t c = box.from[0] + i;
                        f(to + i * map.element, inside && c >= 0 && c < map.sizes[0] ? row + c * map.element : nullptr);
                    }
                }
    }
    void land(const Box &box) {
        const int element = box.map->element;
        for_each_element(box, [&](char *to, const char *from) {
            if (from) memcpy(swizzled(to), from, element);
            else memset(swizzled(to), 0, element);
        });
        settle(box.signal, -bytes_of(*box.map));
    }

    /* Row `row` of a matrix: 16 elements, of which eight lie together. */
    void read_row(const Product &product, const char *rows, int group_bytes, int row, float (&values)[16]) {
        uint16_t bits[16] = {};
        for (int part = 0; part < 2; ++part) {
            const char *place = swizzled(rows + row / 8 * group_bytes + row % 8 * ROW + 16 * part);
            if ((uintptr_t)place % 16 || !in_shared(place, 16)) report("a matrix of a product lies outside of the shared memory, or unaligned");
            else memcpy(bits + 8 * part, place, 16);
        }
        for (int k = 0; k < 16; ++k) values[k] = product.halves ? float_of_half(bits[k]) : float_of_bits((uint32_t)bits[k] << 16);
    }
    /* This thread's sums: of two rows, two columns of every eight. */
    void carry_out(const Product &product) {
        constexpr int MOST = 256 / 4;
        const int thread = current % 128, first = thread / WARP * 16 + thread % WARP / 4, columns = product.columns / 4;
        float a[2][16], b[16][MOST], row[16];
        for (int i = 0; i < 2; ++i) read_row(product, product.a, product.a_group, first + 8 * i, a[i]);
        for (int c = 0; c < columns; ++c) {
            read_row(product, product.b, product.b_group, c / 2 * 8 + thread % 4 * 2 + c % 2, row);
            for (int k = 0; k < 16; ++k) b[k][c] = row[k];
        }
        for (int i = 0; i < 2; ++i) {
            float sums[MOST];
            for (int c = 0; c < columns; ++c) sums[c] = product.d[c / 2 * 4 + i * 2 + c % 2];
            for (int k = 0; k < 16; ++k)
                for (int c = 0; c < columns; ++c) sums[c] += a[i][k] * b[k][c];
            for (int c = 0; c < columns; ++c) product.d[c / 2 * 4 + i * 2 + c % 2] = sums[c];
        }
    }

    void exchange(Fiber *lanes, int first) {
        switch (lanes[0].kind) {
        case VOTE: {
            uint64_t votes = 0;
            for (int l = 0; l < WARP; ++l) votes |= lanes[l].exchange->value << l;
            for (int l = 0; l < WARP; ++l) lanes[l].exchange->value = votes;
            break;
        }
        case SHUFFLE: {
            uint64_t values[WARP];
            for (int l = 0; l < WARP; ++l) values[l] = lanes[l].exchange->value;
            for (int l = 0; l < WARP; ++l) lanes[l].exchange->value = values[lanes[l].exchange->lane & (WARP - 1)];
            break;
        }
        case LOAD_MATRIX:
        case LOAD_MATRIX_TRANSPOSED:
            load_matrices(lanes, first);
            break;
        case MULTIPLY_HALF:
        case MULTIPLY_BFLOAT16:
        case MULTIPLY_TF32:
            multiply(lanes);
            break;
        default:
            break;
        }
    }

    void load_matrices(Fiber *lanes, int first) {
        uint16_t m[4][8][8];
        for (int l = 0; l < WARP; ++l) {
            const void *row = lanes[l].exchange->row;
            if ((uintptr_t)row % 16 || !in_shared(row, 16)) {
                report("thread %d: load_matrix of a row that is not 16 aligned bytes of shared memory", first + l);
                return;
            }
            memcpy(m[l / 8][l % 8], row, 16);
        }
        const bool transposed = lanes[0].kind == LOAD_MATRIX_TRANSPOSED;
        for (int l = 0; l < WARP; ++l)
            for (int i = 0; i < 4; ++i) {
                const int a = l / 4, b = 2 * (l % 4);
                const uint32_t low = transposed ? m[i][b][a] : m[i][a][b], high = transposed ? m[i][b + 1][a] : m[i][a][b + 1];
                lanes[l].exchange->r[i] = low | high << 16;
            }
    }

    void multiply(Fiber *lanes) {
        const Collective kind = lanes[0].kind;
        const int depth = kind == MULTIPLY_TF32 ? 8 : 16, packed = kind == MULTIPLY_TF32 ? 1 : 2;
        float a[16][16], b[16][8];
        const auto element = [&](uint32_t r, int i) {
            if (kind == MULTIPLY_TF32) return float_of_bits(r & 0xffffe000);
            const uint16_t bits = (uint16_t)(r >> 16 * i);
            return kind == MULTIPLY_HALF ? float_of_half(bits) : float_of_bits((uint32_t)bits << 16);
        };
        for (int l = 0; l < WARP; ++l)
            for (int i = 0; i < packed; ++i) {
                const int g = l / 4, k = l % 4 * packed + i;
                for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][k + r / 2 * depth / 2] = element(lanes[l].exchange->a[r], i);
                for (int r = 0; r < 2; ++r) b[k + r * depth / 2][g] = element(lanes[l].exchange->b[r], i);
            }
        for (int l = 0; l < WARP; ++l)
            for (int i = 0; i < 4; ++i) {
                float sum = lanes[l].exchange->d[i];
                for (int k = 0; k < depth; ++k) sum += a[l / 4 + i / 2 * 8][k] * b[k][l % 4 * 2 + i % 2];
                lanes[l].exchange->d[i] = sum;
            }
    }

    bool in_shared(const void *p, int bytes) {
        return (const char *)p >= shared() && (const char *)p + bytes <= shared() + launch->shared;
    }
    void check_shared(const void *p, int bytes, const char *who) {
        if (!in_shared(p, bytes)) emulated::fail("%s to outside of the %lld bytes of shared memory", who, (long long)launch->shared);
    }
    void check_margins() {
        allow(memory.data(), memory.size());
        for (size_t i = 0; i < memory.size(); ++i)
            if ((i < offset || i >= offset + launch->shared) && (uint8_t)memory[i] != 0xff) {
                report("byte %lld of %lld bytes of shared memory was written", (long long)i - (long long)offset, (long long)launch->shared);
                return;
            }
    }

    void report(const char *format, ...) __attribute__((format(printf, 2, 3))) {
        char text[4096];
        va_list values;
        va_start(values, format);
        vsnprintf(text, sizeof text, format, values);
        va_end(values);
        error = "kernel " + std::string(launch->name) + ", group " + std::to_string(group) + ": " + text;
    }
};

thread_local Machine machine;

void begin() { machine.live(machine.current); }

void Machine::resume(int thread) {
    Fiber &fiber = fibers[thread];
    current = thread;
    if (_setjmp(scheduler)) { /* the thread waits, has ended or has failed */
        enter(stack);
        return;
    }
    if (fiber.started) {
        leave_for(stack, fiber.stack);
        _longjmp(fiber.context, 1);
    }
    if (!fiber.stack.bottom) {
        void *mapped = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED || mprotect(mapped, GUARD, PROT_NONE)) abort();
        fiber.stack.bottom = (char *)mapped + GUARD;
        fiber.stack.bytes = STACK;
    }
    fiber.started = true;
    fiber.stack.frames = nullptr;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = (void *)fiber.stack.bottom;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, begin, 0);
    leave_for(stack, fiber.stack);
    setcontext(&context);
    abort();
}

} // namespace

int thread() { return machine.current; }
int64_t group() { return machine.group; }
int64_t groups() { return machine.launch->grid; }
char *shared() { return machine.shared(); }
void meet(Collective kind, Site site, Exchange *exchange) { machine.meet(kind, site, exchange); }
void copy(void *shared, const void *global, int bytes, bool valid) { machine.copy(shared, global, bytes, valid); }
void await_kernels_before() { machine.await_kernels_before(); }
void commit() { machine.commit(); }
void wait(int pending) { machine.wait(pending); }
void arrive(Signal *signal, int bytes) { machine.arrive(signal, bytes); }
void arrive_when_copied(Signal *signal) { machine.arrive_when_copied(signal); }
void await(Signal *signal, int parity, bool copies, Site site) {
    Exchange e = {};
    e.signal = signal;
    e.value = parity;
    e.copies = copies;
    machine.meet(SIGNAL, site, &e);
}
void copy_box(void *shared, const TensorMap &map, Signal *signal, const int (&from)[4]) { machine.copy_box(shared, map, signal, from); }
void multiply(const Product &product) { machine.multiply(product); }
void commit_products() { machine.commit_products(); }
void wait_products(int groups) { machine.wait_products(groups); }
void fail(const char *format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    machine.fail(text);
}

const char *run(const Launch &launch) {
#ifdef __SANITIZE_ADDRESS__
    __asan_set_error_report_callback([](const char *text) { machine.found(text); });
#endif
    static thread_local std::string said;
    std::string message;
    if (launch.shared > MOST_SHARED) message = std::string(launch.name) + ": more shared memory than a multiprocessor has";
    std::atomic<bool> failed{!message.empty()};
#pragma omp parallel for schedule(dynamic) if (launch.grid > 1)
    for (int64_t i = 0; i < launch.grid; ++i) {
        if (failed) continue;
        machine.run_group(launch, i);
        if (!machine.error.empty() && !failed.exchange(true)) {
#pragma omp critical
            message = machine.error;
        }
    }
    said = message;
    return said.empty() ? nullptr : said.c_str();
}

} // namespace sb::emulated
