"""The demo's network: what the package carries, and the script that made it."""

from __future__ import annotations

import os
from importlib import resources

import numpy as np
import pytest
import tasknets
import torch
from tasknets import train_streets
from tasknets.scenes import SceneGenerator
from tasknets.scores import pixel_agreement
from tasknets.streets import StreetsNet


def test_the_packaged_weights_segment_scenes_never_trained_on():
    assert train_streets.evaluate(tasknets.load("streets")) > 0.8


def test_the_packaged_weights_are_small():
    assert len((resources.files("tasknets") / "weights" / "streets.pt").read_bytes()) < 5_000_000


def test_the_prediction_is_steady_where_nothing_moves():
    network = tasknets.load("streets")
    scenes = [SceneGenerator(seed=train_streets._HELD_OUT, height=256, width=512)[index] for index in (100, 101)]
    with torch.inference_mode():
        first, second = (network.predict(network.model(network.preprocess(scene.frame))) for scene in scenes)
    same = scenes[0].labels == scenes[1].labels
    assert pixel_agreement(first[same], second[same]) > 0.98


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    model = StreetsNet()
    scene = SceneGenerator(seed=1)[0]
    x = tasknets.load("streets").preprocess(scene.frame)

    def loss() -> float:
        with torch.inference_mode():
            logits = model.train()(x)
        return torch.nn.functional.cross_entropy(logits, scene.labels[None, ::4, ::4].long()).item()

    before = loss()
    assert train_streets.train(model, seed=0, steps=12, batch=2, rate=2e-3) is model and not model.training
    assert loss() < before


def test_weights_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "weights" / "streets.pt"
    train_streets.save(StreetsNet(), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_streets.save(StreetsNet(), path)
    assert path.read_bytes() == before


def test_saved_weights_load_again(tmp_path):
    path = tmp_path / "streets.pt"
    model = StreetsNet().eval()
    train_streets.save(model, path)
    loaded = tasknets.load("streets", path).model
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded.state_dict()[key], value.half().float()), key


def test_training_windows_follow_their_seed():
    def windows(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng(seed)
        generator = train_streets._generator(rng)
        return [train_streets._crop(rng, generator) for _ in range(3)]

    for (frame, labels), (again, labels_again) in zip(windows(4), windows(4), strict=True):
        assert torch.equal(frame, again) and torch.equal(labels, labels_again)
        assert frame.shape == (*labels.shape, 3)
