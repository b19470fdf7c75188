"""What is drawn, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import tasknets
import torch
from blockcopy import overlay

from sparseblock import BlockGrid

HEIGHT, WIDTH, BLOCK = 90, 130, 64


@pytest.fixture
def rgb() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def test_a_class_tints_its_pixels_by_half(rgb):
    palette = torch.tensor([[0, 0, 0], [200, 100, 50]], dtype=torch.uint8)
    classes = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    classes[10:20, 30:40] = 1
    drawn = overlay.blend(rgb, classes, palette)
    expected = rgb.numpy() // 2
    expected[10:20, 30:40] += np.array([100, 50, 25], np.uint8)
    assert np.array_equal(drawn, expected)


def test_luma_that_did_not_change_gives_the_frame(rgb):
    network = tasknets.load("vdsr")
    x = network.preprocess(rgb)
    assert np.array_equal(overlay.restore(rgb, x, x[0, :, :HEIGHT, :WIDTH]), rgb.numpy())


def test_brighter_luma_raises_all_three_channels_alike(rgb):
    network = tasknets.load("vdsr")
    x = network.preprocess(rgb)
    drawn = overlay.restore(rgb, x, x[0] + 10 / 255)
    assert np.array_equal(drawn, np.minimum(rgb.numpy().astype(int) + 10, 255))


def test_only_the_border_of_active_blocks_is_painted(rgb):
    active = torch.tensor([[True, False, False], [False, False, True]])
    drawn = rgb.numpy().copy()
    overlay.outline(drawn, active, BLOCK)
    expected = rgb.numpy().copy()
    for y0, y1, x0, x1 in ((0, 64, 0, 64), (64, 90, 128, 130)):
        tile = expected[y0:y1, x0:x1]
        inner = tile[1:-1, 1:-1].copy()
        tile[:] = overlay.OUTLINE
        tile[1:-1, 1:-1] = inner
    assert np.array_equal(drawn, expected)


def test_blocks_past_the_frame_are_clipped(rgb):
    drawn = rgb.numpy().copy()
    overlay.outline(drawn, torch.ones(3, 5, dtype=torch.bool), BLOCK)
    assert drawn.shape == (HEIGHT, WIDTH, 3)


def test_boxes_are_painted_in_the_colour_of_their_class_up_to_the_edge(rgb):
    boxes = torch.tensor([[10.2, 5, 30, 25], [10, 5, 30, 25], [100, 80, 999, 999], [-9, -9, 4, 4], [7, 7, 7, 7]])
    colors = torch.arange(15, dtype=torch.uint8).reshape(5, 3)
    drawn = rgb.numpy().copy()
    overlay.draw_boxes(drawn, boxes, colors)
    expected = rgb.numpy().copy()
    for y0, y1, x0, x1, box in ((5, 25, 10, 30, 0), (80, 90, 100, 130, 2), (0, 4, 0, 4, 3)):
        tile = expected[y0:y1, x0:x1]
        inner = tile[2:-2, 2:-2].copy()
        tile[:] = colors[box].numpy()
        tile[2:-2, 2:-2] = inner
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (33, 65), (90, 130), (361, 641)])
def test_any_size_can_be_drawn(size):
    network = tasknets.load("espnet")
    rgb = torch.full((*size, 3), 128, dtype=torch.uint8)
    classes = torch.randint(0, 20, size, generator=torch.Generator().manual_seed(0))
    grid = BlockGrid(*size, BLOCK)
    active = torch.ones(grid.rows, grid.cols, dtype=torch.bool)
    drawn = overlay.draw(rgb, network.preprocess(rgb), classes, active, grid, network, "frame 1   active 100 %")
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8


def test_the_text_is_written_and_the_frame_below_it_left_alone():
    network = tasknets.load("vdsr")
    rgb = torch.full((360, 640, 3), 100, dtype=torch.uint8)
    x = network.preprocess(rgb)
    grid = BlockGrid(360, 640, 128)
    none = torch.zeros(grid.rows, grid.cols, dtype=torch.bool)
    drawn = overlay.draw(rgb, x, x[0], none, grid, network, "frame 1")
    assert (drawn[:17] == 255).any()
    assert np.array_equal(drawn[20:], rgb[20:].numpy())
