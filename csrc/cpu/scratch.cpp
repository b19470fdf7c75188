#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>

namespace sb {
namespace {

struct Buffers {
    void *data[SCRATCH_SLOTS] = {};
    size_t bytes[SCRATCH_SLOTS] = {};
    ~Buffers() {
        for (void *p : data) free(p);
    }
};

thread_local Buffers buffers;

} // namespace

void *scratch(ScratchSlot slot, size_t bytes) {
    Buffers &b = buffers;
    if (bytes > b.bytes[slot]) {
        size_t size = (bytes + bytes / 4 + 4095) / 4096 * 4096;
        free(b.data[slot]);
        b.data[slot] = aligned_alloc(64, size);
        if (!b.data[slot]) {
            fprintf(stderr, "sparseblock: out of memory: %zu bytes of scratch\n", size);
            abort();
        }
        b.bytes[slot] = size;
    }
    return b.data[slot];
}

} // namespace sb
