"""Gradient of pad, cpu backend: what lies outside goes back to the pixels that it shows."""

from __future__ import annotations

import torch.nn.functional as F

from sparseblock.backends.cpu.gradients import differentiate


def pad_backward(call, grad, packed, needs):
    return {"x": folded(grad, call.shapes["x"], call.padding, call.padding_mode)}


def folded(grad, size, padding, mode):
    """The gradient of a map of `size` where that of the padded one is `grad`; `padding`: left, right, top, bottom."""
    (result,) = differentiate(lambda x: F.pad(x, padding, mode), [grad.new_zeros(size)], grad)
    return result
