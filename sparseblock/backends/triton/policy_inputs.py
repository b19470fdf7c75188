"""policy_inputs of the triton backend: operators of torch, as few as can be."""

from __future__ import annotations

import math

import torch


def policy_inputs(
    frame, executed, mean, deviation, features, active, age, level, momentum, logarithms, pixels, summary
) -> torch.Tensor:
    (rows, cols), c = active.shape, frame.shape[1]
    mean, deviation, level = (x.to(frame.dtype) for x in (mean, deviation, level))
    pictures = (torch.cat([frame, executed]) - mean[:, None, None]) / deviation[:, None, None]
    change = (pictures[0] - pictures[1]).abs().mean(0)
    of_frame = change.mean()
    level = torch.where(level.isnan(), of_frame, momentum * level + (1 - momentum) * of_frame)
    change = change / (level + 1e-3)
    active = active.float() - 0.5
    # By blocks, so that the smaller maps are enlarged by being written: [rows, y, cols, x, channel].
    blocks = pixels.view(rows, pixels.shape[0] // rows, cols, pixels.shape[1] // cols, -1)
    blocks[..., : 2 * c] = _by_block(pictures.flatten(0, 1), rows, cols)
    blocks[..., 2 * c] = _log_scaled(change).view(blocks.shape[:4])
    read = features.exp() if logarithms else features
    side, times = features.shape[2] // rows, pixels.shape[0] // features.shape[2]
    fine = blocks[..., 2 * c + 1 : -1].unflatten(3, (side, times)).unflatten(1, (side, times))
    fine.copy_((_by_block(read[0], rows, cols) - 0.5)[:, :, None, :, :, None])
    blocks[..., -1] = active[:, None, :, None]
    summary[0] = active
    summary[1] = _log_scaled(change.view(blocks.shape[:4]).mean((1, 3)))
    summary[2] = torch.log1p(age.float()) / 2 - 0.5
    if logarithms:
        entropy = (read * features)[0].sum(0) / -math.log(features.shape[1])
        summary[3] = _log_scaled(10 * entropy.reshape(rows, side, cols, side).mean((1, 3)))
    return level


def _by_block(maps: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """[k, rows * y, cols * x] as [rows, y, cols, x, k]."""
    return maps.unflatten(2, (cols, -1)).unflatten(1, (rows, -1)).permute(1, 2, 3, 4, 0)


def _log_scaled(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x + 0.1) / 2
