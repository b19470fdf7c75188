"""Gradient of interpolate, cpu backend: csrc/cpu/input_grad.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cpu.interpolate import struct


def interpolate_backward(call, grad, packed, needs):
    x = torch.zeros(call.shapes["x"]).contiguous(memory_format=torch.channels_last)
    native.lib().sb_interpolate_input_grad_run(
        byref(struct(x.shape, grad.shape, call.method, call.align_corners, call.scale_factor)),
        byref(native.plane_of(grad)),
        byref(native.blocks_of(call.index, call.count, call.block)),
        byref(native.plane_of(x)),
        torch.get_num_threads(),
    )
    return {"x": x}
