"""The gradient of policy_logits, reference backend: autograd's."""

from __future__ import annotations

import torch

from sparseblock.backends.reference.policy_logits import policy_logits


def policy_logits_backward(grad, parameters, pixels, summary, logits, maps, widths, bound) -> torch.Tensor:
    with torch.enable_grad():
        leaf = parameters.detach().requires_grad_()
        again, _ = policy_logits(leaf, pixels, summary, widths, bound)
    return torch.autograd.grad(again, leaf, grad)[0]
