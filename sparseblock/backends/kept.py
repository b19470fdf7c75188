"""What backends make of a weight, packed: made once per weight tensor, kept as long as it lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch.utils.weak import WeakTensorKeyDictionary

# weight -> {what is made: (version and alias of the weight when it was made, what was made)}
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def kept(weight: torch.Tensor, what: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """`make()`, but only when `what` was not made of `weight` since it was last changed.

    The change is told by torch's version counter. A tensor of inference mode has none: `make` is called every time.
    """
    if weight.is_inference():
        return make()
    of_weight = _kept.setdefault(weight, {})
    state = (weight._version, weight.data_ptr())
    if what not in of_weight or of_weight[what][0] != state:
        # The alias keeps the memory from being given to another tensor at the same address while this entry lives.
        of_weight[what] = (state, weight.detach(), make())
    return of_weight[what][2]
