"""The gradient of policy_logits, cuda backend: operators of torch on the maps that csrc/cuda/policy_conv2d.cu wrote."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.triton import policy_logits_backward as by_torch
from sparseblock.backends.triton.policy_logits import WINDOW


def policy_logits_backward(grad, parameters, pixels, summary, logits, maps, widths, bound) -> torch.Tensor:
    seen, below = [], pixels
    for written in maps:
        seen += [F.unfold(below.permute(2, 0, 1)[None], **WINDOW)[0], written.permute(2, 0, 1)]
        below = written
    return by_torch.policy_logits_backward(grad, parameters, pixels, summary, logits, seen, widths, bound)
