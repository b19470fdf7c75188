"""torch.compile(model, backend="sparseblock"): blocks and state from a context, graph breaks, sizes, weights."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from miniatures import TinySwift
from networks import Case, set_norms
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.testing import assert_identical, assert_matches, tolerance

OPTIONS = {"block_size": 16}


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def fast(network):
    return torch.compile(network, backend="sparseblock", options=OPTIONS)


def close(out, expected):
    assert_matches(out, expected, tolerance(2000, expected.abs().max().expand_as(expected)))


class Broken(nn.Module):
    """Two convolutional graphs, and a break between them at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x, deep=True):
        y = self.a(x).relu()
        torch._dynamo.graph_break()
        return {"y": self.b(y) if deep else None, "mean": y.mean()}


def frames(count=1, size=(37, 50)):
    return torch.rand(count, 3, *size)


@torch.no_grad()
def test_without_a_context_all_blocks_run():
    torch.manual_seed(0)
    network = set_norms(TinySwift())
    compiled = fast(network)
    first, second = (frames() for _ in range(2))
    out = compiled(first)
    again = compiled(second)
    close(out, network(first))
    close(again, network(second))
    assert out.is_contiguous() and out.data_ptr() != again.data_ptr()


@torch.no_grad()
def test_blocks_and_state_are_the_contexts():
    torch.manual_seed(0)
    network = set_norms(TinySwift())
    compiled, state = fast(network), sparseblock.CompiledState()
    plan = sparseblock.compile(network, frames(), 16)
    other = plan.new_state()
    mask = None
    for _ in range(3):
        frame = frames()
        with sparseblock.active(mask, state):
            out = compiled(frame)
        close(out, plan(frame, mask, other))
        mask = torch.rand(1, plan.grid.rows, plan.grid.cols) < 0.4
    assert state.frames == [3] and state.grid == plan.grid
    assert "graph 1" in str(state.report()) and state.report().macs == plan.macs
    state.reset()
    with pytest.raises(SparseBlockError, match="blocks active in its first frame"), sparseblock.active(mask, state):
        compiled(frames())
    meta = mask.to("meta")
    with pytest.raises(SparseBlockError, match="plan: blocks are on meta, where"), sparseblock.active(meta, state):
        compiled(frames())


@torch.no_grad()
def test_graph_breaks_keep_the_grid():
    network = Broken().eval()
    compiled, state = fast(network), sparseblock.CompiledState()
    frame = frames()
    with sparseblock.active(None, state):
        before = compiled(frame)
    close(before["y"], network(frame)["y"])
    close(before["mean"], network(frame)["mean"])
    assert [plan.grid for plan in (kept.plan for kept in state._caches.values())] == [state.grid] * 2
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    with sparseblock.active(mask, state):
        after = compiled(frames())["y"]
    changed = torch.zeros_like(after, dtype=torch.bool)
    changed[:, :, 8:16, 16:24] = True
    assert_identical(after, before["y"], ~changed)
    assert not torch.equal(after, before["y"])


@torch.no_grad()
def test_blocks_of_a_graph_that_was_not_called_run_when_it_is():
    network = Broken().eval()
    compiled, state = fast(network), sparseblock.CompiledState()
    masks = torch.zeros(2, 1, 3, 4, dtype=torch.bool)
    masks[0, 0, 1, 2] = masks[1, 0, 0, 0] = True
    last = None
    for mask, deep in ((None, True), (masks[0], False), (masks[1], True)):
        with sparseblock.active(mask, state):
            last = compiled(frames(), deep=deep)["y"]
    kept = next(iter(state._caches.values()))
    expected = network.b(kept.plan.output_planes(kept.cache)[0])
    for rows, cols in ((slice(8, 16), slice(16, 24)), (slice(0, 8), slice(0, 8))):
        close(last[..., rows, cols], expected[..., rows, cols])


@torch.no_grad()
def test_changed_weights_are_seen():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    compiled, state = fast(network), sparseblock.CompiledState()
    frame = frames()
    with sparseblock.active(None, state):
        compiled(frame)
    network[0].weight.mul_(2)
    with sparseblock.active(torch.zeros(1, 3, 4, dtype=torch.bool), state):
        close(compiled(frame), network(frame))


@torch.no_grad()
def test_sizes_and_streams():
    network = set_norms(TinySwift())
    compiled = fast(network)
    for size in ((37, 50), (32, 48)):
        frame = frames(1, size)
        close(compiled(frame), network(frame))
    state, two = sparseblock.CompiledState(2), frames(2)
    with sparseblock.active(None, state):
        close(compiled(two), network(two))
    with (
        pytest.raises(
            SparseBlockError, match=re.escape("the frame is [32, 48] in blocks of 16 px, but this state is of")
        ),
        sparseblock.active(None, state),
    ):
        compiled(frames(2, (32, 48)))


@torch.no_grad()
def test_graphs_without_maps_run_as_they_are_and_say_so():
    lines = nn.Conv1d(3, 4, 3).eval()
    x = torch.rand(1, 3, 20)
    with pytest.warns(UserWarning, match="a graph with convolutions runs dense: it reads"):
        assert torch.equal(fast(lines)(x), lines(x))
    assert torch.equal(fast(nn.ReLU())(x - 0.5), (x - 0.5).relu())


@torch.no_grad()
def test_graphs_that_cannot_be_captured_run_as_they_are_and_say_so():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            first = y[:, :1]
            y[:, ::2] = 0
            return first + y[:, 1:]

    network, frame = Writes().eval(), torch.rand(1, 3, 16, 16)
    compiled, state = fast(network), sparseblock.CompiledState()
    for _ in range(2):
        with sparseblock.active(None, state), pytest.warns(UserWarning, match="runs dense: compile: fill_ changes in"):
            assert torch.equal(compiled(frame), network(frame))
    assert state.frames == [2]


@pytest.mark.filterwarnings("error:sparseblock")  # that it runs dense
def test_first_calls_in_several_threads():
    models, x = [fast(set_norms(TinySwift())) for _ in range(2)], frames()
    together = threading.Barrier(4)

    def call(number):
        together.wait()
        with torch.no_grad():
            return [models[number % 2](x) for _ in range(2)]

    with ThreadPoolExecutor(4) as pool:
        outs = list(pool.map(call, range(4)))
    for number, of_calls in enumerate(outs):
        assert_identical(torch.cat(of_calls), torch.cat(outs[number % 2]))


@torch.no_grad()
def test_a_first_frame_of_nan_makes_a_plan():
    network = nn.Conv2d(3, 4, 3).eval()
    assert fast(network)(torch.full((1, 3, 16, 16), torch.nan)).isnan().all()


def test_refused():
    network = Case(set_norms(TinySwift()), (3, 37, 50), 16)
    with pytest.raises(SparseBlockError, match="sparseblock keeps no gradients; call the model in"):
        fast(network.network)(network.frames())
    with pytest.raises(Exception, match="sparseblock has no option 'blocks'; it has block_size"):
        torch.compile(network.network, backend="sparseblock", options={"blocks": 3})(network.frames())
    with pytest.raises(SparseBlockError, match="active: state is a NoneType"), sparseblock.active(None, None):
        pass
    with pytest.raises(SparseBlockError, match="CompiledState: streams is 0"):
        sparseblock.CompiledState(0)
    for stream in (1, -1, "0", True):
        with pytest.raises(
            SparseBlockError, match=rf"^CompiledState\.reset: stream is {stream!r}; it must be None or in"
        ):
            sparseblock.CompiledState().reset(stream)


def test_the_name_works_without_an_import():
    script = (
        "import torch\n"
        "network = torch.nn.Conv2d(3, 4, 3).eval()\n"
        "with torch.no_grad():\n"
        "    print(tuple(torch.compile(network, backend='sparseblock')(torch.rand(1, 3, 16, 16)).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 4, 14, 14)\n"
