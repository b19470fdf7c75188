"""Gradients of conv_relu_chain, reference backend: torch's own of every convolution."""

from __future__ import annotations

import torch


def conv_relu_chain_backward(grad, x, weights, maps, stride, padding, x_needs_grad):
    """(gradient of x or None, those of the weights, those of the biases)."""
    grad_weights, grad_biases = [], []
    for layer in reversed(range(len(weights))):
        below, weight = maps[layer - 1] if layer else x, weights[layer]
        grad = grad * (maps[layer] > 0)
        grad_weights.insert(0, torch.nn.grad.conv2d_weight(below, weight.shape, grad, stride, padding))
        grad_biases.insert(0, grad.sum((0, 2, 3)))
        if layer or x_needs_grad:
            grad = torch.nn.grad.conv2d_input(below.shape, weight, grad, stride, padding)
    return grad if x_needs_grad else None, grad_weights, grad_biases
