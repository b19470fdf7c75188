"""Recordings on GPUs that are not there: torch.cuda is replaced by what says, of every launch, what records it."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from blockcopy.device import Beside, Notice, Stopwatch

from sparseblock.errors import SparseBlockError
from sparseblock.plan import recording
from sparseblock.plan.recording import Recording, can_record


@dataclass(eq=False)
class Stream:
    """Of a device; `graph`: that it is recorded into. It notes the streams that it was told to wait for."""

    device: torch.device
    graph: Graph | None = None
    awaited: list[Stream] = field(default_factory=list)

    def wait_stream(self, other: Stream) -> None:
        self.awaited.append(other)


class Graph:
    def __init__(self) -> None:
        self.launches: list[str] = []
        self.failed = False

    def pool(self) -> Graph:
        return self


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.stream = None

    def record(self, stream: Stream | None = None) -> None:
        self.stream = torch.cuda.current_stream() if stream is None else stream


class Gpus:
    """torch.cuda with two GPUs, as its documentation says: each thread has a current device and streams, a recording is
    of one stream, there is one at a time, and where it fails its stream stays the current one.
    """

    def __init__(self) -> None:
        self.local = threading.local()
        self.recorded: list[Graph] = []
        self.modes: list[str] = []
        self.under_way = 0

    def _streams(self) -> list[Stream]:
        if not hasattr(self.local, "streams"):
            self.local.streams = [Stream(torch.device("cuda", number)) for number in range(2)]
        return self.local.streams

    def current_device(self) -> int:
        return getattr(self.local, "device", 0)

    def current_stream(self, device: torch.device | None = None) -> Stream:
        return self._streams()[self.current_device() if device is None else device.index]

    def is_current_stream_capturing(self) -> bool:
        return self.current_stream().graph is not None

    @contextmanager
    def device(self, device: torch.device):
        before, self.local.device = self.current_device(), device.index
        try:
            yield
        finally:
            self.local.device = before

    @contextmanager
    def stream(self, stream: Stream):
        with self.device(stream.device):
            before = self.current_stream()
            self._streams()[stream.device.index] = stream
            try:
                yield
            finally:
                self._streams()[stream.device.index] = before

    def graph(self, graph: Graph, pool: Graph | None, stream: Stream, capture_error_mode: str):
        gpus = self

        class Recorded:
            def __enter__(self) -> None:
                assert gpus.under_way == 0, "another recording is under way"
                gpus.under_way += 1
                gpus.modes.append(capture_error_mode)
                assert gpus.current_device() == stream.device.index, "torch waits for the current device"
                gpus._streams()[stream.device.index] = stream
                stream.graph = graph

            def __exit__(self, *error) -> None:
                stream.graph = None
                gpus.under_way -= 1
                if graph.failed:
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
                gpus.recorded.append(graph)

        return Recorded()

    def launch(self, what: str, device: torch.device) -> None:
        """As every operator: on the current stream of the device where its tensors are."""
        graph = self.current_stream(device).graph
        if graph is not None:
            graph.launches.append(what)

    def fail(self, device: torch.device, error: RuntimeError) -> None:
        """As an operator that may not be recorded."""
        self.current_stream(device).graph.failed = True
        raise error


@pytest.fixture
def gpus(monkeypatch) -> Gpus:
    gpus = Gpus()
    for name in ("device", "stream", "graph", "current_stream", "current_device", "is_current_stream_capturing"):
        monkeypatch.setattr(torch.cuda, name, getattr(gpus, name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    recording._stream_of.cache_clear()
    yield gpus
    recording._stream_of.cache_clear()


class Given:
    """A tensor on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def clone(self) -> Given:
        return self


DEVICES = [torch.device("cuda", number) for number in range(2)]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_recording_has_what_is_launched_on_its_device_whichever_is_current(gpus, device):
    before = [gpus.current_stream(each) for each in DEVICES]
    Recording(lambda given: gpus.launch("kernel", given.device), [Given(device)])
    assert [graph.launches for graph in gpus.recorded] == [["kernel"]]
    assert gpus.modes == ["thread_local"]
    assert gpus.current_device() == 0 and [gpus.current_stream(each) for each in DEVICES] == before


def test_recordings_of_a_device_are_of_one_stream_as_sharing_memory_asks(gpus):
    streams = []
    for device in (DEVICES[1], DEVICES[0], DEVICES[1]):
        Recording(lambda given: streams.append(gpus.current_stream(given.device)), [Given(device)])
    assert streams[0] is streams[2] is not streams[1]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_whether_a_device_can_be_recorded_is_asked_of_its_own_stream(gpus, device):
    assert can_record(device)
    gpus.current_stream(DEVICES[1]).graph = Graph()
    assert can_record(device) == (device == DEVICES[0])


def test_threads_record_one_after_another(gpus):
    begun, errors = threading.Barrier(3), []

    def record(device: torch.device) -> None:
        begun.wait()
        try:
            for _ in range(20):
                Recording(lambda given: (gpus.launch("kernel", device), threading.Event().wait(1e-4)), [Given(device)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=record, args=(DEVICES[number % 2],)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(gpus.recorded) == 60


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: operation not permitted when stream is capturing"),
        RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture unless the tensor is pinned"),
    ],
)
def test_what_waits_for_the_device_is_told_of(gpus, error):
    with pytest.raises(SparseBlockError, match=r"an operator that runs on torch, .* waits for the device") as told:
        Recording(lambda given: gpus.fail(given.device, error), [Given(DEVICES[1])])
    assert told.value.__cause__ is error and str(error) in str(told.value)
    assert gpus.current_device() == 0 and gpus.current_stream(DEVICES[1]).graph is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("shapes differ")])
def test_other_errors_are_what_they_are(gpus, error):
    """Though the recording, which ends with them, then has an error of its own."""
    before = [gpus.current_stream(each) for each in DEVICES]
    with pytest.raises(RuntimeError) as told:
        Recording(lambda given: gpus.fail(given.device, error), [Given(DEVICES[1])])
    assert told.value is error
    assert [gpus.current_stream(each) for each in DEVICES] == before and gc.isenabled()
    Recording(lambda given: None, [Given(DEVICES[1])])


@pytest.mark.parametrize("collects", [True, False])
def test_nothing_is_collected_while_a_frame_is_recorded(gpus, collects):
    """Garbage from before is gone, since it may hold a graph; afterwards the collector is as it was."""

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

    seen = []
    (gc.enable if collects else gc.disable)()
    try:
        left = weakref.ref(Garbage())
        Recording(lambda given: seen.append((left(), gc.isenabled())), [Given(DEVICES[0])])
        assert seen == [(None, False)] and gc.isenabled() == collects
    finally:
        gc.enable()


def test_work_beside_is_ordered_with_that_of_its_device(gpus):
    mine, beside = gpus.current_stream(DEVICES[1]), Beside(DEVICES[1])
    with beside.begin():
        inner = gpus.current_stream(DEVICES[1])
    beside.end()
    assert inner is not mine and inner.awaited == [mine] and mine.awaited == [inner]
    assert gpus.current_stream(DEVICES[0]).awaited == []


def test_times_and_counts_are_taken_where_the_work_is(gpus, monkeypatch):
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, pin_memory, **given: zeros(*size, **given))
    watch, notice = Stopwatch(DEVICES[1]), Notice(DEVICES[1], 2)
    watch.start()
    watch.stop()

    class Counts(torch.Tensor):
        device = DEVICES[1]

    notice.send(zeros(2, dtype=torch.float64).as_subclass(Counts))
    mine = gpus.current_stream(DEVICES[1])
    assert [event.stream for event in (*watch._events, notice._arrived)] == [mine] * 3


@pytest.mark.parametrize("number", range(2))
def test_a_gpu_that_is_not_the_current_one(gpu, number):
    """Where there are two; else it is recorded on a stream of the caller's."""
    device = torch.device("cuda", number % torch.cuda.device_count())
    x = torch.ones(4, device=device)
    assert (x + 1).tolist() == [2] * 4  # which loads the kernel
    with torch.cuda.stream(torch.cuda.Stream(gpu)):
        recorded = Recording(lambda x: x + 1, [x])
        assert recorded.replay(torch.full_like(x, 2)).tolist() == [3] * 4
    assert torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
