"""Gradient of layer_norm: on packed blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparseblock.backends.gradients import differentiate, pack, unpack


def layer_norm_backward(call, grad, packed, needs):
    c = grad.shape[1:2]
    weight = getattr(call, "weight", None)
    weight = grad.new_ones(c) if weight is None else weight

    def norm(x, weight):
        return F.layer_norm(x.movedim(1, -1), c, weight, eps=call.eps).movedim(-1, 1)

    x = pack(call, call.x)
    # Pixels that are none must not divide by eps = 0: their channels differ.
    x[:, :1] += 1 - pack(call, torch.ones_like(call.x[:, :1]))
    grads = differentiate(norm, {"x": x, "weight": weight}, packed, needs)
    if "x" in needs:
        grads["x"] = unpack(call, grads["x"], torch.zeros_like(grad))
    return grads
