"""What moves and stands in a synthetic street: cars, pedestrians, lamp posts, as small RGB images with a mask.

All drawing is by inequalities on a pixel grid in the sprite's own units, so a sprite has its shape at any size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WALK_PHASES = 8


class Sprite(NamedTuple):
    """rgb: uint8 [h, w, 3]; mask: bool [h, w]."""

    rgb: np.ndarray
    mask: np.ndarray


class _Canvas:
    """A sprite being drawn: x and y of every pixel's centre, in units of the sprite's height."""

    def __init__(self, height: int, aspect: float) -> None:
        width = max(2, round(height * aspect))
        self.aspect = aspect
        self.y, self.x = np.meshgrid(
            (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width * aspect, indexing="ij"
        )
        self.rgb = np.zeros((height, width, 3), np.float32)
        self.mask = np.zeros((height, width), bool)

    def paint(self, where: np.ndarray, color: np.ndarray) -> None:
        self.rgb[where] = color
        self.mask |= where

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> np.ndarray:
        return ((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2 <= 1

    def trapezoid(self, top: tuple[float, float, float], bottom: tuple[float, float, float]) -> np.ndarray:
        """Between two horizontal edges, each (y, left, right)."""
        t = (self.y - top[0]) / (bottom[0] - top[0])
        left = top[1] + t * (bottom[1] - top[1])
        right = top[2] + t * (bottom[2] - top[2])
        return (t >= 0) & (t <= 1) & (self.x >= left) & (self.x <= right)

    def capsule(self, start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
        """Within `radius` of the segment from start to end, each (x, y)."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        t = ((self.x - start[0]) * dx + (self.y - start[1]) * dy) / (dx * dx + dy * dy)
        t = np.clip(t, 0, 1)
        return np.hypot(self.x - start[0] - t * dx, self.y - start[1] - t * dy) <= radius

    def finish(self, rng: np.random.Generator, grain: float) -> Sprite:
        """Light from above and a grain that belongs to the object and moves with it."""
        shaded = self.rgb * (1.15 - 0.3 * self.y[..., None])
        shaded += rng.normal(0, grain, self.mask.shape)[..., None]
        return Sprite(np.clip(shaded, 0, 255).astype(np.uint8), self.mask)


_PAINTS = ((196, 30, 34), (30, 70, 160), (232, 232, 228), (24, 24, 28), (140, 144, 150), (220, 170, 30), (30, 110, 70))
_SHIRTS = ((200, 50, 60), (50, 90, 190), (240, 240, 235), (240, 190, 40), (60, 150, 90), (120, 60, 150), (230, 120, 40))
_TROUSERS = ((40, 50, 90), (30, 30, 34), (120, 100, 70), (80, 80, 88))
_SKINS = ((240, 200, 170), (200, 150, 115), (140, 95, 70), (90, 60, 45))


def car(rng: np.random.Generator, height: int, faces_right: bool) -> Sprite:
    """A car seen from its side, `height` pixels tall: hatchback, saloon or van, in one of seven paints."""
    van = rng.random() < 0.25
    aspect = rng.uniform(2.0, 2.3) if van else rng.uniform(2.5, 3.0)
    canvas = _Canvas(height, aspect)
    paint = _vary(rng, _PAINTS)
    body_top = 0.40 if van else 0.46
    rear, front = (
        aspect * (0.04 if van else rng.uniform(0.12, 0.2)),
        aspect * (0.86 if van else rng.uniform(0.78, 0.84)),
    )
    roof_rear, roof_front = rear + (0.02 if van else 0.28), front - (0.3 if van else 0.45)
    canvas.paint(canvas.trapezoid((0.0, roof_rear, roof_front), (body_top + 0.06, rear, front)), paint)
    glass = np.array([70, 90, 110]) + rng.normal(0, 8, 3)
    window = canvas.trapezoid((0.07, roof_rear + 0.06, roof_front - 0.04), (body_top, rear + 0.1, front - 0.12))
    canvas.paint(window, glass)
    middle = (roof_rear + roof_front) / 2
    canvas.paint(canvas.trapezoid((0.0, middle, middle + 0.07), (body_top, middle, middle + 0.07)), paint)
    bumper = canvas.capsule((0.18, 0.66), (aspect - 0.18, 0.66), 0.18)
    canvas.paint(canvas.trapezoid((body_top, 0.06, aspect - 0.06), (0.84, 0.02, aspect - 0.02)) | bumper, paint)
    canvas.paint(canvas.trapezoid((0.76, 0.05, aspect - 0.05), (0.84, 0.05, aspect - 0.05)), paint * 0.5)
    headlight = canvas.trapezoid((0.55, aspect - 0.2, aspect - 0.06), (0.63, aspect - 0.2, aspect - 0.05))
    canvas.paint(headlight, (255, 250, 210))
    canvas.paint(canvas.trapezoid((0.55, 0.05, 0.16), (0.64, 0.05, 0.16)), (190, 20, 20))
    for x in (0.2 * aspect, 0.8 * aspect):
        canvas.paint(canvas.ellipse(x, 0.81, 0.19, 0.19), (22, 22, 24))
        canvas.paint(canvas.ellipse(x, 0.81, 0.09, 0.09), (150, 150, 155))
    sprite = canvas.finish(rng, grain=4)
    return sprite if faces_right else Sprite(sprite.rgb[:, ::-1], sprite.mask[:, ::-1])


def pedestrian(rng: np.random.Generator, height: int, faces_right: bool) -> list[Sprite]:
    """A walking person, `height` pixels tall: one sprite for each of WALK_PHASES phases of a double step."""
    shirt, trousers, skin = _vary(rng, _SHIRTS), _vary(rng, _TROUSERS), _vary(rng, _SKINS)
    hair = _vary(rng, ((30, 24, 20), (90, 60, 30), (190, 160, 90), (120, 120, 120)))
    stout, bag, texture = rng.uniform(0.085, 0.12), rng.random() < 0.4, int(rng.integers(2**31))
    phases = []
    for phase in range(WALK_PHASES):
        swing = np.sin(2 * np.pi * phase / WALK_PHASES)
        canvas = _Canvas(height, 0.5)
        for side, shade in ((-1, 0.75), (1, 1.0)):
            foot = 0.25 + 0.13 * side * swing
            canvas.paint(canvas.capsule((0.25, 0.52), (0.25 + 0.11 * side * swing, 0.75), 0.055), trousers * shade)
            canvas.paint(canvas.capsule((0.25 + 0.11 * side * swing, 0.74), (foot, 0.95), 0.042), trousers * shade)
            canvas.paint(canvas.ellipse(foot + 0.03, 0.97, 0.065, 0.03), (25, 22, 20))
            if side < 0:
                canvas.paint(canvas.capsule((0.25, 0.24), (0.25 + 0.12 * swing, 0.5), 0.035), shirt * 0.7)
                canvas.paint(canvas.capsule((0.25, 0.24), (0.25, 0.5), stout), shirt)
        if bag:
            canvas.paint(canvas.ellipse(0.13, 0.33, 0.07, 0.12), (70, 60, 50))
        canvas.paint(canvas.capsule((0.25, 0.24), (0.25 - 0.12 * swing, 0.48), 0.035), shirt * 0.85)
        canvas.paint(canvas.ellipse(0.25 - 0.12 * swing, 0.5, 0.035, 0.035), skin)
        canvas.paint(canvas.ellipse(0.26, 0.085, 0.07, 0.085), skin)
        canvas.paint(canvas.ellipse(0.24, 0.05, 0.075, 0.055), hair)
        sprite = canvas.finish(np.random.default_rng(texture), grain=5)
        phases.append(sprite if faces_right else Sprite(sprite.rgb[:, ::-1], sprite.mask[:, ::-1]))
    return phases


def lamp_post(rng: np.random.Generator, height: int) -> Sprite:
    """A post with an arm and a lamp, `height` pixels tall."""
    canvas = _Canvas(height, 0.3)
    grey = np.full(3, rng.uniform(70, 110))
    canvas.paint(canvas.trapezoid((0.04, 0.05, 0.075), (1.0, 0.045, 0.08)), grey)
    canvas.paint(canvas.trapezoid((0.86, 0.035, 0.09), (1.0, 0.03, 0.095)), grey * 0.8)
    canvas.paint(canvas.capsule((0.06, 0.05), (0.22, 0.03), 0.012), grey)
    canvas.paint(canvas.ellipse(0.23, 0.035, 0.05, 0.018), (235, 230, 205))
    return canvas.finish(rng, grain=3)


def _vary(rng: np.random.Generator, colors: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    return np.clip(np.array(colors[rng.integers(len(colors))], np.float32) + rng.normal(0, 10, 3), 5, 250)
