/* See rims.cpp. */
#pragma once

#include "sparseblock.h"

namespace sb {

/* After the active `blocks` of `map` are written: they save their rims, skipped ones next to them get theirs back. */
void rims_run(const sb_rims &rims, const sb_plane *planes, const sb_blocks &blocks, const sb_plane &map, int threads);

} // namespace sb
