/* Where the elements of active blocks are, and how groups share them. */
#pragma once

#include "device.h"

namespace sb {

template <class T>
SB_DEVICE T *pixel(const sb_plane &plane, int64_t n, int64_t y, int64_t x) {
    return (T *)plane.data + n * plane.stride_n + y * plane.stride_y + x * plane.stride_x;
}

/* The active blocks of `out`, clipped to it; without a count every image is one block (an empty list has a count, and may
 * have no index). The count is read where it is. */
struct Regions {
    const sb_blocks &blocks;
    const sb_plane &out;

    SB_DEVICE Regions(const sb_blocks &blocks_, const sb_plane &out_) : blocks(blocks_), out(out_) {}
    SB_DEVICE int64_t count() const { return blocks.count ? *blocks.count : out.n; }
    /* The same, before `await_kernels_before`: no kernel that writes lists lets others begin before it ends (blocks_from_mask.cu). */
    SB_DEVICE int64_t count_early() const { return blocks.count ? load_latest(blocks.count) : out.n; }
    SB_DEVICE int64_t height() const { return blocks.count ? minimum(blocks.block_h, out.h) : out.h; }
    SB_DEVICE int64_t width() const { return blocks.count ? minimum(blocks.block_w, out.w) : out.w; }
};

struct Region {
    int64_t n, y0, x0, y1, x1; /* pixels [y0, y1) x [x0, x1) */

    /* `early`: before `await_kernels_before`, see Regions::count_early. */
    SB_DEVICE Region(const Regions &regions, int64_t i, bool early = false) {
        if (regions.blocks.count) {
            const int32_t *index = regions.blocks.index + 3 * i;
            n = early ? load_latest(index) : index[0];
            y0 = (int64_t)(early ? load_latest(index + 1) : index[1]) * regions.blocks.block_h;
            x0 = (int64_t)(early ? load_latest(index + 2) : index[2]) * regions.blocks.block_w;
        } else {
            n = i;
            y0 = x0 = 0;
        }
        y1 = minimum(y0 + regions.height(), regions.out.h);
        x1 = minimum(x0 + regions.width(), regions.out.w);
    }
};

/* A vector as it lies in registers. Where it is read under a condition, the compiler would take halves apart at once, and so wait for
 * them before it reads anything else. */
template <int BYTES>
struct WordOf {
    typedef uint32_t type;
};
template <>
struct WordOf<2> {
    typedef uint16_t type;
};
template <class T, int N>
struct Words {
    typedef typename WordOf<sizeof(T) * N>::type Word;
    static constexpr int COUNT = sizeof(T) * N / sizeof(Word);
    Vector<Word, COUNT> words;

    SB_DEVICE operator Vector<T, N>() const {
        union {
            Vector<Word, COUNT> from;
            Vector<T, N> to;
        };
        from = words;
        return to;
    }
    SB_DEVICE static Words of(const Vector<T, N> &values) {
        union {
            Vector<T, N> from;
            Vector<Word, COUNT> to;
        };
        from = values;
        return {to};
    }
};
template <int N, class T>
SB_DEVICE Words<T, N> load_words(const T *p) {
    typedef typename Words<T, N>::Word Word;
    return {load_vector<Words<T, N>::COUNT>((const Word *)p)};
}

/* Values as kernels compute with them, and as they are stored. */
template <class T, int N>
SB_DEVICE void read_floats(const Vector<T, N> &from, float (&values)[N]) {
    SB_UNROLL
    for (int i = 0; i < N; ++i) values[i] = to_float(from[i]);
}
template <class T, int N>
SB_DEVICE Vector<T, N> from_floats(const float (&values)[N]) {
    Vector<T, N> result;
    SB_UNROLL
    for (int i = 0; i < N; ++i) result[i] = from_float<T>(values[i]);
    return result;
}

/* Divides by one number many times, by multiplying: divisions are what going through a map would else spend its time on. */
struct Divisor {
    uint32_t by, reciprocal;

    SB_DEVICE explicit Divisor(int by_) : by((uint32_t)by_), reciprocal(~0u / by) {}
    /* v / by; `rest` receives v % by. */
    SB_DEVICE int divide(uint32_t v, int &rest) const {
        uint32_t times = (uint32_t)((uint64_t)v * reciprocal >> 32), left = v - times * by; /* or one time less than there is */
        if (left >= by) ++times, left -= by;
        rest = (int)left;
        return (int)times;
    }
    SB_DEVICE int operator()(uint32_t v) const {
        int rest;
        return divide(v, rest);
    }
};

/* Calls read(k) for K <= k < END, all of them before what any returned, so that what they load is under way at the same time. */
template <int K, int END, class F>
SB_DEVICE void all_then_finish(const F &read) {
    if constexpr (K < END) {
        const auto finish = read(K);
        all_then_finish<K + 1, END>(read);
        finish();
    }
}

/* Calls begin(i) for maps i of `count`, of [height, width, channels], and what it returns, (y, x, c), for every N channels from c
 * on of their pixels: that reads, and returns what computes and stores, which is called after AT_ONCE have read (and, where there is
 * nothing, not at all: (0, x, c) has been read again). Adjacent threads take adjacent channels, and a group ITEMS of them for each of
 * its threads at a time, so that maps of any size keep every group busy. Width and channels are less than 2^22, and all maps together
 * less than 2^31 times what a group takes. */
template <int N, int AT_ONCE, class F>
SB_DEVICE void for_each_of(int64_t count, int height, int width, int channels, const F &begin) {
    constexpr int ITEMS = 4, PIECE = thread_count() * ITEMS;
    static_assert(ITEMS % AT_ONCE == 0, "a thread's items are taken in equal parts");
    const int vectors = channels / N;
    const int pieces = (int)ceil_div((int64_t)height * width * vectors, PIECE), work = (int)count * pieces;
    if (pieces == 0) return;
    const Divisor by_vectors(vectors), by_width(width), by_pieces(pieces);
    for (int i = (int)group_index(); i < work; i += (int)group_count()) {
        int piece, into_pixel, into_row; /* in PIECE vectors, and in PIECE pixels */
        const auto take = begin(by_pieces.divide(i, piece));
        const int pixels = by_vectors.divide(piece, into_pixel), rows = by_width.divide(pixels, into_row);
        SB_NO_UNROLL
        for (int part = 0; part < ITEMS; part += AT_ONCE)
            all_then_finish<0, AT_ONCE>([&](int k) {
                int vector, x;
                const int item = (part + k) * thread_count() + thread_index();
                const int along = by_vectors.divide((uint32_t)into_pixel * PIECE + item, vector);
                const int y = rows * PIECE + by_width.divide((uint32_t)into_row * PIECE + along, x);
                const bool there = y < height;
                const auto finish = take(there ? y : 0, x, vector * N);
                return [finish, there] {
                    if (there) finish();
                };
            });
    }
}

/* Calls f(n, y, x, c) for every N channels from c on of every pixel of the active blocks: as for_each_of, f reads and returns what
 * stores. */
template <int N, int AT_ONCE, class F>
SB_DEVICE void for_each(const sb_blocks &blocks, const sb_plane &out, const F &f) {
    const Regions regions(blocks, out);
    for_each_of<N, AT_ONCE>(regions.count(), (int)regions.height(), (int)regions.width(), out.c, [&](int i) {
        const Region region(regions, i);
        const int n = (int)region.n, y0 = (int)region.y0, x0 = (int)region.x0, y1 = (int)region.y1, x1 = (int)region.x1;
        return [&f, n, y0, x0, y1, x1](int down, int along, int c) {
            const int y = y0 + down, x = x0 + along;
            const bool inside = y < y1 && x < x1;
            const auto finish = f(n, inside ? y : y0, inside ? x : x0, c);
            return [finish, inside] {
                if (inside) finish();
            };
        };
    });
}

} // namespace sb
