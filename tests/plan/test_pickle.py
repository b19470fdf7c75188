"""Pickled plans: structure and decisions without weights, and the same bits once a model lends its own."""

from __future__ import annotations

import copy
import io
import pickle
import re
import subprocess
import sys

import pytest
import torch
from miniatures import miniature
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.testing import assert_identical

MODES = {
    "grid": {"block_size": 16},
    "half": {"block_size": 16, "dtype": torch.bfloat16},
    "gates": {"block_size": 16, "gates": ["body.3"]},
    "exact": {"mode": "exact", "tolerance": 0.01, "whole_from": 1.0},
}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Network().eval()


class Network(nn.Module):
    """Convolutions, a resize, an operator without a rule that reads a constant, and a dict of results."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.PReLU(32), nn.Conv2d(32, 32, 3, padding=1)
        )
        self.register_buffer("offset", torch.randn(1, 32, 1, 1))

    def forward(self, x):
        y = self.body(x)
        y = torch.atan2(y, self.offset) + nn.functional.interpolate(y, scale_factor=1.0)
        return {"out": nn.functional.interpolate(y, scale_factor=2.0), "two": 2}


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 1, 1)

    def forward(self, x):
        score = self.head(self.backbone(x))
        return score[score > score.mean()]


def course(plan) -> list[torch.Tensor]:
    """Outputs of two frames; the second one in half of the blocks."""
    state, frames = plan.new_state(), torch.rand(2, 1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    mask = None if isinstance(plan, sparseblock.ExactPlan) else torch.arange(12).reshape(1, 3, 4) % 2 == 0
    outs = [plan(frames[0], None, state), plan(frames[1], mask, state)]
    return [(out["out"] if isinstance(out, dict) else out).clone() for out in outs]


def size(module: nn.Module) -> int:
    return sum(x.nbytes for x in module.state_dict().values())


@pytest.mark.parametrize("mode", MODES)
def test_a_round_trip_gives_the_same_bits(mode):
    plan = sparseblock.compile(network(), torch.rand(1, 3, 48, 64), **MODES[mode])
    data = pickle.dumps(plan)
    back = pickle.loads(data)
    assert (
        back.algorithms == plan.algorithms
        and str(back.report()).splitlines()[:-1] == (str(plan.report()).splitlines()[:-1])
    )
    with pytest.raises(SparseBlockError, match=r"^plan: it was unpickled and has no weights yet; run the plan that"):
        course(back)
    for a, b in zip(course(back.with_weights(network())), course(plan), strict=True):
        assert_identical(a, b)
    other = sparseblock.compile(network(2), torch.rand(1, 3, 48, 64), **MODES[mode], algorithms=algorithms(plan))
    for a, b in zip(course(back.with_weights(network(2))), course(other), strict=True):
        assert_identical(a, b)
    if mode == "grid":
        with sparseblock.backend("reference"):
            device = sparseblock.compile(network(), torch.rand(1, 3, 48, 64), block_size=16)
            back = pickle.loads(pickle.dumps(device)).with_weights(network())
            for a, b in zip(course(back), course(device), strict=True):
                assert_identical(a, b)


def algorithms(plan):
    return None if isinstance(plan, sparseblock.ExactPlan) else plan.algorithms


def test_a_pickle_holds_no_weights():
    wide = nn.Sequential(nn.Conv2d(3, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(), nn.Conv2d(256, 256, 3)).eval()
    for mode in ("grid", "exact"):
        plan = sparseblock.compile(wide, torch.rand(1, 3, 16, 16), **MODES[mode])
        assert len(pickle.dumps(plan)) < 20_000 < size(wide) / 100


SCRIPT = """
import pickle, sys, torch
sys.path.insert(0, sys.argv[1])
from test_pickle import Detector, course, network
plan, nested = pickle.load(open(sys.argv[2], "rb"))
torch.manual_seed(0)
detector = Detector().eval()
torch.save([course(plan.with_weights(network())), course(nested.with_weights(detector))], sys.argv[3])
"""


def test_another_process_gives_the_same_bits(tmp_path):
    plan = sparseblock.compile(network(), torch.rand(1, 3, 48, 64), block_size=16)
    torch.manual_seed(0)
    nested = sparseblock.compile(Detector().eval(), torch.rand(1, 3, 48, 64), 16, parts=["backbone", "head"])
    file, out = tmp_path / "plan", tmp_path / "out"
    file.write_bytes(pickle.dumps((plan, nested)))
    here = str(__file__).rpartition("/")[0]
    subprocess.run([sys.executable, "-c", SCRIPT, here, str(file), str(out)], check=True)
    for found, expected in zip(torch.load(out, weights_only=True), (course(plan), course(nested)), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert_identical(a, b)


def test_a_state_goes_on_in_an_unpickled_plan():
    case = miniature("swift")
    plan = sparseblock.compile(case.network, case.frames(), block_size=16)
    state, frame = plan.new_state(), case.frames()
    plan(case.frames(), None, state)
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    back = pickle.loads(pickle.dumps(plan))
    loaded = back.new_state()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    mask = torch.zeros(1, plan.grid.rows, plan.grid.cols, dtype=torch.bool)
    mask[0, 0, 0] = True
    assert_identical(back.with_weights(case.network)(frame, mask, loaded), plan(frame, mask, state))


def test_another_model_is_refused():
    plan = sparseblock.compile(network(), torch.rand(1, 3, 48, 64), block_size=16)
    other = network()
    other.body[3] = nn.Conv2d(32, 32, 5, padding=2)
    end = "give it the model that it was compiled from, with any weights"
    message = (
        "plan: Network has body.3: conv2d with weight torch.float32 [32, 32, 5, 5] where the plan has "
        f"torch.float32 [32, 32, 3, 3]; {end}"
    )
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        plan.with_weights(other)
    other.body[3] = nn.Conv2d(32, 32, 3, padding=2, dilation=2)
    message = f"plan: Network has body.3: conv2d with padding (2, 2) where the plan has (1, 1); {end}"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        plan.with_weights(other)
    plan = sparseblock.compile(nn.Sequential(nn.Conv2d(3, 8, 1)).eval(), torch.rand(1, 3, 48, 64), block_size=16)
    message = f"plan: Sequential has 0: conv2d with bias None where the plan has torch.float32 [8]; {end}"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        plan.with_weights(nn.Sequential(nn.Conv2d(3, 8, 1, bias=False)).eval())
    longer = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d(2)).eval()
    plan = sparseblock.compile(nn.Sequential(nn.Conv2d(3, 8, 1)).eval(), torch.rand(1, 3, 48, 64), block_size=16)
    with pytest.raises(SparseBlockError, match=r"^plan: Sequential makes 3 nodes and 1 outputs, but the plan has 2 "):
        plan.with_weights(longer)
    with pytest.raises(SparseBlockError, match=r"^compile: Network is in training mode; call model.eval\(\) first"):
        plan.with_weights(network().train())
    nested = sparseblock.compile(Detector().eval(), torch.rand(1, 3, 48, 64), 16, parts=["backbone"])
    with pytest.raises(SparseBlockError, match=r"^plan: Network lacks a part \(.*backbone"):
        nested.with_weights(network())
    with pytest.raises(SparseBlockError, match=r"^plan: it was unpickled and has no weights yet; run the plan that"):
        course(pickle.loads(pickle.dumps(nested)))


def test_a_copy_of_a_plan_is_the_plan():
    plan = sparseblock.compile(network(), torch.rand(1, 3, 48, 64), block_size=16)
    assert copy.copy(plan) is plan and copy.deepcopy([plan])[0] is plan
