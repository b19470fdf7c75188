"""Gradient of interpolate."""

from __future__ import annotations

from sparseblock.backends.cpu.interpolate import struct
from sparseblock.backends.gradients import compute


def interpolate_backward(call, grad, packed, needs):
    size, place = call.shapes["x"], (call.index, call.count, call.block)
    resize = struct(size, grad.shape, call.method, call.align_corners, call.scale_factor)
    return {"x": compute("interpolate_input_grad", grad, *place, resize, size)}
