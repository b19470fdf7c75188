"""What lasts from frame to frame, and where it lies."""

from __future__ import annotations

import torch

from blockcopy.numbers import Number
from blockcopy.policy import Lasting


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
        for attribute, memory in zip(self._lasting, self._memory, strict=True):
            value = getattr(*attribute)
            if value is not memory:
                torch.where(counts, value.to(memory.dtype), memory, out=memory)
                setattr(*attribute, memory)
