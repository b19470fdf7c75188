"""Gradient of global_avg_pool2d: every cell counts by its pixels."""

from __future__ import annotations

from sparseblock.backends.gradients.group_norm import pixels_of_cells


def global_avg_pool2d_backward(call, grad, packed, needs):
    return {"moments": grad * (pixels_of_cells(call.size, call.cell, grad.device) / (call.size[0] * call.size[1]))}
