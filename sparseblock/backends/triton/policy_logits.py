"""policy_logits of the triton backend: operators of torch, convolutions as products of matrices.

So they are float32 whatever cuDNN would round to, and no algorithm is searched for while a graph is recorded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

WINDOW = {"kernel_size": 4, "stride": 2, "padding": 1}


def policy_logits(parameters, pixels, summary, widths, bound) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The second result: of every convolution what it read, as columns [c * 16, y * x], and wrote, [k, y, x]."""
    *layers, weights, bias = split(parameters, pixels.shape[2], widths)
    x, seen = pixels.permute(2, 0, 1), []
    for filters, shift in layers:
        columns = F.unfold(x[None], **WINDOW)[0]
        x = torch.addmm(shift[:, None], filters, columns).relu_().view(-1, x.shape[1] // 2, x.shape[2] // 2)
        seen += [columns, x]
    linear = torch.addmv(bias, torch.cat([x, summary]).flatten(1).t(), weights)
    return bound * torch.tanh(linear / bound).view(summary.shape[1:]), seen


def split(parameters: torch.Tensor, c: int, widths: list[int]) -> list:
    """(filters [k, c * 16], bias [k]) of every convolution of `c` channels at first, weights of the rest, its bias."""
    parts, rest = [], parameters
    for k in widths:
        filters, bias, rest = rest.tensor_split((k * c * 16, k * c * 16 + k))
        parts.append((filters.view(k, c * 16), bias))
        c = k
    return [*parts, rest[:-1], rest[-1:]]
