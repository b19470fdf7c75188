"""Running an op on another device than the CPU, under the same poison: whole memories travel, not tensors alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sparseblock.blocks import BlockSet


def on_device(call: Callable[..., torch.Tensor], device: torch.device | str) -> Callable[..., torch.Tensor]:
    """`call`, an op, for CPU tensors: it runs on `device`, and all of the memory of `out` comes back.

    What lies around a tensor in memory, and memory that tensors share, is on the device as it is here.
    """

    def moved(**arguments: object) -> torch.Tensor:
        memories: dict[int, torch.Tensor] = {}

        def there(value: object) -> object:
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage.data_ptr() not in memories:
                    memories[storage.data_ptr()] = _bytes(storage).to(device)
                memory = memories[storage.data_ptr()].view(value.dtype)
                return memory.as_strided(value.shape, value.stride(), value.storage_offset())
            if isinstance(value, BlockSet):
                return replace(value, index=value.index.to(device), count=value.count.to(device))
            return [there(item) for item in value] if isinstance(value, list) else value

        out = arguments["out"]
        call(**{name: there(value) for name, value in arguments.items()})
        storage = out.untyped_storage()
        _bytes(storage).copy_(memories[storage.data_ptr()])
        return out

    return moved


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)
