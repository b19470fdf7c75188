from __future__ import annotations

import math
import re

import pytest
import torch
from tasknets import scores

from sparseblock import SparseBlockError


def test_mean_iou_by_hand_leaves_absent_classes_out():
    prediction = torch.tensor([[0, 1, 1, 3, 4]])
    target = torch.tensor([[0, 0, 1, 3, 4]])
    # Classes 0 and 1: one of two pixels each; 3 and 4: all; 2 and 5 are in neither.
    assert scores.mean_iou(prediction, target, classes=6) == 0.75


def test_mean_iou_counts_a_class_that_is_only_predicted():
    assert scores.mean_iou(torch.tensor([[0, 0], [0, 1]]), torch.tensor([[0, 0], [0, 0]]), classes=2) == 0.75 / 2


def test_mean_iou_ignores_void_pixels():
    prediction, target = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 2]])
    assert scores.mean_iou(prediction, target, classes=3, ignore=2) == 1


def test_mean_iou_of_several_frames_is_that_of_their_pixels_together():
    prediction, target = torch.randint(0, 4, (2, 3, 5, 7), generator=torch.Generator().manual_seed(0))
    together = scores.mean_iou(prediction, target, classes=4)
    assert together == scores.mean_iou(prediction.reshape(15, 7), target.reshape(15, 7), classes=4)


def test_mean_iou_takes_the_label_type_of_scenes():
    labels = torch.tensor([[0, 1, 7]], dtype=torch.uint8)
    assert scores.mean_iou(labels.long(), labels, classes=8) == 1


def test_pixel_agreement_by_hand():
    assert scores.pixel_agreement(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 0]])) == 0.75


def test_psnr_by_hand():
    assert scores.psnr(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]), peak=10) == 20
    assert scores.psnr(torch.ones(3), torch.ones(3)) == math.inf


@pytest.mark.parametrize("score", [scores.pixel_agreement, scores.psnr, lambda a, b: scores.mean_iou(a, b, 2)])
def test_shapes_that_differ_are_refused(score):
    with pytest.raises(SparseBlockError, match=re.escape("prediction is [2, 3], target is [3, 2]; the shapes must be")):
        score(torch.zeros(2, 3), torch.zeros(3, 2))
