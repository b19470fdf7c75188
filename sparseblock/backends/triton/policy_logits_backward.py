"""The gradient of policy_logits, triton backend: operators of torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.triton.policy_logits import WINDOW, split


def policy_logits_backward(grad, parameters, pixels, summary, logits, seen, widths, bound) -> torch.Tensor:
    *layers, weights, _ = split(parameters, pixels.shape[2], widths)
    slope = (grad * (1 - (logits / bound).square())).flatten()
    maps = torch.cat([seen[-1], summary]).flatten(1)
    parts = [torch.mv(maps, slope), slope.sum(0, keepdim=True)]
    of_output = torch.outer(weights[: widths[-1]], slope)  # [k, y * x]
    for number in reversed(range(len(layers))):
        columns, output = seen[2 * number : 2 * number + 2]
        of_output = of_output * (output.flatten(1) > 0)
        parts = [torch.mm(of_output, columns.t()).flatten(), of_output.sum(1), *parts]
        if number:
            below = torch.mm(layers[number][0].t(), of_output)
            of_output = F.fold(below[None], seen[2 * number - 1].shape[1:], **WINDOW)[0].flatten(1)
    return torch.cat(parts)
