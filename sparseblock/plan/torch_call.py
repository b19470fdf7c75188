"""One call to torch on whole planes, for a node without a block-sparse rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.cache import FeatureCache
from sparseblock.plan.ir import Node, Ref

View = tuple[str, list[int]]  # "reshape" to a shape, or "permute" axes
Locals = list[dict[str, Any]]  # per stream: values without a plane, of this frame only


def concat_of_views(maps: list[torch.Tensor], views: list[list[View]], axis: int) -> torch.Tensor:
    """Views of maps, however these lie, side by side along `axis`. Its result is memory of its own."""
    seen = []
    for x, of_map in zip(maps, views, strict=True):
        for kind, sizes in of_map:
            x = x.reshape(sizes) if kind == "reshape" else x.permute(sizes)
        seen.append(x)
    return torch.cat(seen, axis)


def write_elements(x: torch.Tensor, part: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`x` with `part` at `places` of its elements, counted row by row."""
    return x.flatten().index_copy(0, places.flatten(), part.flatten()).reshape(x.shape)


class TorchCall:
    """The call, once per stream: a captured graph knows one image, its sizes may hold a batch of one.

    Operators such as `view` depend on how their input lies in memory. Capture saw contiguous maps where the plan has
    channels-last planes with a border, so the call gets contiguous copies, in float32 whatever planes are stored in.
    Copies also of planes that are contiguous: the caller may get a view of what the call does, and nobody would know.
    Only `concat_of_views` is known to need none.
    """

    def __init__(self, node: Node, with_plane: set[str]) -> None:
        self.node = node
        self._leaves, self._spec = pytree.tree_flatten((node.op.args, node.op.kwargs))
        self._with_plane = with_plane
        self._reads_in_place = node.op.target is concat_of_views

    def run(self, state: FeatureCache, held: Locals, streams: Iterable[int]) -> None:
        """Makes the node's value of `streams`, in its plane or in `held`."""
        name = self.node.output
        for stream in streams:
            args, kwargs = pytree.tree_unflatten(
                [self._lookup(leaf, state, held, stream) for leaf in self._leaves], self._spec
            )
            result = self.node.op.target(*args, **kwargs)
            if self._reads_in_place:
                result = result.to(torch.float32)
            if name in self._with_plane:
                state[name][stream : stream + 1].copy_(result)
            else:
                held[stream][name] = result

    def _lookup(self, leaf: Any, state: FeatureCache, held: Locals, stream: int) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        if leaf.name in self._with_plane:
            value = state[leaf.name][stream : stream + 1]
            if self._reads_in_place:
                return value
            return value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return held[stream][leaf.name]
