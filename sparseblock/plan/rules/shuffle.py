"""Elements in another order: pixels that become channels, channels that become pixels, channels of groups in turn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from sparseblock.plan.ir import Ref, Shuffle, Torch
from sparseblock.plan.rules._base import rule

if TYPE_CHECKING:
    from sparseblock.plan.lower import _Lowering

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten.reshape.default)
_COPIES = (_aten.contiguous.default, _aten.clone.default)


@rule("pixel_shuffle")
def pixel_shuffle(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Shuffle("pixel_shuffle", a.upscale_factor), [a.input])


@rule("pixel_unshuffle")
def pixel_unshuffle(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Shuffle("pixel_unshuffle", a.downscale_factor), [a.input])


@rule("channel_shuffle")
def channel_shuffle(lower: _Lowering, a: SimpleNamespace) -> Ref:
    lower.value(a.input)
    return lower.emit(Shuffle("channel_shuffle", a.groups), [a.input])


def viewed_channel_shuffle(lower: _Lowering, ref: object, shape: tuple[int, ...]) -> Ref | None:
    """A view to `shape` of `ref`, where that is how ShuffleNet writes a channel shuffle: of the map [1, c, h, w] as
    [1, groups, c / groups, h, w], axes 1 and 2 exchanged, as a map again.
    """
    swap = lower.producer(ref)
    while swap is not None and isinstance(swap.op, Torch) and swap.op.target in _COPIES:
        swap = lower.producer(swap.op.args[0])
    if swap is None or not isinstance(swap.op, Torch) or not _exchanges_groups(swap.op):
        return None
    view = lower.producer(swap.op.args[0])
    if view is None or not isinstance(view.op, Torch) or view.op.target not in _VIEWS:
        return None
    x, grouped = view.op.args[0], lower.values[view.output].shape
    if not lower.values[x.name].is_map or lower.values[x.name].shape != shape or len(grouped) != 5:
        return None
    if grouped[0] != 1 or grouped[3:] != shape[2:]:
        return None
    return lower.emit(Shuffle("channel_shuffle", grouped[1]), [x])


def _exchanges_groups(op: Torch) -> bool:
    """Whether it exchanges axes 1 and 2 of five."""
    if op.target == _aten.transpose.int:
        return sorted(axis % 5 for axis in op.args[1:]) == [1, 2]
    return op.target == _aten.permute.default and [axis % 5 for axis in op.args[1]] == [0, 2, 1, 3, 4]
