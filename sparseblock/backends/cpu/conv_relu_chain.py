"""conv_relu_chain of the cpu backend: csrc/cpu/conv2d.cpp, once a layer."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native, packed_weight
from sparseblock.grid import conv_extent


def conv_relu_chain(x, weights, biases, stride, padding) -> list[torch.Tensor]:
    """The map behind every layer, channels-last."""
    maps = []
    for weight, bias in zip(weights, biases, strict=True):
        k, c, *kernel = weight.shape
        sides = [conv_extent(side, r, stride, padding, 1) for side, r in zip(x.shape[2:], kernel, strict=True)]
        out = torch.empty((x.shape[0], k, *sides), memory_format=torch.channels_last)
        conv = native.Conv2d(c, k, 1, *kernel, stride, stride, padding, padding, 1, 1)
        packed = packed_weight.kept(conv, weight)
        conv.packed_weight = packed.data_ptr()
        native.lib().sb_conv2d_run(
            byref(conv),
            byref(native.epilogue_of(bias=bias, activation="relu")),
            byref(native.plane_of(x)),
            None,
            None,
            byref(native.plane_of(out)),
            torch.get_num_threads(),
        )
        maps.append(out)
        x = out
    return maps
