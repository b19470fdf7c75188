/* Memory of the calling thread, grown on first use and kept; one buffer per slot. */
#pragma once

#include <stddef.h>

namespace sb {

enum ScratchSlot {
    SCRATCH_TEAM,
    SCRATCH_STRETCHES,
    SCRATCH_RUNS,
    SCRATCH_PIXELS,
    SCRATCH_SUMS,
    SCRATCH_WINDOW,
    SCRATCH_TILES,
    SCRATCH_COPIES,
    SCRATCH_FREQUENCIES,
    SCRATCH_MOMENTS,
    SCRATCH_POWERS,
    SCRATCH_KEPT,
    SCRATCH_CHAIN,
    SCRATCH_ACTIVE,
    SCRATCH_POLICY,
    SCRATCH_POLICY_GRADIENTS,
    SCRATCH_SLOTS
};

void *scratch(ScratchSlot slot, size_t bytes);

} // namespace sb
