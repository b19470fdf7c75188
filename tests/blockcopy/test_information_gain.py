"""Information gain against what methods say in words, computed the long way."""

from __future__ import annotations

import math

import pytest
import torch
from blockcopy.information_gain import (
    Objects,
    detection_gain,
    log_probabilities,
    objects_of,
    restoration_gain,
    score_map,
    segmentation_gain,
    task_named,
)
from blockcopy.view import PolicyView
from hypothesis import given
from hypothesis import strategies as st

from sparseblock import BlockGrid, SparseBlockError

GRID = (2, 3)
SAMPLES = 4


def _samples(channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, GRID[0] * SAMPLES, GRID[1] * SAMPLES, generator=generator)


def _pixels(row: int, col: int) -> list[tuple[int, int]]:
    return [(row * SAMPLES + y, col * SAMPLES + x) for y in range(SAMPLES) for x in range(SAMPLES)]


@pytest.mark.parametrize("channels", [2, 19])
def test_segmentation_is_the_largest_divergence_in_the_block(channels):
    before, after = _samples(channels, 0), _samples(channels, 1)
    gain = segmentation_gain(log_probabilities(before), log_probabilities(after), GRID)
    p, q = before.softmax(1), after.softmax(1)
    expected = torch.zeros(GRID)
    for row in range(GRID[0]):
        for col in range(GRID[1]):
            divergences = []
            for y, x in _pixels(row, col):
                terms = [p[0, c, y, x] * math.log(p[0, c, y, x] / q[0, c, y, x]) for c in range(channels)]
                divergences.append(sum(terms) / channels)
            expected[row, col] = max(divergences)
    torch.testing.assert_close(gain, expected)


def test_one_logit_is_foreground_or_not():
    before, after = _samples(1, 0), _samples(1, 1)
    gain = segmentation_gain(log_probabilities(before), log_probabilities(after), GRID)
    p, q = before.sigmoid()[0, 0], after.sigmoid()[0, 0]
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()) / 2
    expected = torch.stack(
        [torch.stack([max(divergence[y, x] for y, x in _pixels(r, c)) for c in range(GRID[1])]) for r in range(GRID[0])]
    )
    torch.testing.assert_close(gain, expected)


def test_restoration_is_the_mean_absolute_change():
    before, after = _samples(2, 0), _samples(2, 1)
    gain = restoration_gain(before, after, GRID)
    for row in range(GRID[0]):
        for col in range(GRID[1]):
            changes = [abs(after[0, c, y, x] - before[0, c, y, x]) for c in range(2) for y, x in _pixels(row, col)]
            torch.testing.assert_close(gain[row, col], torch.stack(changes).mean())


VIEW = PolicyView(BlockGrid(64, 96, 32))


@pytest.mark.parametrize(
    "name, output, other",
    [
        ("segmentation", torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96)),
        ("restoration", torch.rand(1, 3, 64, 96), torch.rand(1, 3, 64, 96)),
        (
            "detection",
            [{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}],
            [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}],
        ),
    ],
)
def test_nothing_changed_gains_nothing(name, output, other):
    task = task_named(name)
    seen, again, changed = (task.see(x, VIEW) for x in (output, output, other))
    assert seen.features.shape[2:] == (VIEW.grid.rows * VIEW.samples, VIEW.grid.cols * VIEW.samples)
    assert torch.equal(task.gain(seen, again, VIEW.grid), torch.zeros(2, 3))
    assert task.gain(seen, changed, VIEW.grid).max() > 0


def test_a_box_fills_the_samples_that_it_reaches_into_with_its_score():
    view = PolicyView(BlockGrid(64, 70, 32))  # 3 blocks of 2 samples of 16 pixels along a row
    objects = _objects((0, 0, 17, 16, 0.5, 1), (16, 0, 33, 1, 0.75, 2), (69, 63, 70, 64, 0.25, 1))
    expected = torch.zeros(1, 1, 4, 6)
    expected[0, 0, 0, :3] = torch.tensor([0.5, 0.75, 0.75])
    expected[0, 0, 3, 4] = 0.25
    assert torch.equal(score_map(objects, view), expected)
    assert torch.equal(score_map(_objects(), view), torch.zeros(1, 1, 4, 6))


def test_objects_are_read_from_what_detectors_return():
    found = {"boxes": torch.rand(2, 4), "scores": torch.rand(2), "labels": torch.tensor([1, 2])}
    soft = torch.tensor([[[[0.4, 0.6]]], [[[0.5, 0.1]]]])
    for output in (found, [found], ({**found, "masks": soft},), {**found, "masks": soft[:, 0] >= 0.5, "keypoints": 0}):
        objects = objects_of(output)
        assert all(torch.equal(getattr(objects, key), value) for key, value in found.items())
        assert objects.masks is None or objects.masks.tolist() == [[[False, True]], [[True, False]]]
    found["boxes"].zero_()
    assert objects.boxes.any(), "a copy"


@pytest.mark.parametrize(
    "output, what",
    [
        (torch.rand(1, 3, 4, 4), "[1, 3, 4, 4]"),
        ([], "a list of 0"),
        ([{}, {}], "a list of 2"),
        ({"boxes": torch.rand(2, 4), "scores": torch.rand(2)}, "{'boxes': [2, 4], 'scores': [2]}"),
        (
            {"boxes": torch.rand(2, 4), "scores": torch.rand(3), "labels": [1, 2]},
            "{'boxes': [2, 4], 'scores': [3], 'labels': 'list'}",
        ),
        (
            {"boxes": torch.rand(1, 4), "scores": torch.rand(1), "labels": torch.ones(1), "masks": torch.rand(9, 9)},
            "{'boxes': [1, 4], 'scores': [1], 'labels': [1], 'masks': [9, 9]}",
        ),
    ],
)
def test_what_is_no_detection_is_refused(output, what):
    with pytest.raises(SparseBlockError) as error:
        objects_of(output)
    assert str(error.value) == (
        f'BlockCopy: the network\'s output is {what}; for the task "detection" the policy learns from a dict of '
        "boxes [n, 4], scores [n], labels [n] and, if there are any, masks [n, h, w], or a list of one such dict; "
        "give read=, a function that makes that of the output, or choose another policy"
    )


def test_an_unknown_task_is_refused():
    with pytest.raises(SparseBlockError) as error:
        task_named("poetry")
    assert (
        str(error.value) == "BlockCopy: no task is named 'poetry'; the tasks are segmentation, restoration, detection"
    )


def _objects(*rows: tuple[float, float, float, float, float, int]) -> Objects:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Objects(table[:, :4], table[:, 4], table[:, 5].long())


def test_a_moved_object_paints_where_it_was_and_is():
    before = _objects((0, 0, 16, 16, 0.9, 1))
    after = _objects((8, 0, 24, 16, 0.5, 1))
    moved = 0.5 * (1 - 128 / 384)
    torch.testing.assert_close(detection_gain(before, after, (1, 3), 16), torch.tensor([[moved, moved, 0.0]]))


def test_an_object_that_vanished_and_one_that_appeared():
    before = _objects((0, 0, 10, 10, 0.8, 1))
    after = _objects((33, 0, 40, 10, 0.6, 1))
    torch.testing.assert_close(detection_gain(before, after, (1, 3), 16), torch.tensor([[0.8, 0.0, 0.6]]))


def test_objects_of_another_class_are_no_match():
    box = (0, 0, 10, 10)
    gain = detection_gain(_objects((*box, 0.8, 1)), _objects((*box, 0.6, 2)), (1, 2), 16)
    torch.testing.assert_close(gain, torch.tensor([[0.8, 0.0]]))


def test_an_object_that_stayed_gains_nothing():
    objects = _objects((3, 3, 20, 20, 0.8, 1))
    assert torch.equal(detection_gain(objects, objects, (2, 2), 16), torch.zeros(2, 2))


@pytest.mark.parametrize("which", ["neither", "before", "after"])
def test_frames_without_objects(which):
    one, none = _objects((0, 0, 10, 10, 0.7, 0)), _objects()
    before, after = {"neither": (none, none), "before": (one, none), "after": (none, one)}[which]
    gain = detection_gain(before, after, (1, 2), 16)
    torch.testing.assert_close(gain, torch.tensor([[0.0 if which == "neither" else 0.7, 0.0]]))


BOX = st.tuples(
    st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.integers(0, 1)
)


@given(st.lists(BOX, max_size=5), st.lists(BOX, max_size=5))
def test_masks_of_boxes_gain_what_the_boxes_gain(before, after):
    def boxes(rows):
        return _objects(*[(x, y, x + w, y + h, score / 10, label) for x, y, w, h, score, label in rows])

    def masks(objects):
        m = torch.zeros(len(objects.boxes), 50, 50, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(m, objects.boxes.long().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        return Objects(objects.boxes, objects.scores, objects.labels, m)

    a, b = boxes(before), boxes(after)
    gain = detection_gain(a, b, (4, 4), 16)
    torch.testing.assert_close(detection_gain(masks(a), masks(b), (4, 4), 16), gain)
    torch.testing.assert_close(gain, _painted(a, b))


def _painted(before: Objects, after: Objects) -> torch.Tensor:
    """The description, pixel by pixel."""
    canvas = torch.zeros(64, 64)

    def area(box):
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    def paint(box, value):
        x0, y0, x1, y1 = (int(side) for side in box)
        canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1].clamp(min=value)

    matched = set()
    old = before.boxes.tolist()
    for box, score, label in zip(after.boxes.tolist(), after.scores.tolist(), after.labels.tolist(), strict=True):
        best, match = 0.0, None
        for index, other in enumerate(old):
            if before.labels[index] != label:
                continue
            common = area([max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])])
            overlap = common / (area(box) + area(other) - common)
            if overlap > best:
                best, match = overlap, index
        paint(box, (1 - best) * score)
        if match is not None:
            matched.add(match)
            paint(old[match], (1 - best) * score)
    for index, box in enumerate(old):
        if index not in matched:
            paint(box, before.scores[index].item())
    return canvas.view(4, 16, 4, 16).amax((1, 3))
