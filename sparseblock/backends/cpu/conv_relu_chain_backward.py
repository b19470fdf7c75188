"""Gradients of conv_relu_chain, cpu backend: csrc/cpu/conv2d_weight_grad.cpp, and conv2d.cpp, transposed."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native, packed_weight


def conv_relu_chain_backward(grad, x, weights, maps, stride, padding, x_needs_grad):
    """(gradient of x or None, those of the weights, those of the biases)."""
    threads = torch.get_num_threads()
    grad_weights, grad_biases = [], []
    for layer in reversed(range(len(weights))):
        below, weight = maps[layer - 1] if layer else x, weights[layer]
        k, c, *kernel = weight.shape
        above = torch.where(maps[layer] > 0, grad, 0.0).contiguous(memory_format=torch.channels_last)
        window = (1, *kernel, stride, stride, padding, padding, 1, 1)
        grad_weights.insert(0, torch.empty(weight.shape, memory_format=torch.channels_last))
        grad_biases.insert(0, torch.empty(k))
        native.lib().sb_conv2d_weight_grad_run(
            byref(native.Conv2d(c, k, *window)),
            byref(native.plane_of(below)),
            byref(native.plane_of(above)),
            None,
            grad_weights[0].data_ptr(),
            grad_biases[0].data_ptr(),
            threads,
        )
        if layer or x_needs_grad:
            transposed = native.Conv2d(k, c, *window, transposed=1)
            packed = packed_weight.kept(transposed, weight)
            transposed.packed_weight = packed.data_ptr()
            grad = torch.empty(below.shape, memory_format=torch.channels_last)
            native.lib().sb_conv2d_run(
                byref(transposed),
                byref(native.epilogue_of()),
                byref(native.plane_of(above)),
                None,
                None,
                byref(native.plane_of(grad)),
                threads,
            )
    return grad if x_needs_grad else None, grad_weights, grad_biases
