"""From an unmodified module to an ATen graph: torch.export at the size of one example frame."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from sparseblock.errors import SparseBlockError


class Uncapturable(SparseBlockError):
    """The model runs, but not as one graph; parts of it may."""


F = TypeVar("F", bound=Callable[..., Any])


def one_at_a_time(function: F) -> F:
    """Threads take turns in it, and in torch.compile: both change what all of them see, such as the model's weights."""

    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.convert_frame import compile_lock

        with compile_lock:
            return function(*args, **kwargs)

    return locked


MAP = ...  # stands for a map among the arguments of a call


@dataclass(frozen=True)
class Signature:
    """How a captured module is called and what it returns.

    Attributes:
        arguments: structure of (args, kwargs).
        fixed: for every leaf of the arguments, MAP for a map, and anything else as it was at capture.
        result: structure of what it returns.
    """

    arguments: pytree.TreeSpec
    fixed: tuple[Any, ...]
    result: pytree.TreeSpec

    def maps(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of a call that stand for maps.

        Raises:
            SparseBlockError: the arguments are not structured as at capture, or one that is no map is another.
        """
        leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        if spec != self.arguments:
            own = pytree.tree_unflatten(self.fixed, self.arguments)
            raise SparseBlockError(
                f"plan: the arguments are {_structure_of(args, kwargs)}; they must be structured as when it was "
                f"compiled: {_structure_of(*own)}"
            )
        for leaf, fixed in zip(leaves, self.fixed, strict=True):
            if fixed is not MAP and leaf != fixed:
                raise SparseBlockError(f"plan: an argument is {leaf!r} but was {fixed!r} when it was compiled")
        return [leaf for leaf, fixed in zip(leaves, self.fixed, strict=True) if fixed is MAP]


def _structure_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    return ", ".join([*map(_structure, args), *(f"{name}={_structure(value)}" for name, value in kwargs.items())])


def _structure(item: Any) -> str:
    """Containers as Python writes them, of leaves the kind alone."""
    if isinstance(item, dict):
        inside = "{" + ", ".join(f"{key!r}: {_structure(value)}" for key, value in item.items()) + "}"
    elif isinstance(item, (list, tuple)):
        inside = ", ".join(map(_structure, item)).join("[]" if isinstance(item, list) else "()")
    else:
        return "tensor" if item is MAP or isinstance(item, torch.Tensor) else type(item).__name__
    return inside if type(item) in (dict, list, tuple) else f"{type(item).__name__}({inside})"


def capture(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[fx.GraphModule, Signature]:
    """The graph of `model(*args, **kwargs)` on one image, and how it is called.

    Tensors among the arguments, in lists, tuples and dicts, are maps [n, c, h, w]; anything else is a constant.

    Raises:
        SparseBlockError: what is given is no float32 module in eval mode or no map, or the module cannot be captured.
    """
    _check(model, args, kwargs)
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda x: x[:1].detach(), (tuple(args), dict(kwargs)))
    leaves, spec = pytree.tree_flatten((args, kwargs))
    fixed = tuple(MAP if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
    sizes = " and ".join(str(list(leaf.shape)) for leaf in leaves if isinstance(leaf, torch.Tensor))
    try:
        dice = _dice()
        with _changes(model) as changed:
            program = _export(model, args, kwargs)
        if _dice() != dice:
            raise Uncapturable(
                f"compile: {type(model).__name__} draws from Python's or NumPy's random, and a plan would repeat the "
                "first draw in every frame; draw from torch's, or compile its parts"
            )
        if changed and _remembers(model, args, kwargs):
            raise Uncapturable(
                f"compile: {type(model).__name__} keeps {', '.join(changed)} from frame to frame, which a plan does "
                "not; give it to the model as an input, or compile its parts"
            )
        return program.module(), Signature(spec, fixed, _of_plain_containers(program.call_spec.out_spec))
    except SparseBlockError:
        raise
    except Exception as error:  # export lets through whatever the module or the tracer raises
        own = _run(model, args, kwargs)
        if not isinstance(own, Exception) and _register_dataclasses(own):
            return capture(model, args, kwargs)
        if isinstance(own, Exception):
            raise SparseBlockError(
                f"compile: {type(model).__name__} itself fails on a frame of {sizes} "
                f"({_first_line(own)}); check the model and the size and channels of example_frame"
            ) from error
        raise Uncapturable(
            f"compile: {type(model).__name__} cannot be captured at {sizes} "
            f"({_first_line(error)}); torch.export must get through it: "
            "move control flow that depends on values out of the module"
        ) from error


def _of_plain_containers(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """The structure with dicts and lists where a model that is an fx graph has those that cannot be changed."""
    frozen = (immutable_dict, immutable_list)

    def plain(tree: Any) -> Any:
        if isinstance(tree, immutable_dict):
            return {key: plain(value) for key, value in tree.items()}
        if isinstance(tree, immutable_list):
            return [plain(value) for value in tree]
        return pytree.tree_map(
            lambda x: plain(x) if isinstance(x, frozen) else x, tree, is_leaf=lambda x: isinstance(x, frozen)
        )

    return pytree.tree_structure(plain(pytree.tree_unflatten([0] * spec.num_leaves, spec)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch from telling at length on stderr what one line will say; without an error all comes through."""
    said = io.StringIO()
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before, logger.disabled = logger.disabled, True
    try:
        with contextlib.redirect_stderr(said):
            yield
        sys.stderr.write(said.getvalue())
    finally:
        logger.disabled = before


def _export(model: nn.Module, args: Any, kwargs: Any) -> torch.export.ExportedProgram:
    with torch.no_grad(), _quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attribute")  # set in forward: `capture` sees what comes of it
        return torch.export.export(model, args, kwargs, strict=False)


def _dice() -> tuple[Any, ...]:
    """The state of the generators of random numbers whose draws are constants in a capture."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    _, key, *rest = numpy.random.get_state()
    return random.getstate(), key.tobytes(), *rest


@contextlib.contextmanager
def _changes(model: nn.Module) -> Iterator[list[str]]:
    """Gives the names of attributes that the model sets when it runs; what capture runs, torch puts back afterwards."""
    changed: list[str] = []
    before = [
        (path, module, {name: pytree.tree_flatten(value) for name, value in vars(module).items()})
        for path, module in model.named_modules()
    ]

    def compare(*_: Any) -> None:
        for path, module, attributes in before:
            changed.extend(
                f"{path}.{name}" if path else name
                for name, value in vars(module).items()
                if name not in _OWN
                and (name not in attributes or not _same(pytree.tree_flatten(value), attributes[name]))
            )

    hook = model.register_forward_hook(compare)
    try:
        yield changed
    finally:
        hook.remove()
        for _, module, attributes in before:  # torch puts back what was there, and leaves what was not
            new = vars(module).keys() - attributes.keys() - _OWN
            # A tensor without values goes, and with it what the module remembers of it, such as the size it is for.
            if any(isinstance(leaf, FakeTensor) for name in new for leaf in pytree.tree_leaves(vars(module)[name])):
                for name in new:
                    del vars(module)[name]


_OWN = frozenset(vars(nn.Module()))  # of torch's: weights, submodules, hooks


def _same(now: Sequence[Any], before: Sequence[Any]) -> bool:
    """Whether two flattened attributes hold the same objects, or numbers and words that are equal."""
    (leaves, spec), (old, old_spec) = now, before
    plain = (int, float, str)
    return spec == old_spec and all(
        a is b or (isinstance(a, plain) and isinstance(b, plain) and a == b) for a, b in zip(leaves, old, strict=True)
    )


@torch.no_grad()
def _remembers(model: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether what the model returns depends on the frame before, tried on copies; yes where it cannot be copied."""
    other = pytree.tree_map_only(torch.Tensor, lambda x: x.flip(-1) + 1, (args, kwargs))
    try:
        fresh, used = _copied(model), _copied(model)
    except Exception:  # whatever the model's attributes raise
        return True
    _call(used, *other)
    first, second = _call(fresh, args, kwargs), _call(used, args, kwargs)
    leaves = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True)
    return any(isinstance(a, torch.Tensor) and not _equal(a, b) for a, b in leaves)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both hold the same values, NaN being one."""
    return a.shape == b.shape and bool(((a == b) | (a != a) & (b != b)).all())


def _copied(model: nn.Module) -> nn.Module:
    """A copy, also of a model that keeps results of a run with gradients, which torch does not copy by itself."""
    kept = [leaf for module in model.modules() for leaf in pytree.tree_leaves(vars(module))]
    results = [leaf for leaf in kept if isinstance(leaf, torch.Tensor) and not leaf.is_leaf]
    return copy.deepcopy(model, {id(result): result.detach().clone() for result in results})


def _call(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """What the model returns; it gets tensors of its own, which it may change."""
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
    return model(*args, **kwargs)


def _run(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """What the model returns or raises when it runs as it is; on a copy, since a run may change buffers."""
    try:
        model = _copied(model)
    except Exception:  # what cannot be copied is not run
        return None
    try:
        with torch.no_grad():
            return _call(model, args, kwargs)
    except Exception as error:
        return error


def _register_dataclasses(result: Any) -> bool:
    """Makes dataclasses in what a model returns known to torch's trees; whether there were any."""
    kinds = {type(leaf) for leaf in pytree.tree_leaves(result) if dataclasses.is_dataclass(leaf)}
    for kind in kinds:
        torch.export.register_dataclass(kind)
    return bool(kinds)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


# Modules of torch that do something else in training mode; a convolution put in after eval() does not.
_TRAINED = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.MultiheadAttention,
)


def check_model(model: nn.Module) -> None:
    """Raises SparseBlockError unless it is a float32 module in eval mode on the cpu."""
    if not isinstance(model, nn.Module):
        raise SparseBlockError(f"compile: model is a {type(model).__name__}; it must be a torch.nn.Module")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise SparseBlockError(
                f"compile: {name or 'model'} is a {type(module).__name__}, of which no graph can be captured; "
                f"{'use' if name else 'compile'} the module that it was made from"
            )
    if model.training:
        raise SparseBlockError(f"compile: {type(model).__name__} is in training mode; call model.eval() first")
    for name, module in model.named_modules():
        if module.training and isinstance(module, _TRAINED):
            raise SparseBlockError(
                f"compile: {name} is in training mode, though {type(model).__name__} is not; call model.eval() once "
                "all of its modules are there"
            )
    if torch.is_autocast_enabled("cpu"):
        raise SparseBlockError(
            "compile: autocast is on, but a plan computes in float32; compile outside of it, with dtype= for what is "
            "stored"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            raise SparseBlockError(
                f"compile: {name} has no size yet, as lazy modules have none; run the model on a frame first"
            )
        if tensor.device.type != "cpu":
            raise SparseBlockError(
                f"compile: {name} is on {tensor.device}; plans run on the cpu: call model.cpu() first"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise SparseBlockError(
                f"compile: {name} is {tensor.dtype}; plans compute in float32: call model.float() first"
            )


def _check(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    check_model(model)
    leaves = pytree.tree_leaves((args, kwargs))
    maps = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not maps:
        raise SparseBlockError(
            f"compile: example_frame is a {type(leaves[0]).__name__ if leaves else 'container without a tensor'}; "
            "it must be a tensor [n, c, h, w]"
        )
    for example in maps:
        is_map = example.layout == torch.strided and example.dim() == 4 and min(example.shape) > 0
        if not is_map or example.dtype != torch.float32 or example.device.type != "cpu":
            raise SparseBlockError(
                f"compile: example_frame is {example.dtype} {list(example.shape)} on {example.device}"
                f"{'' if example.layout == torch.strided else f', {example.layout}'}; "
                "it must be a float32 frame [n, c, h, w] on the cpu"
            )
