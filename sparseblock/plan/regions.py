"""Regions of a captured graph that change no value, such as autocast switched off, become part of the graph around."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from sparseblock.plan.capture import Uncapturable


def inline_regions(module: fx.GraphModule) -> fx.GraphModule:
    """The module, changed, without the graphs that export makes of `with torch.no_grad()` or `torch.autocast(...)`.

    Raises:
        Uncapturable: autocast is switched on in the model, for the cpu.
    """
    graph = module.graph
    for node in list(graph.nodes):
        match getattr(node.target, "__name__", "") if node.op == "call_function" else "":
            case "wrap_with_set_grad_enabled":
                _, region, *given = node.args
            case "wrap_with_autocast":
                device, _, enabled, _, region, *given = node.args
                if enabled and device == "cpu":
                    raise Uncapturable(
                        f"compile: {node.name} switches autocast on, but a plan computes in float32; switch it off in "
                        "the model, with dtype= for what is stored"
                    )
            case _:
                continue
        inner = inline_regions(module.get_submodule(region.target))
        outer: dict[fx.Node, Any] = dict(zip(inner.graph.find_nodes(op="placeholder"), given, strict=True))
        with graph.inserting_before(node):
            for step in inner.graph.nodes:
                if step.op in ("placeholder", "output"):
                    continue
                outer[step] = graph.node_copy(step, outer.__getitem__)
                if step.op == "get_attr":
                    outer[step].target = f"{region.target}.{step.target}"
        results = pytree.tree_map_only(fx.Node, outer.__getitem__, inner.graph.output_node().args[0])
        for user in list(node.users):
            assert user.target is operator.getitem, "a region returns a tuple"
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
        if not region.users:
            graph.erase_node(region)
    return module
