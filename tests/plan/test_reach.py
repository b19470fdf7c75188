"""What an operator reads, position by position, against where a NaN goes: nothing forgotten, nothing too much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from networks import Call
from torch import nn

from sparseblock.plan.compile import trace
from sparseblock.plan.passes import run_passes
from sparseblock.plan.reach import grouped, reads
from sparseblock.plan.reference import Reference

torch.manual_seed(0)
OPERATORS = {
    "3x3": nn.Conv2d(1, 2, 3, padding=1),
    "dilated": nn.Conv2d(1, 2, 3, padding=4, dilation=4),
    "strided, no padding": nn.Conv2d(1, 2, 3, stride=2),
    "1x1, stride 3": nn.Conv2d(1, 2, 1, stride=3),
    "even kernel, wide padding": nn.Conv2d(1, 2, (4, 2), padding=(3, 2)),
    "transposed": nn.ConvTranspose2d(1, 2, 3, 2, 1, 1),
    "transposed 2x2": nn.ConvTranspose2d(1, 2, 2, 2),
    "transposed with holes": nn.ConvTranspose2d(1, 2, 1, 3, output_padding=1),
    "maximum": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "average": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average of everything": nn.AvgPool2d((11, 14)),
    "adaptive average": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive maximum": nn.AdaptiveMaxPool2d((4, 3)),
    "global average": nn.AdaptiveAvgPool2d(1),
    "group norm": nn.GroupNorm(1, 1),
    "bilinear x2": Call("", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "bilinear x2, aligned": Call("", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
    "bilinear down": Call("", lambda x: F.interpolate(x, (5, 9), mode="bilinear")),
    "nearest x2": Call("", lambda x: F.interpolate(x, scale_factor=2)),
    "nearest by an odd factor": Call("", lambda x: F.interpolate(x, scale_factor=1.7)),
    "pixel shuffle": nn.Sequential(nn.Conv2d(1, 4, 1), nn.PixelShuffle(2)),
    "pixel unshuffle": nn.Sequential(nn.ConstantPad2d((0, 0, 0, -1), 0.0), nn.PixelUnshuffle(2)),
    "channel shuffle": nn.ChannelShuffle(1),
    "softmax": nn.Softmax(1),
    "L2 norm": Call("", lambda x: F.normalize(x, dim=1)),
    "layer norm": Call("", lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (1,)).permute(0, 3, 1, 2)),
    "activation": nn.ReLU(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_reach_is_where_a_nan_goes(name):
    frame = torch.rand(1, 1, 11, 14) + 1
    graph, _ = trace(OPERATORS[name].eval(), frame)
    node = graph.producers()[graph.outputs[0].name]
    _, _, height, width = graph.values[node.output].shape
    rows, cols = (_matrix(*reads(node, 0, graph, axis), size) for axis, size in ((0, height), (1, width)))
    for y in range(frame.shape[2]):
        for x in range(frame.shape[3]):
            poisoned = frame.clone()
            poisoned[..., y, x] = torch.nan
            (out,) = Reference(graph, None)(poisoned, None)
            touched = out.isnan().any(1)[0].numpy()
            assert (touched == np.outer(rows[:, y], cols[:, x])).all(), f"of pixel {y}, {x}"


def _matrix(outputs: np.ndarray, sources: np.ndarray, out_size: int) -> np.ndarray:
    matrix = np.zeros((out_size, 14), dtype=bool)
    matrix[outputs, sources] = True
    return matrix


def test_a_residual_is_read_where_it_is_written():
    weight = torch.ones(1, 1, 3, 3)
    module = Call("", lambda x: x + F.conv2d(x * 2, weight, padding=1))
    graph = run_passes(trace(module.eval(), torch.rand(1, 1, 6, 7))[0], None)
    node = graph.nodes[-1]
    assert node.label == "conv2d+add"
    assert len(reads(node, 0, graph, 0)[0]) == 3 * 6 - 2
    outputs, sources = reads(node, 1, graph, 0)
    assert (outputs == sources).all() and len(outputs) == 6


@given(st.integers(1, 30), st.integers(1, 30), st.randoms(use_true_random=False))
def test_pairs_are_grouped_by_what_asks_for_them(keys, values, random):
    pairs = [(random.randrange(keys), random.randrange(values)) for _ in range(random.randrange(60))]
    start, index = grouped(*np.array(pairs, dtype=np.int64).reshape(-1, 2).T, keys)
    for key in range(keys):
        assert index[start[key] : start[key + 1]].tolist() == sorted({b for a, b in pairs if a == key})
