from __future__ import annotations

import re
from collections import defaultdict

import pytest
import torch
from tasknets import labels, scenery
from tasknets.scenes import SceneGenerator

from sparseblock import SparseBlockError

SIZE = {"height": 128, "width": 256}
FRAMES = 400


@pytest.fixture(scope="module")
def video():
    return list(SceneGenerator(seed=5, **SIZE, frames=FRAMES))


def same(a, b) -> bool:
    return torch.equal(a.frame, b.frame) and torch.equal(a.labels, b.labels) and a.boxes == b.boxes


def test_class_indices_are_the_rows_of_the_label_table():
    names = ("SKY", "BUILDING", "VEGETATION", "PAVEMENT", "ROAD", "POLE", "CAR", "PERSON")
    assert [getattr(scenery, name) for name in names] == list(range(len(labels.STREETS)))
    assert [entry.name for entry in labels.STREETS] == [name.lower() for name in names]


@pytest.mark.parametrize("camera", ["fixed", "pan"])
def test_a_frame_depends_on_its_index_alone(camera):
    forward = SceneGenerator(seed=2, camera=camera, **SIZE)
    backward = SceneGenerator(seed=2, camera=camera, **SIZE)
    indices = [0, 1, 90, 1000, 100_000]
    there = {index: forward[index] for index in indices}
    for index in reversed(indices):
        assert same(there[index], backward[index])
    assert not same(there[0], SceneGenerator(seed=3, camera=camera, **SIZE)[0])


def test_shapes_and_types(video):
    scene = video[0]
    assert scene.frame.shape == (128, 256, 3) and scene.frame.dtype == torch.uint8
    assert scene.labels.shape == (128, 256) and scene.labels.dtype == torch.uint8
    assert scene.instances.shape == (128, 256) and scene.instances.dtype == torch.int32


def test_odd_sizes():
    scene = SceneGenerator(height=65, width=131, camera="pan")[77]
    assert scene.frame.shape == (65, 131, 3) and scene.labels.shape == (65, 131)


@pytest.mark.parametrize("camera", ["fixed", "pan"])
def test_boxes_bound_the_pixels_of_instances_and_classes_match(camera):
    generator = SceneGenerator(seed=9, camera=camera, **SIZE)
    for index in range(0, 600, 40):
        scene = generator[index]
        assert sorted(scene.instances.unique().tolist()) == [0] + [box.instance for box in scene.boxes]
        for box in scene.boxes:
            rows, cols = torch.nonzero(scene.instances == box.instance, as_tuple=True)
            assert (box.x0, box.y0) == (cols.min(), rows.min())
            assert (box.x1, box.y1) == (cols.max() + 1, rows.max() + 1)
            assert scene.labels[rows, cols].unique().tolist() == [box.label]
        people_and_cars = (scene.labels == scenery.CAR) | (scene.labels == scenery.PERSON)
        assert torch.equal(people_and_cars, scene.instances > 0)


def test_every_class_is_there(video):
    assert torch.cat([scene.labels.flatten() for scene in video]).unique().tolist() == list(range(8))


def whole_boxes(video) -> dict[int, dict[int, tuple[int, int]]]:
    """Per instance: frame to (x0, x1) where the box touches no side of the frame."""
    seen = defaultdict(dict)
    for index, scene in enumerate(video):
        for box in scene.boxes:
            if box.x0 > 0 and box.x1 < SIZE["width"]:
                seen[box.instance][index] = (box.x0, box.x1)
    return seen


@pytest.mark.parametrize("label", [scenery.CAR, scenery.PERSON])
def test_objects_move_and_stop(video, label):
    ids = {box.instance for scene in video for box in scene.boxes if box.label == label}
    moved_and_stopped = 0
    for places in (places for instance, places in whole_boxes(video).items() if instance in ids):
        middles = {index: sum(ends) / 2 for index, ends in places.items()}
        moved = max(middles.values()) - min(middles.values()) > 20
        stopped = any(places.get(index) == ends for index, ends in ((i - 10, e) for i, e in places.items()))
        moved_and_stopped += moved and stopped
    assert moved_and_stopped > 0


def test_objects_appear_and_leave(video):
    first, last = ({box.instance for box in video[i].boxes} for i in (0, -1))
    assert last - first and first - last


def test_cars_are_occluded_by_what_stands_nearer(video):
    behind = set()
    for scene in video:
        for box in (box for box in scene.boxes if box.label == scenery.CAR):
            window = (slice(box.y0, box.y1), slice(box.x0, box.x1))
            inside, other = scene.labels[window], scene.instances[window]
            lower = box.y0 + (inside == scenery.POLE).any(1).nonzero().flatten()
            if len(lower) == box.y1 - box.y0:
                behind.add("pole")
            behind |= {"person"} if (inside == scenery.PERSON).any() else set()
            behind |= {"car"} if ((other != box.instance) & (inside == scenery.CAR)).any() else set()
    assert behind == {"pole", "person", "car"}


def test_fixed_camera_keeps_the_scenery_still_and_pan_shifts_it():
    fixed, pan = (SceneGenerator(seed=4, camera=camera, **SIZE) for camera in ("fixed", "pan"))
    # Nothing that moves reaches into the upper third.
    a, b = (fixed[index].labels[:40] for index in (0, 150))
    assert torch.equal(a, b)
    a, b = (pan[index].labels[:40] for index in (0, 150))
    shifts = [shift for shift in range(1, 200) if torch.equal(a[:, shift:], b[:, :-shift])]
    assert shifts and not torch.equal(a, b)


def test_noise_is_as_strong_as_asked_and_fresh_in_every_frame():
    clean, noisy = (SceneGenerator(seed=1, noise=noise, **SIZE) for noise in (0, 4))
    road = (slice(80, 100), slice(0, 256))
    grain = [noisy[i].frame[road].float() - clean[i].frame[road].float() for i in (0, 1)]
    assert all(3.5 < g.std() < 4.5 for g in grain)
    assert torch.corrcoef(torch.stack([g.flatten() for g in grain]))[0, 1].abs() < 0.1


def test_light_drifts_and_leaves_move_without_changing_labels():
    generator = SceneGenerator(seed=1, noise=0, **SIZE)
    tree = generator[0].labels == scenery.VEGETATION
    near, far = generator[0].frame.float(), generator[200].frame.float()
    sky = (generator[0].labels == scenery.SKY) & (generator[200].labels == scenery.SKY)
    assert (near[sky].mean() - far[sky].mean()).abs() > 1
    ten = generator[10].frame.float()
    assert (near[tree] - ten[tree]).abs().mean() > 3 * (near[sky] - ten[sky]).abs().mean()


def test_length():
    generator = SceneGenerator(frames=3, **SIZE)
    assert len(generator) == 3 and len(list(generator)) == 3
    endless = iter(SceneGenerator(**SIZE))
    assert same(next(endless), generator[0]) and same(next(endless), generator[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"camera": "drone"}, "SceneGenerator: camera is 'drone'; the cameras are fixed, pan"),
        ({"height": 32}, "SceneGenerator: frame of 32x512; height and width must be at least 64 pixels"),
        ({"noise": -1.0}, "SceneGenerator: noise is -1.0, seed is 0; neither may be negative"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        SceneGenerator(**arguments)


def test_an_index_outside_of_the_video():
    message = "SceneGenerator: no frame 3 in a video of 3 frames; count from 0"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        SceneGenerator(frames=3, **SIZE)[3]
