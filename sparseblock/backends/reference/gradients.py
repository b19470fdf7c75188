"""Gradients of the reference backend: torch's autograd through the forward formulas. Keeps every input."""

from __future__ import annotations

import torch

from sparseblock import backends


def record(name: str, arguments: dict[str, object]) -> dict[str, torch.Tensor]:
    """Runs the op; returns what `backward` reads: all tensors as they were before."""
    kept = {}
    for key, value in arguments.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            kept[key] = value.clone()
        elif key == "tensors":
            kept |= {f"tensors[{i}]": tensor.clone() for i, tensor in enumerate(value)}
    getattr(torch.ops.sparseblock, name)(*arguments.values())
    return kept


def backward(name: str, arguments, grad: torch.Tensor, needs: set[str]) -> dict[str, torch.Tensor]:
    """The gradients of the tensors in `needs`, by name."""
    leaves = {
        key: value.detach().requires_grad_()
        for key, value in vars(arguments).items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    given = {**vars(arguments), **leaves, "tensors": [leaves[key] for key in leaves if key.startswith("tensors[")]}
    with torch.enable_grad():
        out = given["out"] = leaves["out"].clone()
        backends.implementation("reference", name)(*(given[key] for key in arguments.names))
        wanted = sorted(needs)
        grads = torch.autograd.grad(
            out, [leaves[key] for key in wanted], grad, allow_unused=True, materialize_grads=True
        )
    return dict(zip(wanted, grads, strict=True))
