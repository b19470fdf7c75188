"""The policy network: one logit per block, from the frame, what was last executed, the previous output and grid.

After Verelst and Tuytelaars, ICCV 2021, section 3.1; what differs and why: docs/design/0004-policy.md.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from blockcopy.information_gain import Task
from blockcopy.policy import Context
from blockcopy.view import PIXELS
from sparseblock import dense

WIDTHS = (8, 16, 32)
LOGIT_BOUND = 24.0
"""Logits lie in (-24, 24), so the level that answers them, and with it the miss of the target, is bounded."""


class PolicyNetwork:
    """Logits [rows, cols] of the blocks. Two parts are added.

    The body sees 8x8 policy pixels a block: three 4x4 convolutions of stride 2 bring each block down to one pixel
    (windows of 3x3 would lie off the block's centre), a 1x1 convolution to one value. The summary part is linear in a
    few numbers a block that say directly how much the block may have changed. Both start at zero: p = 0.5 for every
    block. `sparseblock.dense.policy_logits` has the formula.

    Args:
        frame_channels: c of the frame.
        output_channels: k' of the remembered output (see Task.features).
        summaries: numbers a block in the summary.

    Attributes:
        parameters: all of them, float32 and flat.
        summary: those of the linear part, as a view.
        named: every one by its name and in its shape, as views.
    """

    def __init__(self, frame_channels: int, output_channels: int, summaries: int) -> None:
        channels = (2 * frame_channels + 1 + output_channels + 1, *WIDTHS)
        convs = [nn.Conv2d(c, k, 4) for c, k in zip(channels, WIDTHS, strict=False)]  # for their initial values
        initial: dict[str, torch.Tensor] = {}
        for layer, conv in enumerate(convs):
            initial |= {f"body.{layer}.weight": conv.weight.detach(), f"body.{layer}.bias": conv.bias.detach()}
        initial |= {"value.weight": torch.zeros(WIDTHS[-1])}
        linear = {"summary.weight": torch.zeros(summaries), "summary.bias": torch.zeros(1)}
        sizes = [value.numel() for value in (initial | linear).values()]
        self.parameters = torch.cat([value.flatten() for value in (initial | linear).values()])
        self.summary = self.parameters[sum(sizes[:-2]) :]
        views = zip((initial | linear).items(), self.parameters.split(sizes), strict=True)
        self.named = {name: view.view(value.shape) for (name, value), view in views}

    def __call__(self, pixels: torch.Tensor, summary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits [rows, cols] of what `inputs` makes; what `gradient` wants to know besides)."""
        return dense.policy_logits(self.parameters, pixels, summary, WIDTHS, LOGIT_BOUND)

    def gradient(
        self, grad: torch.Tensor, pixels: torch.Tensor, summary: torch.Tensor, *seen: torch.Tensor
    ) -> torch.Tensor:
        """That of the parameters, flat, given that of the logits, [rows, cols], and what the call gave."""
        return dense.policy_logits_backward(grad, self.parameters, pixels, summary, *seen, WIDTHS, LOGIT_BOUND)

    def macs(self, rows: int, cols: int) -> int:
        """Multiply-adds of one forward pass over rows x cols blocks."""
        side, total = PIXELS, 0
        for layer in range(len(WIDTHS)):
            side //= 2
            total += side * side * self.named[f"body.{layer}.weight"].numel()
        return rows * cols * (total + math.prod(self.named["value.weight"].shape) + len(self.summary) - 1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.named.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the parameters of another network of the same sizes.

        Raises:
            ValueError: they are others.
        """
        for name, value in self.named.items():
            if state[name].shape != value.shape:
                raise ValueError(f"{name}: {list(state[name].shape)} for {list(value.shape)}")
        for name, value in self.named.items():
            value.copy_(state[name])


def summaries(task: Task) -> int:
    """How many numbers a block `inputs` puts into the summary."""
    return 3 + task.logarithms


def inputs(
    context: Context, task: Task, level: float | None, momentum: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """What the network reads: (pixels, summary, level).

    Args:
        context: what is known before the decision.
        task: how the previous output is read.
        level: the running mean of |frame - last executed|, by which changes are scaled; None where there is none yet.
        momentum: of the level.
    """
    return dense.policy_inputs(
        context.frame,
        context.executed,
        context.output,
        context.active,
        context.age,
        mean=context.mean,
        deviation=context.deviation,
        level=level,
        momentum=momentum,
        logarithms=task.logarithms,
    )
