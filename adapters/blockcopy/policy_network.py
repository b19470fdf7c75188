"""The policy network: one logit per block, from the frame, what was last executed, the previous output and grid.

After Verelst and Tuytelaars, ICCV 2021, section 3.1; what differs and why: docs/design/0004-policy.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from blockcopy.information_gain import Task
from blockcopy.numbers import Number
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
        device: where it computes; its initial values are the same on any.

    Attributes:
        parameters: all of them, float32 and flat.
        summaries: as given.
    """

    def __init__(
        self, frame_channels: int, output_channels: int, summaries: int, device: torch.device | str = "cpu"
    ) -> None:
        channels = (2 * frame_channels + 1 + output_channels + 1, *WIDTHS)
        convs = [nn.Conv2d(c, k, 4) for c, k in zip(channels, WIDTHS, strict=False)]  # for their initial values
        initial: dict[str, torch.Tensor] = {}
        for layer, conv in enumerate(convs):
            initial |= {f"body.{layer}.weight": conv.weight.detach(), f"body.{layer}.bias": conv.bias.detach()}
        initial |= {"value.weight": torch.zeros(WIDTHS[-1])}
        initial |= {"summary.weight": torch.zeros(summaries), "summary.bias": torch.zeros(1)}
        self._shapes = {name: value.shape for name, value in initial.items()}
        self.summaries = summaries
        self.parameters = torch.cat([value.flatten() for value in initial.values()]).to(device)

    @property
    def named(self) -> dict[str, torch.Tensor]:
        """Every parameter by its name and in its shape, as views."""
        parts = self.parameters.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def __call__(self, pixels: torch.Tensor, summary: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """(logits [rows, cols] of what `inputs` makes; what `gradient` wants to know besides)."""
        return dense.policy_logits(self.parameters, pixels, summary, WIDTHS, LOGIT_BOUND)

    def gradient(self, grad: torch.Tensor, pixels: torch.Tensor, summary: torch.Tensor, *seen: Any) -> torch.Tensor:
        """That of the parameters, flat, given that of the logits, [rows, cols], and what the call gave."""
        return dense.policy_logits_backward(grad, self.parameters, pixels, summary, *seen, WIDTHS, LOGIT_BOUND)

    def macs(self, rows: int, cols: int) -> int:
        """Multiply-adds of one forward pass over rows x cols blocks."""
        side, total = PIXELS, 0
        for layer in range(len(WIDTHS)):
            side //= 2
            total += side * side * self._shapes[f"body.{layer}.weight"].numel()
        return rows * cols * (total + WIDTHS[-1] + self.summaries)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.cpu().clone() for name, value in self.named.items()}

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


def inputs(context: Context, task: Task, level: Number, momentum: float) -> tuple[torch.Tensor, torch.Tensor, Number]:
    """What the network reads: (pixels, summary, level).

    Args:
        context: what is known before the decision.
        task: how the previous output is read.
        level: the running mean of |frame - last executed|, by which changes are scaled; UNKNOWN at first.
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
