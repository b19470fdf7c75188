"""The prediction drawn over the frame, active blocks outlined, with a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tasknets import TaskNetwork

from sparseblock import BlockGrid

OUTLINE = np.array([255, 214, 64], np.uint8)
"""Colour of active blocks, RGB: an amber that no class of the palettes has."""
SMALLEST_CLASS = 0.004
"""Share of the picture from which on a class is named in the legend."""


def draw(
    rgb: torch.Tensor,
    x: torch.Tensor,
    prediction: Any,
    active: torch.Tensor,
    grid: BlockGrid,
    network: TaskNetwork,
    text: str = "",
) -> np.ndarray:
    """uint8 [h, w, 3]: `rgb` under the network's prediction, with the blocks outlined that were computed anew.

    Args:
        rgb: uint8 [h, w, 3], the frame. x: the network's input that was made of it.
        prediction: what `network.predict` returned: classes [h, w], the restored luma float [1, h, w], or boxes.
        active: bool [rows, cols].
        grid: the grid of `active`; where the network pads the frame it reaches past it, and is clipped here.
        text: the line at the top; left out where the frame is too narrow for it.
    """
    if network.task == "segmentation":
        canvas, seen = blend(rgb, prediction, network.palette), _largest(prediction)
    elif network.task == "detection":
        canvas, seen = rgb.numpy().copy(), prediction["labels"].unique().tolist()
    else:
        canvas, seen = restore(rgb, x, prediction), []
    outline(canvas, active, grid.block_size)
    if network.task == "detection":
        draw_boxes(canvas, prediction["boxes"], network.palette[prediction["labels"]])
    if text:
        _write_line(canvas, [(None, text)], bottom=False)
    _write_line(canvas, [(network.palette[c].numpy(), network.class_names[c]) for c in seen], bottom=True)
    return canvas


def blend(rgb: torch.Tensor, classes: torch.Tensor, palette: torch.Tensor) -> np.ndarray:
    """uint8 [h, w, 3]: half the frame, half the colour, of `palette` [classes, 3], of each pixel's class."""
    canvas = rgb.numpy() >> 1
    canvas += np.take(palette.numpy() >> 1, classes.numpy(), axis=0)
    return canvas


def restore(rgb: torch.Tensor, x: torch.Tensor, luma: torch.Tensor) -> np.ndarray:
    """uint8 [h, w, 3]: the frame with its luma, `x` [1, 1, H, W], replaced by `luma`, [1, h, w], and its chroma kept.

    In YCbCr, R, G and B are each Y plus a function of the chroma: a change of Y is the same change of all three.
    """
    change = (luma[0] - x[0, 0, : rgb.shape[0], : rgb.shape[1]]).mul_(255).round_().to(torch.int16)
    return rgb.to(torch.int16).add_(change[..., None]).clamp_(0, 255).to(torch.uint8).numpy()


def outline(canvas: np.ndarray, active: torch.Tensor, block: int) -> None:
    """Draw a frame just inside every active block of `canvas`, uint8 [h, w, 3], in place. `block` in pixels."""
    for row, col in active.nonzero().tolist():
        _frame(canvas, (col * block, row * block, (col + 1) * block, (row + 1) * block), OUTLINE, 1)


def draw_boxes(canvas: np.ndarray, boxes: torch.Tensor, colors: torch.Tensor) -> None:
    """Draw `boxes`, [n, 4] as left, top, right, bottom in pixels, in `colors`, uint8 [n, 3], in place; first on top."""
    for box, color in zip(boxes.round().int().tolist()[::-1], colors.numpy()[::-1], strict=True):
        _frame(canvas, [max(side, 0) for side in box], color, 2)


def _frame(canvas: np.ndarray, box: Sequence[int], color: np.ndarray, weight: int) -> None:
    """A line just inside of a box, `weight` 480ths of the picture's height thick."""
    line = max(weight, round(weight * canvas.shape[0] / 480))
    left, top, right, bottom = box
    tile = canvas[top:bottom, left:right]
    for side in (tile[:line], tile[-line:], tile[:, :line], tile[:, -line:]):
        side[:] = color


def _largest(classes: torch.Tensor) -> list[int]:
    """The classes of [h, w] that can be seen, in the network's order."""
    sample = classes.numpy()[::4, ::4].ravel()
    return np.flatnonzero(np.bincount(sample) >= SMALLEST_CLASS * sample.size).tolist()


def _write_line(canvas: np.ndarray, items: list[tuple[np.ndarray | None, str]], bottom: bool) -> None:
    """Write `items`, each a colour patch and a text, on a darkened strip at the top or the bottom of `canvas`.

    Items that do not fit are left out.
    """
    height, width = canvas.shape[:2]
    size = max(11, round(height / 36))
    strip_height = round(1.7 * size)
    if strip_height > height // 3:
        return
    strip = canvas[height - strip_height :] if bottom else canvas[:strip_height]
    x, gap = size // 2, size // 2
    placed = []
    for color, text in items:
        label = _label(text, size)
        patch = 0 if color is None else size + gap // 2
        if x + patch + label.shape[1] > width - gap:
            break
        placed.append((x, patch, color, label))
        x += patch + label.shape[1] + 2 * gap
    if not placed:
        return
    end = min(width, x - gap)
    strip[:, :end] >>= 2
    top = (strip_height - size) // 2
    for x, patch, color, label in placed:
        if color is not None:
            strip[top : top + size, x : x + size] = color
        area = strip[:, x + patch : x + patch + label.shape[1]]
        np.maximum(area, label[: strip.shape[0], :, None], out=area)


@lru_cache(maxsize=256)
def _label(text: str, size: int) -> np.ndarray:
    """uint8 [round(1.7 size), width]: `text` in white on black, centred in height. `size` in pixels."""
    font = _font(size)
    height = round(1.7 * size)
    image = Image.new("L", (round(font.getlength(text)) + 2, height))
    ImageDraw.Draw(image).text((0, height // 2), text, fill=255, font=font, anchor="lm")
    return np.asarray(image)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
