"""One call to torch on whole planes, for a node without a block-sparse rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.cache import FeatureCache
from sparseblock.plan.ir import Node, Ref

Locals = list[dict[str, Any]]  # per stream: values without a plane, of this frame only


class TorchCall:
    """The call, once per stream: a captured graph knows one image, its sizes may hold a batch of one.

    Operators such as `view` depend on how their input lies in memory. Capture saw contiguous maps where the plan has
    channels-last planes with a border, so the call gets contiguous copies, in float32 whatever planes are stored in.
    Copies also of planes that are contiguous: the caller may get a view of what the call does, and nobody would know.
    """

    def __init__(self, node: Node, with_plane: set[str]) -> None:
        self.node = node
        self._leaves, self._spec = pytree.tree_flatten((node.op.args, node.op.kwargs))
        self._with_plane = with_plane

    def run(self, state: FeatureCache, held: Locals, streams: Iterable[int]) -> None:
        """Makes the node's value of `streams`, in its plane or in `held`."""
        name = self.node.output
        for stream in streams:
            args, kwargs = pytree.tree_unflatten(
                [self._lookup(leaf, state, held, stream) for leaf in self._leaves], self._spec
            )
            result = self.node.op.target(*args, **kwargs)
            if name in self._with_plane:
                state[name][stream : stream + 1].copy_(result)
            else:
                held[stream][name] = result

    def _lookup(self, leaf: Any, state: FeatureCache, held: Locals, stream: int) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        if leaf.name in self._with_plane:
            value = state[leaf.name][stream : stream + 1]
            return value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return held[stream][leaf.name]
