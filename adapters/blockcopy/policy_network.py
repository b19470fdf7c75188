"""The policy network: one logit per block, from the frame, what was last executed, the previous output and grid.

After Verelst and Tuytelaars, ICCV 2021, section 3.1; what differs and why: docs/design/0004-policy.md.
"""

from __future__ import annotations

import torch
from torch import nn

from blockcopy.information_gain import Task
from blockcopy.policy import Context
from blockcopy.view import PIXELS, block_mean
from sparseblock.dense import conv_relu_chain, stack

WIDTHS = (8, 16, 32)
LOGIT_BOUND = 24.0
"""Logits lie in (-24, 24), so the level that answers them, and with it the miss of the target, is bounded."""


class PolicyNetwork(nn.Module):
    """Logits [rows, cols] of the blocks. Two parts are added.

    `body` sees 8x8 policy pixels a block: three 4x4 convolutions of stride 2 bring each block down to one pixel
    (windows of 3x3 would lie off the block's centre), a 1x1 convolution to one value. `summary` is linear in a few
    numbers a block that say directly how much the block may have changed. Both start at zero: p = 0.5 for every
    block.

    Args:
        frame_channels: c of the frame.
        output_channels: k' of the remembered output (see Task.features).
        summaries: numbers a block in `summary`.
    """

    def __init__(self, frame_channels: int, output_channels: int, summaries: int) -> None:
        super().__init__()
        widths = (2 * frame_channels + 1 + output_channels + 1, *WIDTHS)
        self.body = nn.ModuleList(nn.Conv2d(c, k, 4, stride=2, padding=1) for c, k in zip(widths, WIDTHS, strict=False))
        self.value = nn.Conv2d(WIDTHS[-1], 1, 1, bias=False)
        self.summary = nn.Conv2d(summaries, 1, 1)
        for parameter in (self.value.weight, self.summary.weight, self.summary.bias):
            nn.init.zeros_(parameter)

    def forward(self, pixels: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        """Logits [rows, cols] of what `inputs` makes: pixels [1, c, rows * 8, cols * 8], summary [1, s, rows, cols]."""
        weights, biases = [conv.weight for conv in self.body], [conv.bias for conv in self.body]
        body = conv_relu_chain(pixels, weights, biases, stride=2, padding=1)
        logits = _mix(self.value.weight, body) + _mix(self.summary.weight, summary) + self.summary.bias
        return LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND)

    def macs(self, rows: int, cols: int) -> int:
        """Multiply-adds of one forward pass over rows x cols blocks."""
        side, total = PIXELS, 0
        for conv in self.body:
            side //= 2
            total += side * side * conv.weight.numel()
        return rows * cols * (total + self.value.weight.numel() + self.summary.weight.numel())


def summaries(task: Task) -> int:
    """How many numbers a block `inputs` puts into the summary."""
    return 3 if task.uncertainty is None else 4


@torch.no_grad()
def inputs(context: Context, task: Task, change_level: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network reads: (pixels, summary). No gradient flows into it.

    Args:
        context: what is known before the decision.
        task: how the previous output is read.
        change_level: the running mean of |frame - last executed|, by which changes are scaled.
    """
    change = context.change / (change_level + 1e-3)
    active = context.active.float() - 0.5
    maps = [
        context.frame,
        context.executed,
        _log_scaled(change)[None, None],
        task.centred(context.output),
        active[None, None],
    ]
    pixels = stack(maps, *context.frame.shape[2:])
    summary = [active, _log_scaled(block_mean(change, context.grid)), torch.log1p(context.age.float()) / 2 - 0.5]
    if task.uncertainty is not None:
        summary.append(_log_scaled(10 * block_mean(task.uncertainty(context.output), context.grid)))
    return pixels, torch.stack(summary)[None]


def _mix(weight: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """1x1 convolution to one channel: weight [1, k, 1, 1], maps [1, k, y, x] to [y, x]."""
    return torch.mv(maps[0].flatten(1).t(), weight.flatten()).view(maps.shape[2:])


def _log_scaled(x: torch.Tensor) -> torch.Tensor:
    """About -1 where x is 0, 0 where it is 1, 1 where it is 10."""
    return torch.log(x + 0.1) / 2
