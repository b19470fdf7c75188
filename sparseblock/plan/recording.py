"""Recording: work on a GPU as a CUDA graph, on whichever GPU its tensors are and whichever thread asks for it."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sparseblock import profiling
from sparseblock.errors import SparseBlockError

_one_at_a_time = threading.Lock()  # torch has room for one recording in a process


def can_record(device: torch.device) -> bool:
    """Whether frames on `device` are recorded: on a GPU, unless a profiler wants ranges or one is being recorded."""
    if device.type != "cuda" or profiling.listening():
        return False
    with torch.cuda.device(device):
        return not torch.cuda.is_current_stream_capturing()


class Recording:
    """A function of tensors as a CUDA graph: what a call gives is copied to where the graph reads it.

    Kernels must have run before: compiling and loading cannot be recorded. To record waits for the device and gives
    what memory torch keeps unused back to it; other threads that want to record wait meanwhile, and may do all else but
    wait for the whole device. To replay waits for nothing.

    Args:
        compute: launches kernels on the current stream and waits for nothing.
        given: examples of its arguments, as large as they come, on the GPU where it computes.
        generators: of the device, which `compute` draws from.
        shared: another recording, whose results are of no use any more once this one is replayed: they share memory.

    Raises:
        SparseBlockError: something in it cannot be recorded.
    """

    def __init__(
        self,
        compute: Callable[..., Any],
        given: Sequence[torch.Tensor],
        generators: Sequence[torch.Generator] = (),
        shared: Recording | None = None,
    ) -> None:
        self._given = [x.clone() for x in given]
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        pool = shared and shared._graph.pool()
        self._made = _record(self._graph, self._given[0].device, pool, lambda: compute(*self._given))

    def replay(self, *given: torch.Tensor) -> Any:
        """Runs the function. What it returns is overwritten by the next run.

        Args:
            given: the arguments; one with fewer rows than the example fills the first ones.
        """
        for own, x in zip(self._given, given, strict=True):
            own[: len(x)].copy_(x)
        self._graph.replay()
        return self._made


def _record(graph: torch.cuda.CUDAGraph, device: torch.device, pool: Any, compute: Callable[[], Any]) -> Any:
    """What `compute` returns; what it launches on `device` becomes the graph.

    A kernel is launched on the current stream of its tensors' device, whatever the caller's device is, and only what is
    launched on the recorded stream is recorded: to enter it is to enter its device, too. What waits for the device is
    an error in this thread alone, for others may run frames.
    """
    raised = None
    with _one_at_a_time, _nothing_collected():
        stream = _stream_of(device)
        recorded = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        try:
            # torch.cuda.graph enters the stream too, but leaves it the current one where a recording fails.
            with torch.cuda.stream(stream), recorded:
                try:
                    return compute()
                except RuntimeError as error:
                    raised = error  # where it ends, the recording complains as well
                    raise
        except RuntimeError as ended:
            first = raised or ended
    if "captur" not in str(first):  # as every error of CUDA says that is about a recording
        raise first
    raise SparseBlockError(
        f"plan: a frame cannot be recorded as a CUDA graph ({first}); an operator that runs on torch, which "
        "plan.report() names, waits for the device"
    ) from first


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """The one of a device that is recorded: recordings that share memory must come from one."""
    return torch.cuda.Stream(device)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Garbage may have a graph in it, and to free one while another is recorded ends the recording."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
