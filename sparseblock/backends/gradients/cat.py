"""Gradient of cat: slices of the gradient."""

from __future__ import annotations


def cat_backward(call, grad, packed, needs):
    names = [name for name in call.shapes if name != "out"]
    parts = grad.split([call.shapes[name][1] for name in names], dim=1)
    return {name: part for name, part in zip(names, parts, strict=True) if name in needs}
