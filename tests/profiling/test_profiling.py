"""Ranges as a tool receives them: through NVTX's own interface, in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

NETWORK = """
import torch, sparseblock

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.head = torch.nn.Conv2d(8, 4, 3, 1, 1)

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).flip(3))

frame = torch.rand(1, 3, 64, 96)
"""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of a tool that writes down what it receives."""
    places = importlib.util.find_spec("nvidia").submodule_search_locations
    headers = next(header.parents[1] for place in places for header in Path(place).rglob("nvtx3/nvToolsExt.h"))
    library = tmp_path_factory.mktemp("recorder") / "librecorder.so"
    source = Path(__file__).with_name("recorder.cpp")
    flags = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-isystem", headers]
    subprocess.run(["g++", *flags, source, "-o", library], check=True)
    return library


def record(recorder: Path, folder: Path, code: str) -> list[tuple[int, str]]:
    """(depth, message) of the ranges that a process running `code` opens in our domain, in order."""
    file = folder / "ranges"
    environment = os.environ | {"NVTX_INJECTION64_PATH": str(recorder), "SPARSEBLOCK_RECORD": str(file)}
    subprocess.run([sys.executable, "-c", NETWORK + code], check=True, env=environment)
    ranges, depth = [], 0
    for line in file.read_text().splitlines():
        event, domain, message = line.split("\t")
        assert domain == "sparseblock"
        if event == "push":
            ranges.append((depth, message))
            depth += 1
        else:
            depth -= 1
        assert depth >= 0
    assert depth == 0, "a range was left open"
    return ranges


def test_every_op_has_a_range(recorder, tmp_path):
    ranges = record(
        recorder,
        tmp_path,
        """
x = torch.rand(1, 8, 32, 48).to(memory_format=torch.channels_last).requires_grad_()
mask = torch.zeros(1, 2, 3, dtype=torch.bool)
mask[0, 1, 2] = True
blocks = sparseblock.BlockSet.from_mask(mask, block=16)
out = torch.zeros(1, 8, 32, 48).to(memory_format=torch.channels_last)
sparseblock.ops.mul(x.detach(), x.detach(), blocks, out.clone(memory_format=torch.preserve_format))
sparseblock.ops.add(x, x.detach(), blocks, out)
out.sum().backward()
with sparseblock.profiling.span("mine"):
    try:
        with sparseblock.profiling.span("ends by an error"):
            raise KeyError
    except KeyError:
        pass
""",
    )
    shape = "[1, 8, 32, 48]"
    assert ranges == [
        (0, f"mul {shape}, up to 1 blocks"),
        (0, f"add {shape}, up to 1 blocks"),
        (0, f"add backward {shape}, up to 1 blocks"),
        (0, "mine"),
        (1, "ends by an error"),
    ]


RUNS = {
    "grid": "plan = sparseblock.compile(Network().eval(), frame, block_size=32)",
    "exact": "plan = sparseblock.compile(Network().eval(), frame, mode='exact', whole_from=1.0)",
    "gates": "plan = sparseblock.compile(Network().eval(), frame, block_size=32, gates=['stem'])",
}


@pytest.mark.parametrize("mode", RUNS)
def test_every_layer_of_a_plan_has_a_range(mode, recorder, tmp_path):
    ranges = record(recorder, tmp_path, RUNS[mode] + "\nplan(frame, None, plan.new_state())")
    layers = [message for depth, message in ranges if depth == 1]
    assert [message for depth, message in ranges if depth == 0] == ["frame"]
    assert [layer.split(":")[0] for layer in layers] == ["x__copy", "stem", "flip", "head"]
    blocks = "" if mode == "exact" else ", up to 6 blocks"
    assert layers[1] == f"stem: conv2d+relu [1, 8, 32, 48]{blocks}"
    assert layers[3] == f"head: conv2d [1, 4, 32, 48]{blocks}"


def test_so_has_every_layer_of_a_frame_that_changed_in_part(recorder, tmp_path):
    code = RUNS["exact"] + "\nstate = plan.new_state()\nplan(frame, None, state)\nframe[0, 0, 0, 0] = 2\n"
    ranges = record(recorder, tmp_path, code + "plan(frame, None, state)\nassert not state.ran_whole")
    assert len(ranges) == 10 and ranges[5:] == ranges[:5]


def test_layers_that_run_as_a_chain_share_a_range(recorder, tmp_path):
    ranges = record(
        recorder,
        tmp_path,
        """
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 1, 1), torch.nn.Conv2d(8, 64, 1), torch.nn.Conv2d(64, 4, 1))
plan = sparseblock.compile(model.eval(), torch.rand(1, 3, 256, 256), block_size=128)
assert plan.report().nodes[1].chain, plan.report()
plan(torch.rand(1, 3, 256, 256), None, plan.new_state())
""",
    )
    assert any("0: conv2d > 1: conv2d > 2: conv2d" in message for _, message in ranges)


def test_what_a_plan_computes_does_not_depend_on_a_listener(recorder, tmp_path):
    code = """
torch.manual_seed(0)
plan = sparseblock.compile(Network().eval(), frame, block_size=32, algorithms="direct")
out = plan(torch.linspace(0, 1, 3 * 64 * 96).view(1, 3, 64, 96), None, plan.new_state())
out.numpy().tofile(OUT)
"""
    for name, run in ("heard", lambda code: record(recorder, tmp_path, code)), ("unheard", lambda code: None):
        place = f"OUT = {str(tmp_path / name)!r}\n"
        if run(place + code) is None:
            subprocess.run([sys.executable, "-c", place + NETWORK + code], check=True)
    assert (tmp_path / "heard").read_bytes() == (tmp_path / "unheard").read_bytes()


def test_a_tool_without_the_nvtx_package_is_told_of(recorder, tmp_path):
    code = "import sys; sys.modules['nvtx'] = None; import sparseblock; assert not sparseblock.profiling.listening()"
    environment = os.environ | {"NVTX_INJECTION64_PATH": str(recorder), "SPARSEBLOCK_RECORD": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "NVTX_INJECTION64_PATH is set, but no ranges are sent to it: pip install nvtx" in done.stderr
