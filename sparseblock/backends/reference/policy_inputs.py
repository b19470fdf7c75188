"""policy_inputs of the reference backend."""

from __future__ import annotations

import math

import torch


def policy_inputs(
    frame, executed, mean, deviation, features, active, age, level, momentum, logarithms, pixels, summary
) -> torch.Tensor:
    rows, cols = active.shape
    mean, deviation, level = (x.to(frame.dtype) for x in (mean, deviation, level))
    frame, executed = ((x - mean[:, None, None]) / deviation[:, None, None] for x in (frame, executed))
    change = (frame - executed).abs().mean(1)[0]
    of_frame = change.mean()
    level = torch.where(level.isnan(), of_frame, momentum * level + (1 - momentum) * of_frame)
    change = change / (level + 1e-3)
    active = active.to(frame.dtype) - 0.5
    maps = [frame[0], executed[0], _log_scaled(change)[None], (features.exp() if logarithms else features)[0] - 0.5]
    large = [_enlarged(x, frame.shape[2:]) for x in (*maps, active[None])]
    pixels.copy_(torch.cat(large).permute(1, 2, 0))
    numbers = [active, _log_scaled(_block_mean(change, rows, cols)), torch.log1p(age.to(frame.dtype)) / 2 - 0.5]
    if logarithms:
        entropy = -(features.exp() * features).sum(1)[0] / math.log(features.shape[1])
        numbers.append(_log_scaled(10 * _block_mean(entropy, rows, cols)))
    summary.copy_(torch.stack(numbers))
    return level


def _enlarged(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return x.repeat_interleave(size[0] // x.shape[1], 1).repeat_interleave(size[1] // x.shape[2], 2)


def _block_mean(x: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    return x.reshape(rows, x.shape[0] // rows, cols, x.shape[1] // cols).mean((1, 3))


def _log_scaled(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x + 0.1) / 2
