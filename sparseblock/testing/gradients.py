"""Gradients of a call, and what they are held to: the reference's, which torch's autograd makes of its own formula."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparseblock.backends import backend
from sparseblock.testing.case import Case, channels_last
from sparseblock.testing.compare import assert_matches

CPU = torch.device("cpu")
NORMS = ("group_norm", "layer_norm", "normalize", "softmax")


def tensors_of(case: Case) -> dict[str, torch.Tensor]:
    """What a gradient may flow to, by argument name."""
    return {key: value for key, value in {**case.maps, **case.keywords}.items() if isinstance(value, torch.Tensor)}


def whole(case: Case) -> Case:
    """The same with small whole numbers for values and halves for slopes: float32 then computes without rounding."""

    def round(key, value):
        if key == "slope" and value is not None:
            return (2 * value).round() / 2 if isinstance(value, torch.Tensor) else 0.5
        return value.nan_to_num(0).clamp(-3, 3).round() if isinstance(value, torch.Tensor) else value

    keywords = {key: round(key, value) for key, value in case.keywords.items()}
    if keywords.get("activation") not in (None, "relu", "relu6", "clamp", "leaky_relu", "prelu"):
        keywords |= {"activation": "relu6", "slope": None}
    if keywords.get("activation") == "leaky_relu":
        keywords["slope"] = -0.5
    if case.oracle.__name__ in NORMS and keywords.get("activation") is not None:  # not of whole numbers: without kinks
        keywords |= {"activation": "sigmoid", "slope": None, "bounds": None}
    return replace(case, maps={key: round(key, value) for key, value in case.maps.items()}, keywords=keywords)


def grads_of(
    case: Case,
    grad: torch.Tensor,
    before: torch.Tensor,
    name: str,
    dtype: torch.dtype | None,
    device: torch.device = CPU,
    of: set[str] | None = None,
    repeated: tuple[int, ...] = (),
) -> dict[str, torch.Tensor]:
    """The gradient of every tensor and, as "out", of what `out` held, on backend `name`; all in `dtype`, or as is. Of
    those in `of` alone, where it is given. Maps are expanded from their first elements along the axes `repeated`.
    """

    def copied(key, value):
        shape = value.shape
        for axis in repeated if key in case.maps else ():
            value = value.narrow(axis, 0, 1)
        value = value.detach().clone().to(device) if dtype is None else value.to(device, dtype)
        return channels_last(value).expand(shape) if value.dim() == 4 else value

    tensors = {key: copied(key, value) for key, value in {**tensors_of(case), "out": before.to(case.dtype)}.items()}
    leaves = {key: value.requires_grad_() for key, value in tensors.items() if of is None or key in of}
    given = {**case.maps, **case.keywords, **tensors}
    del given["out"]
    blocks = replace(case.blocks, index=case.blocks.index.to(device), count=case.blocks.count.to(device))
    with backend(name):
        out = case.call(**given, blocks=blocks, out=tensors["out"].clone())
    # Out of force: autograd may go back in a thread that knows of no backend.
    grads = torch.autograd.grad(out, list(leaves.values()), grad.to(device, out.dtype))
    return {key: value.cpu() for key, value in zip(leaves, grads, strict=True)}


def check_gradients(
    case: Case,
    allowed: float,
    generator: torch.Generator,
    relative: float = 0.0,
    dtype: torch.dtype | None = torch.float32,
    name: str = "cpu",
    device: torch.device = CPU,
    repeated: tuple[int, ...] = (),
) -> None:
    """The gradients of backend `name`, on `device`, are the reference's in float64, of a result that a whole gradient
    flows back into.

    Args:
        case: of whole numbers, where no rounding is allowed.
        allowed: absolutely, of every element.
        generator: of the gradient, and of what `out` holds.
        relative: what is allowed besides, as a part of the reference's.
        dtype: of all tensors; None: as the case stores them.
        repeated: axes along which maps are expanded from their first elements.
    """
    grad, before = (torch.randint(-2, 3, case.out_shape, generator=generator).float() for _ in range(2))
    expected = grads_of(case, grad, before, "reference", torch.float64, repeated=repeated)
    for key, actual in grads_of(case, grad, before, name, dtype, device, repeated=repeated).items():
        assert_matches(actual, expected[key], allowed, relative=relative)
