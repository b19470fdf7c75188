"""Synthetic street scenes with ground truth: a seeded video that nobody has to download or label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from sparseblock import SparseBlockError
from tasknets import scenery, sprites

_CAMERAS = ("fixed", "pan")
_SMALLEST = 64
# Each purpose draws from its own stream of random numbers, so that none shifts another.
_SCENERY, _TRACKS, _LOOKS, _NOISE, _LIGHT = range(5)


class Box(NamedTuple):
    """The bounds of an object's visible pixels: x0 <= x < x1, y0 <= y < y1; `label` is its class, `instance` its id."""

    label: int
    x0: int
    y0: int
    x1: int
    y1: int
    instance: int


@dataclass(frozen=True)
class Scene:
    """A frame and its ground truth.

    Attributes:
        frame: uint8 [h, w, 3], RGB.
        labels: uint8 [h, w], classes of `tasknets.labels.STREETS`.
        boxes: one per object with a visible pixel, in ascending instance.
        instances: int32 [h, w]: the id of the car or person seen there, 0 elsewhere. An object keeps its id from frame
            to frame and no other object ever gets it.
    """

    frame: torch.Tensor
    labels: torch.Tensor
    boxes: tuple[Box, ...]
    instances: torch.Tensor


@dataclass(frozen=True)
class _Rhythm:
    """How far along its way an object is: it covers `distance` pixels in `moving` frames, then stops for `stopped`."""

    distance: float
    moving: int
    stopped: int
    offset: int

    def at(self, index: int) -> float:
        cycles, phase = divmod(index + self.offset, self.moving + self.stopped)
        t = min(phase / self.moving, 1.0)
        # Speed 1 - cos: it starts and brakes gently.
        return self.distance * (cycles + t - np.sin(2 * np.pi * t) / (2 * np.pi))


@dataclass(frozen=True)
class _Track:
    """A way across the street, taken by one object after the other."""

    kind: int  # scenery.CAR, PERSON, or POLE for a lamp post, which is nobody's instance
    base: int  # y of the feet or wheels: what stands lower in the frame stands in front
    height: int
    start: float
    rightward: bool
    rhythm: _Rhythm | None  # None stands for ever


class SceneGenerator:
    """A street with traffic, as an endless or finite video; any frame can be had by its index, in any order.

    Cars wait at lights and drive on, people walk and pause, all pass behind lamp posts and each other, leave the frame
    and are followed by new ones; some stand for ever. Leaves move in the wind and the light drifts slowly without any
    change in the labels. Frames are a function of the arguments and the index alone.

    Args:
        seed: of everything that is random.
        height, width: of a frame in pixels, each at least 64.
        camera: "fixed", or "pan": it turns slowly from side to side, in whole pixels.
        noise: standard deviation of the sensor noise, in grey levels of 255.
        frames: the video's length; None for an endless one.

    Raises:
        SparseBlockError: an argument outside of what is said above, or an index outside of the video.
    """

    def __init__(
        self,
        seed: int = 0,
        height: int = 256,
        width: int = 512,
        camera: str = "fixed",
        noise: float = 2.0,
        frames: int | None = None,
    ) -> None:
        if camera not in _CAMERAS:
            raise SparseBlockError(f"SceneGenerator: camera is {camera!r}; the cameras are {', '.join(_CAMERAS)}")
        if min(height, width) < _SMALLEST:
            raise SparseBlockError(
                f"SceneGenerator: frame of {height}x{width}; height and width must be at least {_SMALLEST} pixels"
            )
        if not noise >= 0 or seed < 0:
            raise SparseBlockError(f"SceneGenerator: noise is {noise}, seed is {seed}; neither may be negative")
        self.seed, self.height, self.width = seed, height, width
        self.camera, self.noise, self.frames = camera, noise, frames
        self._span = width if camera == "fixed" else round(1.6 * width)
        self._scenery = scenery.draw(self._rng(_SCENERY), height, self._span)
        self._tracks = _lay_tracks(self._rng(_TRACKS), height, self._span)
        self._order = sorted(range(len(self._tracks)), key=lambda i: self._tracks[i].base)
        light = self._rng(_LIGHT)
        # Period in frames, phase, size of two slow waves.
        ranges = ((300, 900), (0, 2 * np.pi), (0.02, 0.05))
        self._light = [tuple(light.uniform(*limits) for limits in ranges) for _ in range(2)]
        self._wind = light.uniform(0.1, 0.2)
        # One plane of noise, read at another place in every frame: drawing it anew would take most of a frame's time.
        shape = (height + _SMALLEST, width + _SMALLEST, 3)
        self._grain = torch.from_numpy(self._rng(_NOISE).standard_normal(shape, np.float32) * np.float32(noise))
        # A person's eight phases are drawn once and then found again.
        self._looks = lru_cache(maxsize=4 * len(self._tracks))(self._draw_looks)

    def __iter__(self) -> Iterator[Scene]:
        return map(self.__getitem__, itertools.count() if self.frames is None else range(self.frames))

    def __len__(self) -> int:
        if self.frames is None:
            raise TypeError("an endless SceneGenerator has no length; pass frames=")
        return self.frames

    def __getitem__(self, index: int) -> Scene:
        if index < 0 or (self.frames is not None and index >= self.frames):
            end = "endless" if self.frames is None else f"{self.frames} frames"
            raise SparseBlockError(f"SceneGenerator: no frame {index} in a video of {end}; count from 0")
        left = self._camera_left(index)
        window = np.s_[:, left : left + self.width]
        rgb, labels = self._scenery.rgb[window].copy(), self._scenery.labels[window].copy()
        self._blow(rgb, left, index)
        instances = np.zeros((self.height, self.width), np.int32)
        drawn = []
        for i in self._order:
            self._put(i, index, left, rgb, labels, instances, drawn)
        boxes = sorted(filter(None, (_visible(instances, *entry) for entry in drawn)), key=lambda box: box.instance)
        return Scene(self._expose(rgb, index), torch.from_numpy(labels), tuple(boxes), torch.from_numpy(instances))

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])

    def _camera_left(self, index: int) -> int:
        room = self._span - self.width
        return round(room / 2 * (1 - np.cos(2 * np.pi * index / 600)))

    def _blow(self, rgb: np.ndarray, left: int, index: int) -> None:
        for number, tree in enumerate(self._scenery.trees):
            x0, x1 = max(tree.left - left, 0), min(tree.left - left + tree.mask.shape[1], self.width)
            if x0 >= x1:
                continue
            height = tree.mask.shape[0]
            cut = slice(x0 + left - tree.left, x1 + left - tree.left)
            dx, dy = (round(tree.sway * (0.5 + 0.5 * np.sin(f * self._wind * index + number))) for f in (1.0, 0.7))
            leaves = tree.leaves[dy : dy + height, dx : dx + tree.mask.shape[1]][:, cut]
            np.copyto(rgb[tree.top : tree.top + height, x0:x1], leaves, where=tree.mask[:, cut, None])

    def _put(
        self,
        i: int,
        index: int,
        left: int,
        rgb: np.ndarray,
        labels: np.ndarray,
        instances: np.ndarray,
        drawn: list[tuple[int, int, tuple[slice, slice]]],
    ) -> None:
        """Draws who is on track i now; notes a car's or person's class, instance and region in `drawn`."""
        track = self._tracks[i]
        travelled = track.rhythm.at(index) if track.rhythm else 0.0
        # Sprites enter and leave outside of the scenery, so the way is longer than it by their widest on either side.
        margin = 3 * track.height
        turn, place = divmod(track.start + travelled, self._span + margin)
        looks = self._looks(i, int(turn))
        if looks is None:
            return
        # A double step takes a person forward by about 0.8 of their height.
        phase = int(travelled / (0.8 * track.height) * len(looks)) % len(looks)
        sprite = looks[phase]
        x = place - margin if track.rightward else self._span - place
        x = round(x) - left if track.rhythm else round(place) - left
        y0, x0, x1 = track.base - sprite.mask.shape[0], max(x, 0), min(x + sprite.mask.shape[1], self.width)
        if x0 >= x1:
            return
        cut = slice(x0 - x, x1 - x)
        mask, region = sprite.mask[:, cut], np.s_[y0 : track.base, x0:x1]
        if track.kind == scenery.CAR:
            shade = rgb[track.base - track.height // 12 : track.base + track.height // 10, x0:x1]
            np.floor_divide(shade, 2, out=shade)
        np.copyto(rgb[region], sprite.rgb[:, cut], where=mask[..., None])
        labels[region][mask] = track.kind
        instance = 0 if track.kind == scenery.POLE else 1 + i + int(turn) * len(self._tracks)
        instances[region][mask] = instance
        if instance:
            drawn.append((track.kind, instance, region))

    def _draw_looks(self, i: int, turn: int) -> list[sprites.Sprite] | None:
        """The sprites of the `turn`-th object on track i; None where nobody comes."""
        track, rng = self._tracks[i], self._rng(_LOOKS, i, turn)
        if track.kind == scenery.POLE:
            return [sprites.lamp_post(rng, track.height)]
        if track.rhythm and rng.random() < 0.2:
            return None
        if track.kind == scenery.CAR:
            return [sprites.car(rng, track.height, track.rightward)]
        return sprites.pedestrian(rng, track.height, track.rightward)

    def _expose(self, rgb: np.ndarray, index: int) -> torch.Tensor:
        """Slow drift of the light, then sensor noise."""
        gain = 1 + sum(size * np.sin(2 * np.pi * index / period + phase) for period, phase, size in self._light)
        y, x = self._rng(_NOISE, index).integers(0, _SMALLEST, 2)
        exposed = torch.from_numpy(rgb).float().mul_(gain).add_(self._grain[y : y + self.height, x : x + self.width])
        return exposed.add_(0.5).clamp_(0, 255).to(torch.uint8)


def _lay_tracks(rng: np.random.Generator, height: int, span: int) -> tuple[_Track, ...]:
    """Two lanes of cars, parked cars, lamp posts and people on both pavements."""
    tracks = []

    def lane(base: float, size: float, rightward: bool) -> None:
        tall = round(size * height)
        # A lane has one rhythm, so that its cars queue and never run into each other.
        rhythm = _draw_rhythm(rng, height, distance=(0.9, 1.5), moving=(70, 110), stopped=(20, 90))
        way = span + 3 * tall
        cars = max(1, int(way // (4.5 * tall)))
        for number in range(cars):
            start = (number + rng.uniform(0, 0.25)) * way / cars
            tracks.append(_Track(scenery.CAR, round(base * height), tall, start, rightward, rhythm))

    def stand(kind: int, base: float, size: float, every: float) -> None:
        for x in np.arange(rng.uniform(0.1, 0.6) * height, span, every * height):
            start = float(x + rng.uniform(-0.1, 0.1) * height)
            rightward = bool(rng.random() < 0.5)
            tracks.append(_Track(kind, round(base * height), round(size * height), start, rightward, None))

    def walk(base: float, size: float, people: int) -> None:
        for _ in range(people):
            tall = round(size * rng.uniform(0.9, 1.08) * height)
            rhythm = _draw_rhythm(rng, height, distance=(0.4, 0.9), moving=(120, 220), stopped=(10, 200))
            foot = round((base + rng.uniform(-0.015, 0.015)) * height)
            start = rng.uniform(0, span + 3 * tall)
            tracks.append(_Track(scenery.PERSON, foot, tall, start, bool(rng.random() < 0.5), rhythm))

    per_height = span / height
    stand(scenery.POLE, scenery.FAR_KERB - 0.01, 0.5, every=1.1)
    walk(scenery.FACADE_BASE + 0.045, 0.15, people=max(1, round(0.8 * per_height)))
    stand(scenery.CAR, scenery.FAR_KERB + 0.02, 0.085, every=1.3)
    lane(0.68, 0.115, rightward=False)
    lane(0.82, 0.15, rightward=True)
    stand(scenery.POLE, scenery.NEAR_KERB + 0.02, 0.72, every=1.9)
    walk(0.96, 0.3, people=max(1, round(0.5 * per_height)))
    stand(scenery.PERSON, 0.93, 0.27, every=2.3)
    return tuple(tracks)


def _draw_rhythm(
    rng: np.random.Generator,
    height: int,
    distance: tuple[float, float],
    moving: tuple[int, int],
    stopped: tuple[int, int],
) -> _Rhythm:
    length = rng.uniform(*distance) * height
    return _Rhythm(length, int(rng.integers(*moving)), int(rng.integers(*stopped)), offset=int(rng.integers(500)))


def _visible(instances: np.ndarray, label: int, instance: int, region: tuple[slice, slice]) -> Box | None:
    seen = instances[region] == instance
    rows, cols = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not rows.size:
        return None
    y, x = region[0].start, region[1].start
    return Box(label, x + int(cols[0]), y + int(rows[0]), x + int(cols[-1]) + 1, y + int(rows[-1]) + 1, instance)
