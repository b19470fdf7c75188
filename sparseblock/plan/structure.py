"""A graph without its weights: what a plan pickles, and what the graph of a model that lends it weights must be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sparseblock.errors import SparseBlockError
from sparseblock.plan.ir import Conv2d, Graph, Node, Ref, Torch

_VECTORS = ("scale", "shift", "slope")


def without_filters(graph: Graph) -> Graph:
    """The graph with the sizes of the convolutions' weights, but not their values."""
    return graph.with_nodes([without_filter(node) for node in graph.nodes])


def without_filter(node: Node) -> Node:
    """The node with the size of its weight alone, if it is a convolution."""
    return replace(node, op=replace(node.op, weight=_meta(node.op.weight))) if isinstance(node.op, Conv2d) else node


def without_weights(graph: Graph) -> Graph:
    """The graph with every tensor in it on torch's meta device: sizes and types, no values."""
    return graph.with_nodes([_emptied(node) for node in graph.nodes])


def _emptied(node: Node) -> Node:
    op, e = node.op, node.epilogue
    if isinstance(op, Conv2d):
        op = replace(op, weight=_meta(op.weight), bias=_meta(op.bias))
    elif isinstance(op, Torch):
        args, kwargs = pytree.tree_map(_meta, (op.args, op.kwargs))
        op = replace(op, args=args, kwargs=kwargs)
    return replace(node, op=op, epilogue=replace(e, **{name: _meta(getattr(e, name)) for name in _VECTORS}))


def _meta(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf


def check_same(own: Graph, other: Graph, model: str) -> None:
    """Raises SparseBlockError unless both graphs differ in nothing but the values of tensors."""
    for mine, yours in zip(own.nodes, other.nodes, strict=False):
        if _described(mine) != _described(yours):
            given, wanted = yours.title, mine.title
            if given == wanted:
                setting, own_value, given_value = _difference(mine, yours)
                given, wanted = f"{given} with {setting} {_shown(given_value)}", _shown(own_value)
            raise SparseBlockError(
                f"plan: {model} has {given} where the plan has {wanted}; "
                "give it the model that it was compiled from, with any weights"
            )
    if len(own.nodes) != len(other.nodes) or _described(own.outputs) != _described(other.outputs):
        raise SparseBlockError(
            f"plan: {model} makes {len(other.nodes)} nodes and {len(other.outputs)} outputs, but the plan has "
            f"{len(own.nodes)} and {len(own.outputs)}; give it the model that it was compiled from, with any weights"
        )


def _difference(mine: Any, yours: Any) -> tuple[str, Any, Any]:
    """The first setting in which two nodes or their parts differ, as a path of fields, and both its values."""
    pairs: list[tuple[str, Any, Any]] = []
    if dataclasses.is_dataclass(mine) and type(mine) is type(yours):
        names = [field.name for field in dataclasses.fields(mine)]
        pairs = [(name, getattr(mine, name), getattr(yours, name)) for name in names]
    elif isinstance(mine, Mapping) and isinstance(yours, Mapping) and mine.keys() == yours.keys():
        pairs = [(str(key), mine[key], yours[key]) for key in mine]
    for name, one, other in pairs:
        if _described(one) != _described(other):
            path, *values = _difference(one, other)
            return ".".join(filter(None, (name, path))).removeprefix("op."), *values
    return "", mine, yours


def _shown(value: Any) -> str:
    """A setting in a few words."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if dataclasses.is_dataclass(value):
        return value.name if isinstance(value, Ref) else type(value).__name__
    return f"({', '.join(map(_shown, value))})" if isinstance(value, (list, tuple)) else repr(value)


def _described(item: Any) -> Any:
    """What of it is not the value of a tensor, to compare."""
    if isinstance(item, torch.Tensor):
        return (item.dtype, tuple(item.shape))
    if dataclasses.is_dataclass(item):
        return (type(item), *(_described(getattr(item, field.name)) for field in dataclasses.fields(item)))
    if isinstance(item, Mapping):
        return {key: _described(value) for key, value in item.items()}
    return tuple(map(_described, item)) if isinstance(item, (list, tuple)) else item
