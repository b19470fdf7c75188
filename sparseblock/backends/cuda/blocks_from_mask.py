"""The list of a mask's blocks, made on the device: csrc/cuda/blocks_from_mask.cu."""

from __future__ import annotations

from ctypes import c_int32, c_void_p

import torch

from sparseblock.backends.cuda.launch import launch


def blocks_from_mask(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index, with room for every block, and count of the true elements of `mask`, bool [n, rows, cols]."""
    mask = mask.contiguous()
    index = torch.empty(mask.numel(), 3, dtype=torch.int32, device=mask.device)
    count = torch.empty(1, dtype=torch.int32, device=mask.device)
    read, *written = (c_void_p(tensor.data_ptr()) for tensor in (mask, index, count))
    launch(
        "blocks_from_mask",
        work=1,
        arguments=[read, *map(c_int32, mask.shape), *written],
        device=mask.device,
    )
    return index, count
