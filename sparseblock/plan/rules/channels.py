"""Channels put together and taken apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import Concat, Ref, Slice
from sparseblock.plan.rules._base import Unsupported, is_channels, not_empty, rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering


@rule("cat", "concat")
def cat(lower: _Lowering, a: SimpleNamespace) -> Ref:
    values = [lower.value(ref, "one of its inputs") for ref in a.tensors]
    if not is_channels(lower, a.dim):
        raise Unsupported(f"joins maps along axis {a.dim}, not along the channels")
    return a.tensors[0] if len(values) == 1 else lower.emit(Concat(), list(a.tensors))


@rule("slice")
def slice_channels(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value, result = lower.value(a.input), lower.result
    if tuple(result.shape) == value.shape:
        return a.input
    not_empty(result)
    if not is_channels(lower, a.dim) or a.step != 1:
        raise Unsupported(f"no block-sparse rule for a slice along axis {a.dim} in steps of {a.step}")
    start = a.start or 0
    return lower.emit(Slice(start if start >= 0 else max(start + value.shape[1], 0)), [a.input])


@rule("narrow")
def narrow(lower: _Lowering, a: SimpleNamespace) -> Ref:
    value = lower.value(a.input)
    if not is_channels(lower, a.dim) or isinstance(a.start, (Ref, torch.Tensor)):
        raise Unsupported(f"no block-sparse rule for a slice along axis {a.dim}")
    not_empty(lower.current.meta["val"])
    return lower.emit(Slice(a.start if a.start >= 0 else a.start + value.shape[1]), [a.input])


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def split(lower: _Lowering, a: SimpleNamespace) -> tuple[Ref, ...]:
    lower.value(a.input)
    if not is_channels(lower, a.dim):
        raise Unsupported(f"splits a map along axis {a.dim}, not along the channels")
    for part in lower.result:
        not_empty(part)
    parts, start = [], 0
    for part in lower.result:
        parts.append(lower.emit(Slice(start), [a.input], tuple(part.shape)))
        start += part.shape[1]
    return tuple(parts)
