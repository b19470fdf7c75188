"""From an ATen graph to the planner's own: constants evaluated, in-place operators made functional, rules applied.

What has a rule (`rules/`) becomes nodes of the IR; everything else becomes a `Torch` node that says why.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from sparseblock.plan.capture import Uncapturable
from sparseblock.plan.ir import Epilogue, Graph, Node, Op, Pointwise, Ref, Torch, Value
from sparseblock.plan.rules import CHANNELS_LAST_RULES, RULES, VECTOR_RULES, Unsupported
from sparseblock.plan.torch_call import write_elements

# The place of an argument whose values do not count, by operator.
_MODELS = {
    **dict.fromkeys(("new_full", "new_zeros", "new_ones", "zeros_like", "ones_like", "full_like"), 0),
    **dict.fromkeys(("type_as", "expand_as", "view_as"), 1),
}


def lower(module: fx.GraphModule) -> Graph:
    """The graph of a captured module that takes feature maps.

    Raises:
        Uncapturable: it holds what a plan cannot run: sizes that depend on values, changes to its own buffers,
            changes to a part of a tensor, submodules that are called as a whole.
    """
    return _Lowering(module).run()


class _Lowering:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.order = {node: i for i, node in enumerate(module.graph.nodes)}
        self.env: dict[fx.Node, Any] = {}  # Ref, constant, or a tuple of these
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.vectors: dict[str, Ref] = {}  # of what torch has as [1, c], by name, the map [1, c, 1, 1]
        self.channels_last: dict[str, Ref] = {}  # of what torch has as [1, h, w, c], by name, the map [1, c, h, w]
        self.last = False  # whether the current operator is one on such
        self.current: fx.Node | None = None

    def run(self) -> Graph:
        inputs, outputs = [], ()
        for node in self.module.graph.nodes:
            self.current = node
            match node.op:
                case "placeholder" if isinstance(node.meta["val"], torch.Tensor):
                    inputs.append(self._input(node))
                case "placeholder":
                    self.env[node] = node.meta["val"]  # an argument that is no tensor is what it was at capture
                case "get_attr":
                    self.env[node] = self._attribute(node)
                case "call_function":
                    self._call(node)
                case "output":
                    outputs = tuple(self._lookup(leaf) for leaf in pytree.tree_leaves(node.args[0]))
                case "call_module" if node.target == "_guards_fn":
                    pass  # checks of the example's size; a plan has its own
                case _:
                    raise Uncapturable(
                        f"compile: {node.name} is a {node.op} of {node.target}, which a plan cannot run; "
                        "the module must be captured whole"
                    )
        return Graph(tuple(self.nodes), self.values, tuple(inputs), outputs)

    # What rules use.

    def value(self, ref: Any, what: str = "its input") -> Value:
        """The feature map that `ref` names; anything else has no rule."""
        if not isinstance(ref, Ref):
            raise Unsupported(f"{what} is a constant")
        value = self.values[ref.name]
        if not value.is_map:
            raise Unsupported(f"{what} is no float32 map [1, c, h, w]")
        return value

    def producer(self, ref: Any) -> Node | None:
        """The node that makes `ref`, if it is a value that one makes."""
        return next((n for n in self.nodes if isinstance(ref, Ref) and n.output == ref.name), None)

    def pointwise(self, ref: Ref) -> Node | None:
        """The node that makes `ref`, if it is a pointwise one."""
        node = self.producer(ref)
        return node if node is not None and isinstance(node.op, Pointwise) else None

    @property
    def result(self) -> Any:
        """The captured result, its channels first."""
        result = self.current.meta.get("val")
        return pytree.tree_map_only(torch.Tensor, lambda x: x.permute(0, 3, 1, 2), result) if self.last else result

    def with_channels_last(self, ref: Ref) -> Ref:
        """The map `ref` as [1, h, w, c], for whoever has no rule for such."""
        _, c, h, w = self.values[ref.name].shape
        last = Value(f"{ref.name}__last{len(self.nodes)}", (1, h, w, c), torch.float32)
        target = torch.ops.aten.permute.default
        permuted = Torch(target, (ref, [0, 2, 3, 1]), {}, f"no block-sparse rule for {target}")
        self._add(permuted, (ref.name,), last, Epilogue())
        self.channels_last[last.name] = ref
        return Ref(last.name)

    def call(self, target: Any, ref: Ref) -> Ref:
        """Adds a call of torch, of a map of the same shape."""
        name = f"{self.current.name}__{len(self.nodes)}"
        reason = f"no block-sparse rule for {target}"
        self._add(Torch(target, (ref,), {}, reason), (ref.name,), replace(self.values[ref.name], name=name), Epilogue())
        return Ref(name)

    def emit(self, op: Op, inputs: list[Any], shape: tuple[int, ...] | None = None, **epilogue: Any) -> Ref:
        """Adds a node of maps; `shape` is that of the captured node unless given."""
        node, result = self.current, self.result
        shape = (*result.shape, 1, 1)[:4] if shape is None else shape  # a vector is a map of one pixel
        name = node.name if node.name not in self.values else f"{node.name}__{len(self.nodes)}"
        self._add(op, tuple(ref.name for ref in inputs), Value(name, shape, torch.float32), Epilogue(**epilogue))
        return Ref(name)

    # One captured node.

    def _input(self, node: fx.Node) -> str:
        frame = Value(node.name, tuple(node.meta["val"].shape), torch.float32)
        self.values[frame.name] = frame
        # The frame is copied into a plane block by block, so that what is not active stays as the last frame left it.
        copy = Value(f"{node.name}__copy", frame.shape, frame.dtype)
        self._add(Pointwise(), (frame.name,), copy, Epilogue())
        self.env[node] = Ref(copy.name)
        return frame.name

    def _attribute(self, node: fx.Node) -> torch.Tensor:
        owner: Any = self.module
        for part in node.target.split("."):
            owner = getattr(owner, part)
        if not isinstance(owner, torch.Tensor):
            raise Uncapturable(
                f"compile: {node.name} is a {type(owner).__name__} inside of the module's graph (control flow); "
                "a plan runs straight graphs: move the branch out of the module"
            )
        return owner.detach().clone()  # later changes to the module do not reach the plan

    def _call(self, node: fx.Node) -> None:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            return  # a check of the example, as export puts beside conversions; a plan has its own
        self._check_target(node)
        args, kwargs = pytree.tree_map_only(fx.Node, self._lookup, (node.args, dict(node.kwargs)))
        self._check_sizes(node, known=not _refs((args, kwargs)))
        target, in_place = _functional(node)
        if not in_place:
            args, kwargs = self._without_models(target, args, kwargs)
        if target is operator.getitem and isinstance(args[0], (tuple, list)):
            result = args[0][args[1]]
        elif not _refs((args, kwargs)) and not _is_random(target):
            result = target(*args, **kwargs)
        else:
            result = self._apply(target, args, kwargs)
        self.env[node] = result
        if in_place:
            self._overwrite(node, node.args[0], result)

    def _apply(self, target: Any, args: tuple, kwargs: dict) -> Any:
        rule, result = RULES.get(_name(target)), self.current.meta.get("val")
        reason = f"no block-sparse rule for {target}"
        if rule is not None:
            try:
                if pytree.tree_leaves(result)[0].dtype != torch.float32:
                    raise Unsupported("its result is not float32")
                return self._on_maps(rule, target, args, kwargs)
            except Unsupported as unsupported:
                reason = str(unsupported)
        is_tensor = isinstance(result, torch.Tensor)
        value = Value(
            self.current.name, tuple(result.shape) if is_tensor else None, result.dtype if is_tensor else None
        )
        self._add(Torch(target, args, kwargs, reason), tuple(_refs((args, kwargs))), value, Epilogue())
        return Ref(value.name)

    def _on_maps(self, rule: Any, target: Any, args: tuple, kwargs: dict) -> Any:
        """Applies a rule; to the maps that vectors are, where that is the same to the operator."""
        if _name(target) in VECTOR_RULES:
            args, kwargs = pytree.tree_map_only(Ref, lambda ref: self.vectors.get(ref.name, ref), (args, kwargs))
        if _name(target) in CHANNELS_LAST_RULES and all(name in self.channels_last for name in _refs((args, kwargs))):
            return self._on_channels_last(rule, target, args, kwargs)
        result, captured = rule(self, _bind(target, args, kwargs)), self.current.meta["val"]
        if not isinstance(result, Ref) or captured.dim() == 4:
            return result
        # Whoever has no rule for the map reads it in the shape that torch has.
        vector = Value(f"{self.current.name}__vector", tuple(captured.shape), torch.float32)
        reshape = Torch(
            torch.ops.aten.reshape.default, (result, list(vector.shape)), {}, "a map of one pixel as a vector"
        )
        self._add(reshape, (result.name,), vector, Epilogue())
        self.vectors[vector.name] = result
        return Ref(vector.name)

    def _on_channels_last(self, rule: Any, target: Any, args: tuple, kwargs: dict) -> Any:
        """Applies a rule to the maps that torch has with their channels last."""
        args, kwargs = pytree.tree_map_only(Ref, lambda ref: self.channels_last[ref.name], (args, kwargs))
        if _name(target) in ("add", "sub", "mul", "div"):
            args = pytree.tree_map_only(torch.Tensor, _channels_first, args)
        self.last = True
        try:
            result = rule(self, _bind(target, args, kwargs))
        finally:
            self.last = False
        return pytree.tree_map_only(Ref, self.with_channels_last, result)

    def _add(self, op: Op, inputs: tuple[str, ...], value: Value, epilogue: Epilogue) -> None:
        stack = list(self.current.meta.get("nn_module_stack", {}).values())
        self.values[value.name] = value
        self.nodes.append(Node(op, inputs, value.name, epilogue, stack[-1][0] if stack else ""))

    def _lookup(self, item: Any) -> Any:
        return self.env[item] if isinstance(item, fx.Node) else item

    def _overwrite(self, node: fx.Node, target: fx.Node, result: Any) -> None:
        """After an in-place operator every name of the same memory means the new value."""
        changed = target.meta["val"]
        whole, places = _shown_of(target)
        for other, at in self.order.items():
            if at >= self.order[node]:
                break
            shown = [view for view in pytree.tree_leaves(other.meta.get("val")) if _overlap(view, changed)]
            if not shown:
                continue
            if other.op == "get_attr":
                raise Uncapturable(
                    f"compile: {node.name} changes {other.target} in place; a plan's constants cannot change: "
                    "do not update buffers in eval mode, and call model.eval() before torch.compile"
                )
            if other.meta["val"] is shown[0] and _same_view(shown[0], changed):
                self.env[other] = result
            elif places is not None and other.meta["val"] is shown[0] and _same_view(shown[0], whole.meta["val"]):
                self.env[other] = self._written(other, result, places)
            elif any(self.order[user] > self.order[node] for user in other.users):
                raise Uncapturable(
                    f"compile: {node.name} changes in place what {other.name} shows in part; "
                    f"write it out of place ({_name(node.target).rstrip('_')} and concatenation)"
                )

    def _written(self, whole: fx.Node, part: Any, places: torch.Tensor) -> Any:
        """What `whole` is with `part` at `places`."""
        before = self.env[whole]
        if not _refs((before, part)):
            return write_elements(before, part, places)
        shown = whole.meta["val"]
        value = Value(f"{self.current.name}__{len(self.nodes)}", tuple(shown.shape), shown.dtype)
        call = Torch(write_elements, (before, part, places), {}, "writes to a part of a tensor")
        self._add(call, tuple(_refs((before, part))), value, Epilogue())
        return Ref(value.name)

    def _check_target(self, node: fx.Node) -> None:
        if getattr(node.target, "__module__", "").startswith("torch._functorch"):
            raise Uncapturable(
                f"compile: {node.name} is of a transform of torch.func, which a plan cannot run; call the module on "
                "the batch itself, outside of vmap and gradients"
            )

    def _without_models(self, target: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments without maps, where the operator takes but the shape and dtype of one, and no other."""
        at = _MODELS.get(_name(target))
        if at is None or len(_refs((args, kwargs))) != 1 or not isinstance(args[at], Ref):
            return args, kwargs
        value = self.values[args[at].name]
        return (*args[:at], torch.empty(value.shape, dtype=value.dtype), *args[at + 1 :]), kwargs

    def _check_sizes(self, node: fx.Node, known: bool) -> None:
        """Refuses sizes that depend on the frame, and numbers unless constants alone make them `known`."""
        for leaf in pytree.tree_leaves(node.meta.get("val")):
            sizes = leaf.shape if isinstance(leaf, torch.Tensor) else () if known else (leaf,)
            if any(isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) for size in sizes):
                raise Uncapturable(
                    f"compile: the size of {node.name} ({node.target}) depends on values of the frame; "
                    "plans have fixed sizes: keep such operators (nonzero, nms) out of the module"
                )


def _shown_of(view: fx.Node) -> tuple[fx.Node, torch.Tensor | None]:
    """What `view` shows a part of, and the places of its elements there, row by row, or None if nothing says."""
    whole, steps = view, []
    while whole.args and _overlap(getattr(whole.args[0], "meta", {}).get("val"), whole.meta["val"]):
        if not (isinstance(whole.target, torch._ops.OpOverload) and whole.target._schema.is_mutable):
            steps.append(whole)
        whole = whole.args[0]
    value = whole.meta["val"]
    if not steps or not value.is_contiguous() or value.untyped_storage().nbytes() != value.nbytes:
        return whole, None
    places = torch.arange(value.numel()).reshape(value.shape)
    for step in reversed(steps):
        if any(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves((step.args[1:], step.kwargs))):
            return whole, None
        places = step.target(places, *step.args[1:], **step.kwargs)
    return whole, places


def _functional(node: fx.Node) -> tuple[Any, bool]:
    """The call without side effect that computes what `node` does, and whether `node` does it in place."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return target, False
    if target is torch.ops.aten.detach_.default:  # of torch.tensor(...) in a forward; changes no value
        return torch.ops.aten.detach.default, False
    name, packet = target._schema.name.split("::")[1], None
    if name.endswith("_") and not name.endswith("__"):
        packet = getattr(getattr(torch.ops, target.namespace), name[:-1], None)
    if packet is None or target._overloadname not in packet.overloads():
        raise Uncapturable(
            f"compile: {node.name} ({target}) changes its arguments and has no functional form; write it out of place"
        )
    return getattr(packet, target._overloadname), True


def _is_random(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def _name(target: Any) -> str:
    return target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""


def _bind(target: Any, args: tuple, kwargs: dict) -> SimpleNamespace:
    """The arguments by the names of the operator's schema, defaults filled in."""
    bound = SimpleNamespace()
    for i, argument in enumerate(target._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        setattr(bound, "input" if argument.name == "self" else argument.name, value)
    return bound


def _channels_first(constant: torch.Tensor) -> torch.Tensor:
    """A constant beside [1, h, w, c] as it is beside [1, c, h, w]."""
    return constant.reshape((1,) * (4 - constant.dim()) + tuple(constant.shape)).permute(0, 3, 1, 2)


def _refs(tree: Any) -> list[str]:
    return [leaf.name for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Ref)]


def _overlap(a: Any, b: torch.Tensor) -> bool:
    """Whether two values of the capture may have memory in common; they are fake tensors that know their storage."""
    if not isinstance(a, torch.Tensor) or a.untyped_storage()._cdata != b.untyped_storage()._cdata:
        return False
    (a_first, a_last), (b_first, b_last) = _extent(a), _extent(b)
    return a_first <= b_last and b_first <= a_last


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.storage_offset(), tensor.storage_offset() + reach


def _same_view(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.dtype, a.shape, a.stride(), a.storage_offset()) == (b.dtype, b.shape, b.stride(), b.storage_offset())
