"""The detectors: boxes from maps, LFFD with its real weights, CSP, and the ELAN network that measurements use."""

from __future__ import annotations

import pytest
import tasknets
import torch
from tasknets import csp, elan, lffd
from tasknets.boxes import overlaps, suppressed
from tasknets.scores import detection_agreement

import sparseblock


def _found(*rows: tuple[float, float, float, float, float, int]) -> dict[str, torch.Tensor]:
    table = torch.tensor(rows).reshape(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].long()}


def test_overlap_is_the_shared_part_of_the_union():
    a = torch.tensor([[0.0, 0, 4, 4], [1, 1, 1, 1]])
    b = torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4], [4, 0, 8, 4], [1, 1, 1, 1]])
    torch.testing.assert_close(overlaps(a, b), torch.tensor([[8 / 24, 1, 0, 0], [0, 0, 0, 0]]))


def test_the_best_of_boxes_that_overlap_stands_unless_they_are_of_other_classes():
    rows = [(0, 0, 4, 4, 0.5, 0), (0, 0, 4, 5, 0.9, 0), (0, 0, 4, 4, 0.6, 1), (9, 9, 12, 12, 0.1, 0)]
    found = suppressed(*_found(*rows).values(), overlap=0.7)
    assert found["scores"].tolist() == pytest.approx([0.9, 0.6, 0.1]) and found["labels"].tolist() == [0, 1, 0]
    assert len(suppressed(*_found(*rows).values(), overlap=0.8)["boxes"]) == 4
    assert suppressed(*_found().values(), overlap=0.5)["boxes"].shape == (0, 4)


def test_agreement_pairs_boxes_of_a_class():
    a = _found((0, 0, 4, 4, 0.9, 0), (0, 0, 4, 5, 0.5, 0), (9, 9, 12, 12, 0.8, 1))
    assert detection_agreement(a, a) == 1
    assert detection_agreement(a, _found((0, 0, 4, 4, 0.9, 0))) == 2 / 4  # one partner for two boxes
    assert detection_agreement(a, _found((9, 9, 12, 12, 0.9, 0))) == 0
    assert detection_agreement(_found(), _found()) == 1 and detection_agreement(a, _found()) == 0


def test_heads_are_where_the_pixels_say():
    output = [(torch.zeros(1, 2, 6, 8), torch.zeros(1, 4, 6, 8)) for _ in lffd.STRIDES]
    score, box = output[1]
    score[0, 0, 2, 3] = 0.9
    box[0, :, 2, 3] = torch.tensor([0.5, 0.25, -0.5, -1.0])
    x, y = 3 * lffd.STRIDES[1] + lffd.STRIDES[1] - 1, 2 * lffd.STRIDES[1] + lffd.STRIDES[1] - 1
    half = lffd.SEEN[1] / 2
    found = lffd.detections(output)
    assert torch.equal(found["boxes"], torch.tensor([[x - 0.5 * half, y - 0.25 * half, x + 0.5 * half, y + half]]))
    assert found["scores"].tolist() == pytest.approx([0.9]) and found["labels"].tolist() == [0]
    score[0, 0, 2, 4] = 0.8  # nearly the same box, worse: left out
    box[0, :, 2, 4] = box[0, :, 2, 3]
    assert len(lffd.detections(output)["boxes"]) == 1
    assert len(lffd.detections(output, threshold=0.95)["boxes"]) == 0
    assert len(lffd.detections(output, overlap=0.9)["boxes"]) == 2


def test_objects_are_where_the_pixels_say():
    output = [torch.full((1, 5 + 3, 4 - i, 6 - i), -9.0) for i in range(3)]
    output[1][0, :, 2, 3] = torch.tensor([1, 2, 0.5, -1, 2.0, 0.5, 3, -4])
    found = elan.detections(output)
    x, y = 3.5 * 16, 2.5 * 16
    torch.testing.assert_close(found["boxes"], torch.tensor([[x - 16, y - 32, x + 8, y]]))
    expected = torch.tensor(2.0).sigmoid() * torch.tensor(3.0).sigmoid()
    assert found["scores"].tolist() == pytest.approx([float(expected)]) and found["labels"].tolist() == [1]


def test_pedestrians_are_where_the_pixels_say():
    score, height, offset = torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8), torch.zeros(1, 2, 6, 8)
    score[0, 0, 2, 3], height[0, 0, 2, 3] = 0.9, torch.tensor(5.0).log()
    offset[0, :, 2, 3] = torch.tensor([0.25, -0.5])
    found = csp.detections((score, height, offset))
    x, y, half = 4 * 3 + 2 - 2, 4 * 2 + 2 + 1, torch.tensor([0.41 * 10, 10.0])
    torch.testing.assert_close(
        found["boxes"], torch.cat([torch.tensor([x, y]) - half, torch.tensor([x, y]) + half])[None]
    )
    assert found["scores"].tolist() == pytest.approx([0.9]) and found["labels"].tolist() == [0]
    # Nearly the same box, worse: left out, as what is below the threshold is.
    offset[0, :, 3, 3] = offset[0, :, 2, 3]
    score[0, 0, 3, 3], height[0, 0, 3, 3], score[0, 0, 5, 7] = 0.8, torch.tensor(5.0).log(), 0.05
    assert len(csp.detections((score, height, offset))["boxes"]) == 1
    assert len(csp.detections((score, height, offset), overlap=0.9)["boxes"]) == 2
    assert len(csp.detections((score, height, offset), threshold=0.01)["boxes"]) == 2
    assert len(csp.detections((score, height, offset), threshold=0.95)["boxes"]) == 0


def test_csp_keeps_the_stride_of_its_last_stage_and_scales_lengths_to_ten():
    net = tasknets.load("csp").model
    lengths = []
    for level in (net.level3, net.level4, net.level5):
        level.register_forward_hook(lambda _, given, made: lengths.append((given[0].shape[2:], made.norm(dim=1))))
    with torch.inference_mode():
        out = net(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in out] == [(1, 1, 16, 24), (1, 1, 16, 24), (1, 2, 16, 24)]
    assert [tuple(size) for size, _ in lengths] == [(8, 12), (4, 6), (4, 6)]
    for _, length in lengths:
        torch.testing.assert_close(length, torch.full((1, 16, 24), 10.0))
    convs = [block.conv2 for block in net.backbone.layer4]
    assert all((conv.stride, conv.dilation, conv.padding) == ((1, 1), (2, 2), (2, 2)) for conv in convs)


def test_a_prediction_ends_at_the_frame():
    network = tasknets.load("elan")
    output = [torch.full((1, 85, 64 // stride, 96 // stride), -9.0) for stride in elan.STRIDES]
    for x, left in ((1, 3), (11, 1)):  # the second lies in the padding of a frame of 60 x 80
        output[0][0, :6, 1, x] = torch.tensor([left, 3, 0.1, 0.1, 9.0, 9.0])
    assert len(network.predict(output)["boxes"]) == 2
    (box,) = network.predict(output, (60, 80))["boxes"].tolist()
    assert box == pytest.approx([0, 0, 12.8, 12.8])


def test_real_lffd_weights_find_the_head_in_the_dog_clip(data, read_frame):
    network = tasknets.load("lffd", data / "weights" / "lffd_head17L_converted.pth")
    frame = network.preprocess(read_frame("fixed_dog_720p", 100))
    with torch.inference_mode():
        found = network.predict(network.model(frame), (720, 1280))
    assert len(found["boxes"]) == 1 and found["scores"][0] > 0.9
    x, y = (found["boxes"][0, :2] + found["boxes"][0, 2:]) / 2
    assert 400 < x < 480 and 120 < y < 200
    plan = sparseblock.compile(network.model, frame, block_size=64)
    assert plan.dense_macs == 0
    again = network.predict(plan(frame, None, plan.new_state()), (720, 1280))
    torch.testing.assert_close(again, found)


def test_elan_predicts_at_three_strides():
    with torch.inference_mode():
        out = elan.ELAN(classes=3).eval()(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in out] == [(1, 8, 8, 12), (1, 8, 4, 6), (1, 8, 2, 3)]
