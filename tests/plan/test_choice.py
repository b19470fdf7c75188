"""The algorithm of each convolution: chosen by measurement, remembered, pinned, and explained."""

from __future__ import annotations

import collections
import ctypes
import json
import re

import pytest
import torch
from error_bound import assert_within
from torch import nn

import sparseblock
from sparseblock import SparseBlockError
from sparseblock.algorithm import products
from sparseblock.backends.cpu import packed_weight
from sparseblock.plan import choice
from sparseblock.plan.ir import Conv2d
from sparseblock.testing import assert_identical, winograd_tolerance

WIDE = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 40, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(40, 32, 3, stride=2, padding=1),
    nn.Conv2d(32, 8, 1),
).eval()
FRAME = torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def costs(monkeypatch, **seconds):
    """Measurements that are told instead of taken; returns the list of what was asked."""
    asked = []
    monkeypatch.setattr(choice, "_seconds", lambda shape: asked.append(shape) or seconds)
    return asked


measured = choice._seconds.__wrapped__  # in earnest, and not remembered


def count_of(blocks):
    return ctypes.c_int32.from_address(blocks.count).value


def compiled(algorithms=None):
    return sparseblock.compile(WIDE, FRAME, block_size=16, algorithms=algorithms)


def algorithm_of(plan, origin):
    node = next(node for node in plan.graph.nodes if node.origin == origin)
    return plan.algorithms[node.output]


@pytest.mark.parametrize("fastest", ["direct", "winograd_2x2", "winograd_4x4"])
def test_the_fastest_runs_where_it_can(monkeypatch, fastest):
    times = dict.fromkeys(("direct", "winograd_2x2", "winograd_4x4"), 2e-3)
    asked = costs(monkeypatch, **{**times, fastest: 1e-3})
    plan = compiled()
    assert [algorithm_of(plan, name) for name in "0245"] == ["direct", fastest, "direct", "direct"]
    assert [(shape.weight, shape.block) for shape in asked] == [((40, 32, 3, 3), (16, 16))]
    kernels = {row.name: row.kernel.split()[2:] for row in plan.report().nodes}
    assert kernels["2"] == ([] if fastest == "direct" else [fastest])


@pytest.mark.parametrize(
    ("dilation", "block_size", "tried"),
    [
        (2, 16, ["direct", "winograd_2x2", "winograd_4x4"]),
        (4, 8, ["direct", "winograd_2x2"]),  # 2 pixels of a phase in a block
        (12, 16, ["direct"]),
        (12, 48, ["direct", "winograd_2x2", "winograd_4x4"]),
    ],
)
def test_algorithms_whose_tiles_would_be_empty_are_not_tried(monkeypatch, dilation, block_size, tried):
    asked = costs(monkeypatch, direct=3e-3, winograd_2x2=2e-3, winograd_4x4=1e-3)
    conv = nn.Conv2d(32, 32, 3, padding=dilation, dilation=dilation).eval()
    plan = sparseblock.compile(conv, torch.zeros(1, 32, 96, 96), block_size=block_size)
    assert [list(shape.candidates) for shape in asked] == ([tried] if len(tried) > 1 else [])
    left_out = f"blocks of {block_size}x{block_size} at dilation {dilation}x{dilation} leave its tiles empty: "
    assert sparseblock.explain(plan).count(left_out) == 3 - len(tried)


def test_products_of_tiles_by_hand():
    """F(4x4) on 8 columns: 2 tiles, with dilation 4 four of 2 outputs each."""
    assert products("winograd_4x4", (4, 8), (1, 1)) == 36 * 1 * 2 / (4 * 8) == 2.25
    assert products("winograd_4x4", (4, 8), (1, 4)) == 36 * 1 * 4 / (4 * 8)
    assert products("winograd_2x2", (1, 2), (1, 1)) == 16 / 2
    assert products("winograd_2x2", (3, 2), (3, 2)) == 16  # every tile has one output
    assert products("direct", (3, 2), (3, 2)) == 9


def test_a_gain_within_the_noise_is_none(monkeypatch):
    costs(monkeypatch, direct=1.05e-3, winograd_2x2=2e-3, winograd_4x4=1e-3)
    plan = compiled()
    assert algorithm_of(plan, "2") == "direct"
    assert "within 10% of the fastest" in sparseblock.explain(plan, "2")


@pytest.mark.parametrize(
    ("side", "block", "counts"),
    [
        (48, 16, (1, 2)),  # 9 blocks
        (128, 8, (16, 32)),  # 256, but a quarter of them has more pixels than are measured
        (128, 64, (1,)),
    ],
)
def test_a_sixteenth_and_a_quarter_of_the_blocks_are_measured(monkeypatch, side, block, counts):
    asked = costs(monkeypatch, direct=3e-3, winograd_2x2=2e-3, winograd_4x4=1e-3)
    plan = sparseblock.compile(WIDE, torch.zeros(1, 3, side, side), block_size=block)
    assert [shape.counts for shape in asked] == [counts]
    said = f"(measured on {' and '.join(map(str, counts))} blocks of {block}x{block}, "
    assert said in sparseblock.explain(plan, "2")


def test_few_blocks_count_as_much_as_many(monkeypatch):
    """The mean over counts of blocks is geometric: what is twice as fast on few makes up for twice the time on many."""
    asked = costs(monkeypatch, direct=1.0, winograd_2x2=1.0, winograd_4x4=1.0)
    compiled()
    times = {"direct": {1: 2.0, 2: 4.5}, "winograd_2x2": {1: 4.0, 2: 4.0}, "winograd_4x4": {1: 0.125, 2: 8.0}}
    monkeypatch.setattr(choice, "_run", lambda name, *_: lambda blocks: times[name][count_of(blocks)])
    assert measured(asked[0]) == pytest.approx({"direct": 3.0, "winograd_2x2": 4.0, "winograd_4x4": 1.0})


def test_weights_come_from_memory_in_every_measurement(monkeypatch):
    asked = costs(monkeypatch, direct=1.0, winograd_2x2=1.0, winograd_4x4=1.0)
    compiled()
    evicted = collections.Counter()
    monkeypatch.setattr(packed_weight, "evict", lambda packed: evicted.update([packed.data_ptr()]))
    measured(asked[0])
    assert list(evicted.values()) == [(1 + choice.ROUNDS) * len(asked[0].counts)] * len(asked[0].candidates)


@pytest.mark.parametrize("length", [0, 1, 1000])
def test_what_is_evicted_keeps_its_bits(length):
    values = torch.randn(length + 1)[1:]  # which begins within a line
    before = values.clone()
    packed_weight.evict(values)
    assert_identical(values, before)


def test_shapes_are_measured_once_in_a_process():
    choice._seconds.cache_clear()
    first, second = compiled(), compiled()
    assert choice._seconds.cache_info().misses == 1
    assert first.algorithms == second.algorithms


def test_a_choice_can_be_pinned(monkeypatch):
    """Also through JSON: the same bits whatever this process would measure."""
    costs(monkeypatch, direct=2e-3, winograd_2x2=2e-3, winograd_4x4=1e-3)
    chosen = compiled()
    costs(monkeypatch, direct=1e-3, winograd_2x2=2e-3, winograd_4x4=2e-3)
    pinned = compiled(json.loads(json.dumps(chosen.algorithms)))
    assert pinned.algorithms == chosen.algorithms != compiled().algorithms
    outs = [plan(FRAME, None, plan.new_state()) for plan in (chosen, pinned)]
    assert_identical(*outs)


def test_one_name_pins_every_convolution_that_it_can_compute():
    plan = compiled("winograd_2x2")
    assert [algorithm_of(plan, name) for name in "0245"] == ["winograd_2x2", "winograd_2x2", "direct", "direct"]


@pytest.mark.parametrize("algorithm", ["winograd_2x2", "winograd_4x4"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_plan_runs_it_on_active_blocks(algorithm, dilation):
    """One layer at a mask: the dense result where active, the previous frame's bits elsewhere."""
    conv = nn.Conv2d(32, 33, 3, padding=dilation, dilation=dilation).eval()
    frames = torch.randn(2, 1, 32, 40, 52, generator=torch.Generator().manual_seed(1))
    plan = sparseblock.compile(conv, frames[0], block_size=8, algorithms=algorithm)
    state = plan.new_state()
    before = plan(frames[0], None, state).clone()
    mask = torch.rand(1, plan.grid.rows, plan.grid.cols, generator=torch.Generator().manual_seed(2)) < 0.4
    out = plan(frames[1], mask, state)
    active = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None, :40, :52]
    assert_identical(out, before, where=~active)
    # The input is a plane too, of which only the active blocks were refreshed.
    mixed = torch.where(active, frames[1], frames[0]).double()
    expected = nn.functional.conv2d(mixed, conv.weight.double(), conv.bias.double(), 1, dilation, dilation)
    bound = winograd_tolerance(algorithm, mixed, conv.weight.detach(), addends=(conv.bias.detach(),))
    assert_within(torch.where(active, out, 0.0), torch.where(active, expected, 0.0), bound)


def test_explain_has_every_candidate_with_its_time_and_reason(monkeypatch):
    costs(monkeypatch, direct=3e-3, winograd_2x2=2e-3, winograd_4x4=1e-3)
    plan = compiled()
    assert sparseblock.explain(plan, "2").splitlines()[1:] == [
        "  direct           3.000 ms  3.00 times the time of winograd_4x4",
        "  winograd_2x2     2.000 ms  2.00 times the time of winograd_4x4",
        "  winograd_4x4     1.000 ms  fastest",
        "  bf16_pairs                 its maps are float32",
        "  bf16_amx                   its maps are float32",
    ]
    said = sparseblock.explain(plan)
    assert "3 channels: below 32 it is not tried" in said and "its stride is 2x2" in said
    json.dumps(plan.report().to_dict())
    assert sum(isinstance(node.op, Conv2d) for node in plan.graph.nodes) == len(plan.algorithms) == 4


@pytest.mark.parametrize(
    ("algorithms", "message"),
    [
        ("fft", "compile: algorithms has 'fft' for convolution "),
        ({}, "compile: algorithms has None for convolution "),
        ({"nowhere": "direct"}, "compile: algorithms names 'nowhere', which is no convolution here; "),
    ],
)
def test_wrong_pins_are_one_clear_line(algorithms, message):
    with pytest.raises(SparseBlockError, match="^" + re.escape(message)):
        compiled(algorithms)


@pytest.mark.parametrize("parts", [None, ["0"]])
def test_a_name_for_all_that_computes_nothing_is_refused(parts):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1)).eval()
    message = "^compile: algorithms is 'winograd_2x2', which computes no convolution here: .* its stride is 2x2; use "
    with pytest.raises(SparseBlockError, match=message):
        sparseblock.compile(network, FRAME[:, :3], block_size=16, algorithms="winograd_2x2", parts=parts)


def test_a_pin_that_cannot_be_computed_is_refused():
    plan = compiled("direct")
    strided = next(node.output for node in plan.graph.nodes if node.origin == "4")
    with pytest.raises(SparseBlockError, match=r"but its stride is 2x2; use 'direct'$"):
        compiled({**plan.algorithms, strided: "winograd_2x2"})


def test_an_unknown_convolution_is_not_explained():
    with pytest.raises(SparseBlockError, match=r"^explain: there is no convolution 'head'; there are 0, 2, 4, 5$"):
        sparseblock.explain(compiled("direct"), "head")
