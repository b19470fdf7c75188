"""policy_logits of the cpu backend: csrc/cpu/policy_logits.cpp."""

from __future__ import annotations

from ctypes import byref

import torch

from sparseblock.backends.cpu import native


def policy_logits(parameters, pixels, summary, widths, bound) -> tuple[torch.Tensor, torch.Tensor]:
    policy = native.policy_of(pixels, summary, widths, bound)
    side, sizes = policy.side, 0
    for width in widths:
        side //= 2
        sizes += policy.rows * policy.cols * side * side * width
    maps, logits = torch.empty(sizes), torch.empty(summary.shape[1:])
    addresses = (x.data_ptr() for x in (parameters, pixels, summary, maps, logits))
    native.lib().sb_policy_logits_run(byref(policy), *addresses)
    return logits, maps
