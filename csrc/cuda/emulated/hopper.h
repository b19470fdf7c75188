/* hopper.h on a host. What runs by itself is carried out as late as it may be: a box lands when a thread waits for its signal, until then
 * there is NaN, and so do copies of a thread that arrives when they have come; products read shared memory when their group is waited
 * for. Who waits for a signal that nobody gives is an error. */
#pragma once

#define SB_CONSTANT const

namespace sb {

/* A tensor in memory: sizes and steps of four axes, the first of neighbours; strides of the others, bytes; elements that a box has. */
struct alignas(64) TensorMap {
    const char *data;
    int64_t sizes[4], strides[3];
    int32_t box[4], steps[4], element;
};

SB_DEVICE void prefetch(const TensorMap &) {}

typedef char *SharedAddress;
SB_DEVICE SharedAddress shared_address(const void *p) { return (char *)p; }

struct Signal {
    uint8_t arrivals, missing;
    uint16_t round;
    int32_t bytes;
};
constexpr int SIGNAL = sizeof(Signal);

namespace emulated {
void arrive(Signal *signal, int bytes);
void arrive_when_copied(Signal *signal);
void await(Signal *signal, int parity, bool copies, Site site);
void copy_box(void *shared, const TensorMap &map, Signal *signal, const int (&from)[4]);
/* One thread's sums, d[columns / 8][4], of the product of 64 x 16 and 16 x columns elements of 16 bits. */
struct Product {
    float *d;
    int columns;
    const char *a, *b;
    int a_group, b_group;
    bool halves; /* or bfloat16 */
};
void multiply(const Product &product);
void commit_products();
void wait_products(int groups);
} // namespace emulated

SB_DEVICE void prepare(SharedAddress signal, int arrivals) { *(Signal *)signal = {(uint8_t)arrivals, (uint8_t)arrivals, 0, 0}; }
SB_DEVICE void signals_are_prepared() {}
SB_DEVICE void arrive(SharedAddress signal) { emulated::arrive((Signal *)signal, 0); }
SB_DEVICE void arrive_and_expect(SharedAddress signal, int bytes) { emulated::arrive((Signal *)signal, bytes); }
SB_DEVICE void arrive_when_copied(SharedAddress signal) { emulated::arrive_when_copied((Signal *)signal); }
SB_DEVICE void wait(SharedAddress signal, int parity, SB_SITE) { emulated::await((Signal *)signal, parity, false, SB_HERE); }
SB_DEVICE void wait_for_copies(SharedAddress signal, int parity, SB_SITE) { emulated::await((Signal *)signal, parity, true, SB_HERE); }
SB_DEVICE void copy_box(SharedAddress to, const TensorMap &map, SharedAddress signal, int c, int x, int y, int n) {
    emulated::copy_box(to, map, (Signal *)signal, {c, x, y, n});
}

struct Matrix {
    const char *rows;
    int group_bytes;
};
SB_DEVICE Matrix matrix(const void *rows, int group_bytes) { return {(const char *)rows, group_bytes}; }
SB_DEVICE Matrix ahead(Matrix m, int bytes) { return {m.rows + bytes, m.group_bytes}; }

SB_DEVICE void begin_products() {}
SB_DEVICE void commit_products() { emulated::commit_products(); }
template <int GROUPS>
SB_DEVICE void wait_products() { emulated::wait_products(GROUPS); }
template <int N>
SB_DEVICE void hold(float (&)[N][4]) {}

template <int N>
SB_DEVICE void multiply_add(float (&d)[N][4], Matrix a, Matrix b, half) {
    emulated::multiply({d[0], N * 8, a.rows, b.rows, a.group_bytes, b.group_bytes, true});
}
template <int N>
SB_DEVICE void multiply_add(float (&d)[N][4], Matrix a, Matrix b, bfloat16) {
    emulated::multiply({d[0], N * 8, a.rows, b.rows, a.group_bytes, b.group_bytes, false});
}

template <int REGISTERS>
SB_DEVICE void give_registers_back() {}
template <int REGISTERS>
SB_DEVICE void take_registers() {}

} // namespace sb
