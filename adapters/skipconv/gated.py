"""`Gated`: a network with a gate at every convolution, in PyTorch alone: to train gates with, and to check plans by."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from skipconv.gates import Gate, Gumbel, check_gate, convolutions
from sparseblock import SparseBlockError

FORMS = ("recompute", "accumulate")


@dataclass
class _Memory:
    """What one call of a convolution leaves for the next frame.

    Attributes:
        reference: [n, c, h, w]: what of the input counts as seen.
        held: [n, k, h, w]: the output, with old values where the gate was closed.
        dense: [n, k, h, w]: the convolution of the last input.
        carried: [n, 1, h, w]: how far what an output pixel reads has moved, in sum, since it was computed.
    """

    reference: torch.Tensor
    held: torch.Tensor
    dense: torch.Tensor
    carried: torch.Tensor


class Gated(nn.Module):
    """A copy of a network whose convolutions are gated: dense arithmetic, differentiable, frame by frame.

    Every convolution is computed whole and masked, so this saves no time: it is what gates are trained with, by
    backpropagation through the frames of a clip, and what `skipconv.convert` puts onto the sparse kernels. A frame's
    output of a gated convolution, z before the activation, is

        "recompute":  z~_t = g * (W * x_t + b) + (1 - g) * z~_{t-1}         (nothing accumulates; what plans compute)
        "accumulate": z~_t = z~_{t-1} + g * (W * r_t),  r_t = x_t - x_{t-1}  (the paper's)

    and the first frame's is dense. With g of 0 or 1 per output pixel, or per block of `structure` pixels, which is open
    where one of its pixels is. Where the residual is 0 over the whole support the gate is closed.

    Gates are drawn where this module is in training mode, whatever mode `model` is in: call `gated.model.eval()` after
    `gated.train()` to keep the statistics of its batch norms. A copy of a `Gated` begins a new clip.

    At borders that are padded with anything but zeros a pixel counts as often as it is read; in plans it counts once.

    Attributes:
        model: the copy, with the given model's parameters and names.
        phi: the learned gates' convolutions, by layer (dots as "-"); empty without `Gumbel`.

    Example:
        >>> gated = skipconv.Gated(model, skipconv.Gumbel(), structure=4).train()
        >>> for clip, labels in clips:  # a list of frames [n, c, h, w]
        ...     gated.reset()
        ...     loss = sum(task_loss(gated(frame), label) for frame, label in zip(clip, labels)) + 1e-3 * gated.cost()
        ...     loss.backward()
        >>> net = skipconv.convert(gated.eval(), frame)
    """

    def __init__(
        self,
        model: nn.Module,
        gate: Gate,
        structure: int = 4,
        layers: Collection[str] | None = None,
        form: str = "recompute",
    ) -> None:
        """
        Args:
            model: any module of one frame [n, c, h, w]; it is copied and not changed.
            gate: `InputNorm`, `OutputNorm` or `Gumbel`, for every layer.
            structure: pixels along both sides of a block of the gate; 1 for none.
            layers: names of the convolutions with gates; all by default.
            form: "recompute" or "accumulate".

        Raises:
            SparseBlockError: one of them is no such thing, or "accumulate" goes with a reference "last_update".
        """
        super().__init__()
        check_gate("Gated", gate, structure)
        if form not in FORMS or (form == "accumulate" and gate.reference != "last_frame"):
            raise SparseBlockError(
                f"Gated: form is {form!r} with reference {gate.reference!r}; it must be "
                '"recompute", or "accumulate" with reference "last_frame"'
            )
        self.model = copy.deepcopy(model)
        self.gate, self.structure, self.form = gate, structure, form
        self._convs = convolutions("Gated", self.model, layers)
        learned = self._convs if isinstance(gate, Gumbel) else {}
        self.phi = nn.ModuleDict({_key(name): _learned(conv) for name, conv in learned.items()})
        self._supports = {name: _support(conv) for name, conv in self._convs.items()}
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of a clip: dense, and `cost` begins anew."""
        self._memories: dict[tuple[str, int], _Memory] = {}
        self._costs: list[torch.Tensor] = []
        self._shares: list[tuple[str, int, torch.Tensor]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Without what the clip has left, which may be part of a gradient."""
        return self.__dict__ | {"_memories": {}, "_costs": [], "_shares": []}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the gated convolutions."""
        return tuple(self._convs)

    def learned(self, name: str) -> nn.Conv2d | None:
        """The convolution that decides for this layer; None where its gate is not learned."""
        return self.phi[_key(name)] if self.phi else None

    @property
    def opened(self) -> dict[str, float]:
        """Share of output pixels that were open in the last frame, by layer: means over a layer's calls.

        Empty after the first frame of a clip.
        """
        found: dict[str, list[float]] = {}
        for name, _, share in self._shares:
            found.setdefault(name, []).append(share.item())
        return {name: sum(shares) / len(shares) for name, shares in found.items()}

    def forward(self, frame: torch.Tensor) -> Any:
        """The network's output on the next frame of every clip of the batch."""
        calls: Counter[str] = Counter()
        shares: list[tuple[str, int, torch.Tensor]] = []
        hooks = [
            conv.register_forward_hook(partial(self._hook, name, calls, shares)) for name, conv in self._convs.items()
        ]
        try:
            out = self.model(frame)
        except BaseException:
            self.reset()  # some layers have taken the frame up, others not
            raise
        finally:
            for hook in hooks:
                hook.remove()
        self._shares, macs = shares, sum(share[1] for share in shares)
        if macs:
            self._costs.append(sum(m / macs * g for _, m, g in shares))
        return out

    def cost(self) -> torch.Tensor:
        """The mean, over the frames after the first, of sum_l m_l mean(g_l): the share of MACs that gates leave. []

        m_l is the layer's share of the gated layers' multiply-accumulates. Differentiable where gates are learned.

        Raises:
            SparseBlockError: there was no frame after the first.
        """
        if not self._costs:
            raise SparseBlockError("Gated.cost: no frame came after the first; run two of a clip at least")
        return torch.stack(self._costs).mean()

    def _hook(
        self,
        name: str,
        calls: Counter[str],
        shares: list[tuple[str, int, torch.Tensor]],
        conv: nn.Conv2d,
        inputs: tuple[torch.Tensor, ...],
        z: torch.Tensor,
    ) -> torch.Tensor:
        (x,) = inputs
        key = name, calls[name]
        calls[name] += 1
        memory = self._memories.get(key)
        if memory is None:
            self._memories[key] = _Memory(x, z, z, torch.zeros_like(z[:, :1]).detach())
            return z
        if memory.reference.shape != x.shape:
            raise SparseBlockError(
                f"Gated: {name} reads {list(x.shape)}, in the frame before {list(memory.reference.shape)}; "
                "begin a new clip with reset()"
            )
        support, residual = self._supports[name].to(x), x - memory.reference
        change = residual.detach().abs().sum(1, keepdim=True)
        g = self._decide(name, conv, residual, support(change), memory.carried)
        if self.form == "recompute":
            held = torch.lerp(memory.held, z, g) if g.requires_grad else torch.where(g.bool(), z, memory.held)
        else:
            held = memory.held + g * (z - memory.dense)
        reference, carried = x, memory.carried
        if self.gate.reference == "last_update":
            _, read_by = torch.func.vjp(support, change)
            moved = read_by(g)[0] > 0  # what something open reads
            reference = torch.where(moved, x, memory.reference)
            carried = torch.where(g.bool(), 0, carried + support(torch.where(moved, change, 0)))
        self._memories[key] = _Memory(reference, held, z, carried)
        shares.append((name, z[0].numel() * conv.weight[0].numel(), g.mean()))
        return held

    def _decide(
        self, name: str, conv: nn.Conv2d, residual: torch.Tensor, norm: torch.Tensor, carried: torch.Tensor
    ) -> torch.Tensor:
        """g [n, 1, h, w] of 0 and 1, in the dtype of the residual."""
        if not isinstance(self.gate, Gumbel):
            if self.gate.reference == "last_update":
                norm = norm + carried
            return self._by_block((~(norm <= self.gate.threshold(conv.weight))).to(norm.dtype))
        logit = self.learned(name)(residual)
        if self.training:
            uniform = torch.rand_like(logit).clamp_(min=torch.finfo(logit.dtype).tiny)
            noisy = logit + torch.log(uniform) - torch.log1p(-uniform)
            soft = self._by_block(torch.sigmoid(noisy / self.gate.temperature) * (norm > 0))
            return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())
        return self._by_block((~(logit <= 0) & ~(norm <= 0)).to(logit.dtype))

    def _by_block(self, g: torch.Tensor) -> torch.Tensor:
        """Open where a pixel of the block is: max pooling, then nearest."""
        b = min(self.structure, max(g.shape[2:]))
        if b == 1:
            return g
        pooled = F.max_pool2d(g, b, ceil_mode=True)
        return pooled.repeat_interleave(b, 2).repeat_interleave(b, 3)[..., : g.shape[2], : g.shape[3]]


def _key(name: str) -> str:
    return name.replace(".", "-")  # names of modules have no dots


def _alike(conv: nn.Conv2d, channels: int, bias: bool) -> nn.Conv2d:
    """A convolution with this one's window, from `channels` to one."""
    alike = copy.deepcopy(conv)
    alike.in_channels, alike.out_channels, alike.groups = channels, 1, 1
    alike.weight = nn.Parameter(conv.weight.new_zeros(1, channels, *conv.kernel_size))
    alike.bias = nn.Parameter(conv.weight.new_zeros(1)) if bias else None
    return alike


def _learned(conv: nn.Conv2d) -> nn.Conv2d:
    """phi, as PyTorch begins a convolution."""
    phi = _alike(conv, conv.in_channels, bias=True)
    phi.reset_parameters()
    return phi


def _support(conv: nn.Conv2d) -> nn.Conv2d:
    """What adds up a map over the window."""
    support = _alike(conv, 1, bias=False)
    nn.init.ones_(support.weight)
    return support.requires_grad_(False)
