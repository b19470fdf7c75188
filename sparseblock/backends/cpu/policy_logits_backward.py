"""The gradient of policy_logits, cpu backend: csrc/cpu/policy_logits.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def policy_logits_backward(grad, parameters, pixels, summary, logits, maps, widths, bound) -> torch.Tensor:
    policy = native.policy_of(pixels, summary, widths, bound)
    result = torch.empty_like(parameters)
    addresses = (x.data_ptr() for x in (parameters, pixels, summary, maps, logits, grad.contiguous(), result))
    native.lib().sb_policy_logits_grad_run(byref(policy), *addresses)
    return result
