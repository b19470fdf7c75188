"""Gradient of pad: what lies outside goes back to the pixels that it shows."""

from __future__ import annotations

import torch


def pad_backward(call, grad, packed, needs):
    return {"x": folded(grad, call.shapes["x"], call.padding, call.padding_mode)}


def folded(grad: torch.Tensor, size: list[int], padding: list[int], mode: str) -> torch.Tensor:
    """The gradient of a map of `size` where that of the padded one is `grad`; `padding`: left, right, top, bottom.

    In slices, which are added in one order on every device; torch's own backward passes of paddings are not.
    """
    for axis, before, after in ((3, *padding[:2]), (2, *padding[2:])):
        length = size[axis]
        first, inside, last = grad.split([before, length, after], axis)
        grad = inside.clone()
        for outside, at_end in ((first, False), (last, True)):
            count = outside.shape[axis]
            if mode == "constant" or not count:
                continue
            if mode == "reflect":
                start = length - 1 - count if at_end else 1
                grad.narrow(axis, start, count).add_(outside.flip(axis))
            elif mode == "replicate":
                grad.narrow(axis, length - 1 if at_end else 0, 1).add_(outside.sum(axis, keepdim=True))
            else:
                grad.narrow(axis, 0 if at_end else length - count, count).add_(outside)
    return grad
