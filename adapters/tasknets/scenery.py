"""What stands still in a synthetic street: sky, buildings, trees, pavements and road, drawn once per generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# Class indices; names and colours are tasknets.labels.STREETS.
SKY, BUILDING, VEGETATION, PAVEMENT, ROAD, POLE, CAR, PERSON = range(8)

# Where things are, in frame heights from the top.
FACADE_BASE, FAR_KERB, NEAR_KERB = 0.50, 0.575, 0.86


@dataclass(frozen=True)
class Tree:
    """A crown whose leaves move in the wind: its outline, which is its label, stands still.

    left, top: of the crown in pixels of the scenery; mask: bool [h, w]; leaves: uint8 [h + sway, w + sway, 3].
    """

    left: int
    top: int
    mask: np.ndarray
    leaves: np.ndarray
    sway: int


@dataclass(frozen=True)
class Scenery:
    """rgb: uint8 [h, w, 3]; labels: uint8 [h, w]."""

    rgb: np.ndarray
    labels: np.ndarray
    trees: tuple[Tree, ...]


def draw(rng: np.random.Generator, height: int, width: int) -> Scenery:
    """A street seen from across it, `width` pixels wide."""
    rgb = np.zeros((height, width, 3), np.float32)
    labels = np.full((height, width), SKY, np.uint8)
    _sky(rng, rgb)
    _buildings(rng, rgb, labels)
    _ground(rng, rgb, labels)
    _hedges(rng, rgb, labels)
    trees = tuple(_trees(rng, rgb, labels))
    return Scenery(np.clip(rgb, 0, 255).astype(np.uint8), labels, trees)


def fractal(rng: np.random.Generator, height: int, width: int, coarse: int) -> np.ndarray:
    """Noise of zero mean and about unit deviation, float32 [h, w], with details from `coarse` pixels down to one."""
    total = torch.zeros(1, 1, height, width)
    cell, weight = coarse, 1.0
    while cell >= 1:
        grid = rng.standard_normal((1, 1, height // cell + 2, width // cell + 2), np.float32)
        layer = F.interpolate(torch.from_numpy(grid), scale_factor=cell, mode="bilinear", align_corners=False)
        total += weight * layer[..., :height, :width]
        cell, weight = cell // 2, weight * 0.6
    return (total / total.std().clamp(min=1e-6))[0, 0].numpy()


def _sky(rng: np.random.Generator, rgb: np.ndarray) -> None:
    height, width, _ = rgb.shape
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    clear = np.array([90, 140, 215]) + rng.normal(0, 12, 3)
    rgb[:] = clear * (1 - down) + np.array([200, 215, 230]) * down
    clouds = np.clip(fractal(rng, height, width, max(2, height // 4)) - rng.uniform(-0.2, 0.8), 0, 1.5)[..., None] / 1.5
    rgb += clouds * (245 - rgb)


def _buildings(rng: np.random.Generator, rgb: np.ndarray, labels: np.ndarray) -> None:
    height, width, _ = rgb.shape
    base = round(FACADE_BASE * height)
    x = -round(rng.uniform(0, 0.3) * height)
    while x < width:
        w = round(rng.uniform(0.28, 0.6) * height)
        top = round(rng.uniform(0.02, 0.3) * height)
        left, right = max(x, 0), min(x + w, width)
        if right > left:
            rgb[top:base, left:right] = _facade(rng, base - top, w, height)[:, left - x : right - x]
            labels[top:base, left:right] = BUILDING
        # Now and then a gap that shows the sky between two houses.
        x += w + (round(rng.uniform(0.03, 0.15) * height) if rng.random() < 0.3 else 0)


_WALLS = ((150, 80, 62), (196, 176, 140), (120, 120, 124), (206, 200, 190), (96, 104, 120), (170, 130, 90))


def _facade(rng: np.random.Generator, h: int, w: int, unit: int) -> np.ndarray:
    wall = np.array(_WALLS[rng.integers(len(_WALLS))], np.float32) + rng.normal(0, 8, 3)
    out = np.tile(wall, (h, w, 1)).astype(np.float32)
    out += 6 * fractal(rng, h, w, max(2, unit // 16))[..., None]
    courses = max(2, unit // 64)
    out[::courses] *= 0.93
    storey, bay = max(6, round(rng.uniform(0.075, 0.1) * unit)), max(5, round(rng.uniform(0.05, 0.08) * unit))
    pane_h, pane_w = max(3, round(storey * 0.55)), max(2, round(bay * 0.55))
    for y in range(storey // 3, h - storey, storey):
        for x in range(bay // 3, w - pane_w, bay):
            lit = rng.random() < 0.12
            glass = np.array([235, 215, 150] if lit else [55, 70, 90]) + rng.normal(0, 10, 3)
            out[y : y + pane_h, x : x + pane_w] = glass
            out[y + pane_h : y + pane_h + 1, x : x + pane_w] = wall * 1.2
    door = max(3, round(0.045 * unit))
    at = int(rng.integers(0, max(1, w - door)))
    out[h - round(0.08 * unit) :, at : at + door] = np.array([70, 45, 30]) + rng.normal(0, 15, 3)
    return out


def _ground(rng: np.random.Generator, rgb: np.ndarray, labels: np.ndarray) -> None:
    height, width, _ = rgb.shape
    far, kerb, near = (round(f * height) for f in (FACADE_BASE, FAR_KERB, NEAR_KERB))
    stone = np.array([172, 166, 158]) + rng.normal(0, 6, 3)
    tar = np.array([78, 78, 84]) + rng.normal(0, 5, 3)
    rgb[far:] = stone + 6 * fractal(rng, height - far, width, max(2, height // 8))[..., None]
    labels[far:] = PAVEMENT
    for x in range(0, width, max(8, height // 12)):
        rgb[far:kerb, x] *= 0.85
    for y in range(near, height, max(6, height // 20)):
        rgb[y] *= 0.85
    rgb[kerb:near] = tar + 5 * fractal(rng, near - kerb, width, max(2, height // 6))[..., None]
    labels[kerb:near] = ROAD
    edge = max(1, height // 128)
    rgb[kerb - edge : kerb] *= 1.12
    rgb[near : near + edge] *= 1.12
    middle, dash = round((kerb + near) / 2), round(0.16 * height)
    for x in range(int(rng.integers(0, dash)), width, dash):
        rgb[middle : middle + max(1, height // 100), x : x + dash // 2] = (214, 212, 200)


def _hedges(rng: np.random.Generator, rgb: np.ndarray, labels: np.ndarray) -> None:
    height, width, _ = rgb.shape
    base = round(FACADE_BASE * height) + 1
    for _ in range(max(1, round(width / height * 0.8))):
        w, h = round(rng.uniform(0.2, 0.5) * height), round(rng.uniform(0.04, 0.07) * height)
        x = int(rng.integers(-w // 2, width - w // 2))
        left, right = max(x, 0), min(x + w, width)
        rgb[base - h : base, left:right] = _leaves(rng, h, right - left, height)
        labels[base - h : base, left:right] = VEGETATION


def _trees(rng: np.random.Generator, rgb: np.ndarray, labels: np.ndarray) -> list[Tree]:
    height, width, _ = rgb.shape
    foot = round((FACADE_BASE + 0.03) * height)
    trees = []
    for _ in range(max(1, round(width / height * 1.2))):
        crown = round(rng.uniform(0.2, 0.34) * height)
        middle, bottom = int(rng.integers(0, width)), foot - round(rng.uniform(0.08, 0.14) * height)
        trunk = max(1, round(0.012 * height))
        left, right = max(middle - trunk, 0), min(middle + trunk, width)
        rgb[bottom - crown // 3 : foot, left:right] = (82, 62, 44)
        labels[bottom - crown // 3 : foot, left:right] = VEGETATION
        y, x = np.mgrid[0:crown, 0:crown] / crown * 2 - 1
        mask = np.hypot(x, y) + 0.16 * fractal(rng, crown, crown, max(2, crown // 4)) < 0.85
        left, top = middle - crown // 2, bottom - crown
        cut_left, cut_right = max(left, 0), min(left + crown, width)
        cut_top = max(top, 0)
        mask = mask[cut_top - top :, cut_left - left : cut_right - left]
        sway = max(1, round(0.012 * height))
        leaves = np.clip(_leaves(rng, mask.shape[0] + sway, mask.shape[1] + sway, height), 0, 255).astype(np.uint8)
        labels[cut_top:bottom, cut_left:cut_right][mask] = VEGETATION
        trees.append(Tree(cut_left, cut_top, mask, leaves, sway))
    return trees


def _leaves(rng: np.random.Generator, h: int, w: int, unit: int) -> np.ndarray:
    green = np.array([62, 104, 44]) + rng.normal(0, 8, 3)
    return green + np.array([20, 26, 14]) * fractal(rng, h, w, max(2, unit // 24))[..., None]
