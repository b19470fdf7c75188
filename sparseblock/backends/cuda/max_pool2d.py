"""max_pool2d of the cuda backend: csrc/cuda/pool2d.cu, and pool2d_large.cu for large windows."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.kernels import WARP, kernels
from sparseblock.backends.cuda.launch import kernel_of, launch, of_maps, vector_of
from sparseblock.errors import SparseBlockError

_LEAST_TAPS = 8  # of a lane: as many as it has under way at once


def max_pool2d(x, index, count, block, out, kernel_size, stride, padding, dilation, ceil_mode) -> None:
    pool = native.Pool2d(native.POOL_MAX, *kernel_size, *stride, *padding, *dilation, outside=-math.inf)
    run(pool, x, index, count, block, out)


def run(pool, x, index, count, block, out) -> None:
    """`pool`, maximum or average, on the planes of these tensors. The size of `out` tells ceil mode."""
    if pool.adaptive and max(out.shape[2:]) >= 1 << 16:  # so that the kernels count in 32 bits
        raise SparseBlockError(
            f"adaptive pooling of the cuda backend makes maps of less than {1 << 16} rows and columns, not "
            f"{tuple(out.shape[2:])}; split the map, or move the tensors to cpu"
        )
    sides = [min(side, size) for side, size in zip(block, out.shape[2:], strict=True)]
    run_maps(pool, x, native.blocks_of(index, count, block), index.shape[0], sides, out)


def run_maps(pool, x, blocks: native.Blocks, maps: int, sides: Sequence[int], out) -> None:
    """The same of at most `maps` maps of `sides` pixels, which `blocks` says where they are."""
    source, target = native.plane_of(x), native.plane_of(out)
    lanes = lanes_of_a_window(pool, x.shape[2:], out.shape[2:])
    if lanes == 1:
        of_maps(kernel_of("pool2d", out), [pool, source, blocks, target], maps, sides, out.device)
        return
    kernel, vector = kernel_of("pool2d_large", out), vector_of(source, target)
    warps = maps * sides[0] * sides[1] * -(-target.c * lanes // (vector * WARP))
    arguments = [pool, source, blocks, target, ctypes.c_int32(vector > 1), ctypes.c_int32(lanes)]
    launch(kernel, work=-(-warps * WARP // kernels()[kernel].threads), arguments=arguments, device=out.device)


def lanes_of_a_window(pool, size, out_size) -> int:
    """How many threads share a window: a power of two, from its taps alone, so that no bits depend on blocks."""
    if pool.adaptive:
        rows, cols = (-(-side // out) for side, out in zip(size, out_size, strict=True))
    else:
        rows, cols = pool.kernel_h, pool.kernel_w
    shares = min(max(rows * cols // _LEAST_TAPS, 1), WARP)
    return 1 << shares.bit_length() - 1
