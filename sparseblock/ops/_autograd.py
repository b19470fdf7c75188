"""What autograd sees of an op: a function of its tensors and of what `out` held, whose result is written over `out`.

Let g be the gradient of the result. What `out` held gets where(active, 0, g); the other tensors get what the dense op
gives for where(active, g, 0). docs/design/0011-gradients.md says how.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import torch

from sparseblock import backends, profiling
from sparseblock.backends import gradients
from sparseblock.backends.reference import gradients as of_reference
from sparseblock.errors import SparseBlockError


def wanted(arguments: dict[str, object]) -> bool:
    """Whether a call with these arguments, by name, is one to differentiate."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _tensors(arguments).values())


def call(name: str, arguments: dict[str, object]) -> None:
    """Runs the op so that the graph knows of it."""
    out = arguments["out"]
    # `out` first: where it is a view, as a slice of a concatenation is, autograd takes the first gradient for its past.
    tensors = {"out": out, **_tensors(arguments)}
    backend = backends.selected(out.device)
    _InPlace.apply(
        SimpleNamespace(name=name, backend=backend, arguments=arguments, keys=list(tensors)), *tensors.values()
    )


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, op, *tensors):
        out = op.arguments["out"]
        saved = _gradients(op.backend).record(op.name, op.arguments)
        # ctx must own no tensor that owns it, as `out` does: of feature maps and parameters only the sizes.
        plain = {key: value for key, value in op.arguments.items() if not _holds_tensors(value)}
        ctx.op = SimpleNamespace(name=op.name, backend=op.backend, keys=op.keys, saved=list(saved), plain=plain)
        ctx.op.names, ctx.op.ranks = list(op.arguments), [tensor.dim() for tensor in tensors]
        ctx.op.dtypes = {key: str(x.dtype).removeprefix("torch.") for key, x in zip(op.keys, tensors, strict=True)}
        ctx.sizes = [size for tensor in tensors for size in tensor.shape]
        ctx.save_for_backward(op.arguments["index"], op.arguments["count"], *saved.values())
        ctx.mark_dirty(out)
        return out

    @staticmethod
    def backward(ctx, grad):
        index, count, *saved = ctx.saved_tensors
        needs = [key for key, needed in zip(ctx.op.keys, ctx.needs_input_grad[1:], strict=True) if needed]
        with torch.no_grad():
            grads = torch.ops.sparseblock.gradients(
                grad, saved, index, count, json.dumps({**vars(ctx.op), "needs": needs}), ctx.sizes
            )
        if torch.is_grad_enabled():  # create_graph: they depend on the op's tensors, whether or not `grad` does
            grads = _Once.apply(ctx.op.name, *(gradient.requires_grad_() for gradient in grads))
        of_key = dict(zip(needs, grads, strict=True))
        return None, *(of_key.get(key) for key in ctx.op.keys)


class _Once(torch.autograd.Function):
    """Gradients that have none. (torch's once_differentiable lets them pass for constants where `grad` is one.)"""

    @staticmethod
    def forward(ctx, name, *grads):
        ctx.name = name
        return tuple(gradient.clone() for gradient in grads)

    @staticmethod
    def backward(ctx, *_):
        raise SparseBlockError(
            f"{ctx.name}: its gradient is differentiated, but ops are differentiable once; leave create_graph=True "
            "away, or compute what needs a second derivative by torch's own operators"
        )


def define(library: torch.library.Library) -> None:
    """Defines all backward passes as one op, opaque to torch.compile: the gradients of `needs`, in order.

    `call` is, as JSON, everything that is no tensor; `sizes` those of all tensors, one after another.
    """
    name = library.define(
        "gradients(Tensor grad, Tensor[] saved, Tensor index, Tensor count, str call, SymInt[] sizes) -> Tensor[]"
    )
    library.impl(name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sparseblock::{name}", _fake, lib=library)


def _run(grad, saved, index, count, call, sizes) -> list[torch.Tensor]:
    op = SimpleNamespace(**json.loads(call))
    shapes = _shapes(op, sizes)
    arguments = SimpleNamespace(
        **op.plain, **dict(zip(op.saved, saved, strict=True)), index=index, count=count, names=op.names, shapes=shapes
    )
    # In force again: autograd may call from a thread of its own.
    with backends.backend(op.backend), profiling.span(f"{op.name} backward", grad.shape, len(index)):
        grads = _gradients(op.backend).backward(op.name, arguments, grad, set(op.needs))
    results: list[torch.Tensor] = []
    for key in op.needs:  # each in memory of its own, as an op must return them
        result = grads[key].sum_to_size(shapes[key])  # a second input may count for many pixels
        result = _in_order(result.to(_dtype(op, key)))
        shared = any(result.data_ptr() == other.data_ptr() for other in (grad, *results))
        results.append(result.clone() if shared else result)
    return results


def _fake(grad, saved, index, count, call, sizes) -> list[torch.Tensor]:
    op = SimpleNamespace(**json.loads(call))
    shapes = _shapes(op, sizes)
    return [_in_order(grad.new_empty(shapes[key], dtype=_dtype(op, key))) for key in op.needs]


def _dtype(op: SimpleNamespace, key: str) -> torch.dtype:
    return getattr(torch, op.dtypes[key])


def _shapes(op: SimpleNamespace, sizes: list[int]) -> dict[str, list[int]]:
    """The shape of every tensor, by name."""
    rest = iter(sizes)
    return {key: [next(rest) for _ in range(rank)] for key, rank in zip(op.keys, op.ranks, strict=True)}


def _in_order(tensor: torch.Tensor) -> torch.Tensor:
    """Channels-last where there are channels."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)


def _holds_tensors(value: object) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, (list, tuple)) and isinstance(value[0], torch.Tensor))


def _tensors(arguments: dict[str, object]) -> dict[str, torch.Tensor]:
    """The tensors that a gradient may flow to or from; those of a list as "tensors[0]", "tensors[1]", ..."""
    found = {}
    for key, value in arguments.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found[key] = value
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
            found |= {f"{key}[{i}]": tensor for i, tensor in enumerate(value)}
    return found


def _gradients(backend: str):
    return of_reference if backend == "reference" else gradients
