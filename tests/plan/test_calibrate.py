"""`sparseblock.calibrate` finds tolerances by layer that keep an error on the user's frames."""

from __future__ import annotations

import math
import re

import pytest
import torch
from miniatures import miniature
from test_exact import clip, exact
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.testing import assert_identical


def noisy(case, count: int = 5) -> list[torch.Tensor]:
    """A video of a fixed camera: noise of 1 %, and a rectangle that changes."""
    generator = torch.Generator().manual_seed(1)
    return [frame + 0.01 * torch.randn(frame.shape, generator=generator) for frame in clip(case, count)]


def test_the_error_is_kept_and_work_is_saved():
    case = miniature("swift")
    plan, frames = exact(case), noisy(case)
    found = sparseblock.calibrate(plan, frames, 0.1)
    first, *rest = found.trials
    assert first.share is None and first.error == 0.0
    assert [trial.share for trial in rest] == sorted(trial.share for trial in rest)
    assert found.chosen.error <= 0.1 and found.chosen.macs < 0.7 * first.macs
    assert found.chosen.share == max(trial.share for trial in rest if trial.error <= 0.1)
    # Again from what a user takes along: the plan, and the tolerances in a plan of their own.
    recompiled = exact(case, dict(found.tolerance))
    assert recompiled.tolerances == found.plan.tolerances
    state, other, right = found.plan.new_state(), recompiled.new_state(), plan.new_state()
    worst = 0.0
    for frame in frames:
        out = found.plan(frame, None, state)
        worst = max(worst, float((out.double() - plan(frame, None, right).double()).abs().max()))
        assert_identical(out, recompiled(frame, None, other))
    assert worst == found.chosen.error
    assert sparseblock.verify(found.plan, frames)
    table = str(found).splitlines()
    assert len(table) == len(found.trials) + 3 and sum(line.endswith("<- chosen") for line in table) == 1


def test_tolerances_follow_each_layers_deviation():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    with torch.no_grad():
        network[0].weight.mul_(1000)
        network[0].bias.zero_()
    frames = [torch.randn(2, 1, 8, 8) for _ in range(3)]
    plan = sparseblock.compile(network, frames[0], mode="exact", whole_from=1.0)
    found = sparseblock.calibrate(plan, frames, 1.0)
    outputs = [network(frame).detach() for frame in frames]
    hidden = [network[1](network[0](frame)).detach() for frame in frames]
    values = {"frame": frames, "2": outputs, "0": hidden}
    values["input_1__copy"] = frames
    assert found.tolerance.keys() == values.keys()
    for name, value in values.items():
        deviation = float(torch.stack(value).double().std(correction=0))
        assert found.tolerance[name] == pytest.approx(found.chosen.share * deviation, 1e-5)


def test_nothing_allowed_is_exact():
    case = miniature("swift")
    plan, frames = exact(case), noisy(case, 3)
    assert sparseblock.calibrate(plan, frames, 0.0).chosen.error == 0.0
    found = sparseblock.calibrate(plan, frames, 0.0, error=lambda out, right: 1.0)  # no share fits
    assert found.chosen.share == 0.0 and set(found.plan.tolerances.values()) == {0.0}


def test_an_error_of_the_users_own():
    """Here the share of pixels that change sides."""
    case = miniature("swift")
    asked = []

    def sides(out, right):
        asked.append(float(((out > 0) != (right > 0)).float().mean()))
        return asked[-1]

    found = sparseblock.calibrate(exact(case), noisy(case, 3), 0.001, error=sides)
    assert found.chosen.error <= 0.001 < max(asked)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, x):
        return self.conv(x).argmax(1)


def test_what_cannot_be_calibrated_is_refused():
    case = miniature("swift")
    plan, frames = exact(case), noisy(case, 2)
    grid = sparseblock.compile(case.network, frames[0], block_size=16)
    counts = sparseblock.compile(Counts().eval(), torch.rand(1, 1, 8, 8), mode="exact", whole_from=1.0)
    for arguments, message in (
        ((grid, frames, 0.1), "plan is a Plan; tolerances are of exact plans: compile it with mode"),
        ((plan, frames, -1), "max_error is -1; it must be a number of at least 0"),
        ((plan, frames[:1], 0.1), "frames are 1; it takes two at least, of which one can change"),
        ((plan, [None, None], 0.1), "a frame is NoneType; it must be a tensor [n, c, h, w]"),
        (
            (counts, [torch.rand(1, 1, 8, 8)] * 2, 0.1),
            "the network returns no float tensor to measure an error on",
        ),
        ((plan, None, 0.1), "frames is a NoneType; it must be tensors [n, c, h, w] in order"),
        ((plan, frames, 0.1, None), "error is None; it must be a function of two results"),
        ((plan, frames, 0.1, lambda out, right: math.nan), "error= gives nan for two results; it must give a number"),
        ((plan, frames, 0.1, lambda out, right: -40.0), "error= gives -40.0 for two results; it must give a number"),
        ((plan, frames, 0.1, lambda out, right: None), "error= gives None for two results; it must give a number"),
    ):
        with pytest.raises(SparseBlockError, match=f"^calibrate: {re.escape(message)}"):
            sparseblock.calibrate(*arguments)
