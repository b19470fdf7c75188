"""What lasts from frame to frame, and where it lies."""

from __future__ import annotations

import torch

from blockcopy.numbers import Number
from blockcopy.policy import Lasting
from sparseblock.dense import copy_where


class Memory:
    """Attributes that last, of a stream whose numbers are the host's. A frame binds them anew.

    Args:
        lasting: the attributes; each holds a value.
    """

    def __init__(self, lasting: Lasting) -> None:
        self._lasting = lasting

    def fill(self) -> None:
        """At the start of a stream: takes the values that the attributes have now."""

    def open(self) -> None:
        """Before a frame."""
        self._before = [getattr(*attribute) for attribute in self._lasting]

    def close(self, counts: Number) -> None:
        """After a frame: where it does not count, all is put back."""
        if not counts:
            for attribute, value in zip(self._lasting, self._before, strict=True):
                setattr(*attribute, value)


class DeviceMemory(Memory):
    """Attributes that last on a device, in memory that stays where it is: recorded frames read and write it there."""

    def __init__(self, lasting: Lasting) -> None:
        super().__init__(lasting)
        self._memory = [getattr(*attribute).clone() for attribute in lasting]
        self.fill()

    def fill(self) -> None:
        for attribute, memory in zip(self._lasting, self._memory, strict=True):
            memory.copy_(getattr(*attribute))
            setattr(*attribute, memory)

    def open(self) -> None:
        pass  # what was before is in the memory

    def close(self, counts: Number) -> None:
        changed = []
        for attribute, memory in zip(self._lasting, self._memory, strict=True):
            if (value := getattr(*attribute)) is not memory:
                alike = value.dtype == memory.dtype and value.stride() == memory.stride()
                changed.append((memory, value if alike else torch.empty_like(memory).copy_(value)))
                setattr(*attribute, memory)
        copy_where(counts, [to for to, _ in changed], [value for _, value in changed])
