from __future__ import annotations

import pytest
import torch
from blockcopy.freshness import SceneCut, age_limits
from blockcopy.numbers import HOST
from hypothesis import given
from hypothesis import strategies as st

THRESHOLD = 0.4


def _scene(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def _cuts(frames: list[torch.Tensor]) -> list[int]:
    cut = SceneCut(THRESHOLD)
    return [index for index, frame in enumerate(frames) if cut(frame)]


def _film(*scenes: int) -> list[torch.Tensor]:
    """Thirty frames of each scene, with noise."""
    return [_scene(scene) + _scene(1000 + 30 * place + i) / 10 for place, scene in enumerate(scenes) for i in range(30)]


def test_cuts_are_found_and_nothing_else():
    assert _cuts(_film(1, 2, 3, 1)) == [30, 60, 90]


@pytest.mark.parametrize("scale, shift", [(1.5, 0.0), (0.6, 0.0), (1.0, 2.0), (1.2, -5.0)])
def test_a_change_of_exposure_is_no_cut(scale, shift):
    assert _cuts([*_film(1), *(frame * scale + shift for frame in _film(1))]) == []


def test_what_drives_into_an_empty_street_is_no_cut():
    """A tenth of the picture, brighter than all that was in it before."""
    film = _film(1)
    for frame in film[15:]:
        frame[..., :10, :15] += 5
    assert _cuts(film) == []


def test_a_frame_of_another_scene_is_one_cut():
    film = _film(1)
    film[20] = _scene(2)
    assert _cuts(film) == [20]


def test_noise_alone_is_one_cut_at_most_every_few_frames():
    cuts = _cuts([_scene(seed) for seed in range(60)])
    assert len(cuts) == 1


def test_flat_frames_are_no_cut():
    assert _cuts([torch.full((1, 3, 8, 8), float(i)) for i in range(5)]) == []


def test_units_do_not_matter():
    assert _cuts([frame * 1e-3 + 7 for frame in _film(1, 2)]) == [30]


def test_another_stream_begins_anew():
    cut = SceneCut(THRESHOLD)
    cut(_scene(1))
    cut.begin(HOST)
    assert not cut(_scene(2))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 200))
def test_ages_are_bounded_and_do_not_fall_due_at_once(rows, cols, max_age):
    limits = age_limits(rows, cols, max_age)
    assert limits.shape == (rows, cols)
    assert limits.min() > max_age / 2 or limits.min() == 1
    assert limits.max() <= max_age
    together = limits.flatten().bincount().max()
    assert together <= 3 * rows * cols / (max_age // 2) + 1 if max_age > 1 else True
