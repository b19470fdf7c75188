"""Draws of one thread from a seed, without the generators that all threads share."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Seeded(TorchDispatchMode):
    """Within it this thread fills tensors, as torch.nn does, with what follows `torch.manual_seed(seed)`.

    The global generators are neither read nor changed; forking them would change what other threads draw meanwhile,
    and take what they draw out of the sequence.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and not args[0].is_meta:
            device = args[0].device
            if device not in self._generators:
                self._generators[device] = torch.Generator(device).manual_seed(self._seed)
            kwargs["generator"] = self._generators[device]
        return func(*args, **kwargs)
