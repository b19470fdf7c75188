"""Frames on a device, recorded, timed and found bad there, so that the host need not wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from blockcopy.policy import Policy
from sparseblock.plan import Recording, can_record


class Recorded:
    """Runs a stream's frames. Frames of one kind run op by op once, are then recorded as a CUDA graph, which waits for
    the device, and from then on replayed, which does not.

    Kinds differ in what the host decides, such as whether the policy trains; all of them serve every density. A policy
    without kinds runs op by op, and so does everything where nothing can be recorded (see `can_record`).
    """

    def __init__(self, run: Callable[[torch.Tensor], Any], device: torch.device) -> None:
        self._run = run
        self._device = device
        self.forget()

    def forget(self) -> None:
        """Forgets the recordings: they hold the memory of another policy."""
        self._warm: set[Any] = set()
        self._recordings: dict[Any, Recording] = {}

    def __call__(self, frame: torch.Tensor, policy: Policy) -> Any:
        """The network's output."""
        kind = policy.kind
        if kind is None or not can_record(self._device):
            return self._run(frame)
        if kind not in self._warm:
            self._warm.add(kind)
            return self._run(frame)
        if kind not in self._recordings:
            other = next(iter(self._recordings.values()), None)
            self._recordings[kind] = Recording(self._run, [frame], policy.generators, other)
        return self._recordings[kind].replay(frame)


class Beside:
    """A second line of work on a device, next to what is launched meanwhile; on a host it comes in turn.

    What it reads must live until the line ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Work that waits for what was launched before, and for nothing else."""
        if self._stream is None:
            yield
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                yield

    def end(self) -> None:
        """What is launched from here on waits for that work."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)


class Stopwatch:
    """Milliseconds of one stretch of work on a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else None
        self._times = [0.0, 0.0]

    def start(self) -> None:
        self._mark(0)

    def stop(self) -> None:
        self._mark(1)

    def _mark(self, number: int) -> None:
        if self._events is None:
            self._times[number] = time.perf_counter()
        else:
            self._events[number].record(torch.cuda.current_stream(self._device))

    def read(self) -> float:
        """Waits until the work is done."""
        if self._events is None:
            return 1e3 * (self._times[1] - self._times[0])
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1])


class Notice:
    """Counts on a device that the host learns of when they get there."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._arrived = torch.cuda.Event() if device.type == "cuda" else None
        self._counts = torch.zeros(count, dtype=torch.float64, pin_memory=device.type == "cuda")

    def send(self, counts: torch.Tensor) -> None:
        self._counts.copy_(counts, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(counts.device))

    def read(self) -> list[int]:
        """The counts last sent, or zeros while they are on their way."""
        if self._arrived is None or self._arrived.query():
            return [int(count) for count in self._counts.tolist()]
        return [0] * len(self._counts)
