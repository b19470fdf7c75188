"""What holds for every task network, and what is special to one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import tasknets
import torch
from tasknets.espnet import ESPNet
from tasknets.scores import psnr
from tasknets.swiftnet import SwiftNet
from tasknets.vdsr import VDSR

from sparseblock import SparseBlockError

PARAMETERS = {
    "swiftnet-rn18": 11_797_071,
    "swiftnet-rn50": 24_502_991,
    "espnet": 364_569,
    "espnetv2": 789_253,
    "vdsr": 664_704,
    "lffd": 1_027_544,
    "elan": 3_919_439,
    "csp": 39_960_644,
}
PLAIN_OPS = {
    "conv2d",
    "conv_transpose2d",
    "batch_norm",
    "relu",
    "relu_",
    "prelu",
    "add",
    "add_",
    "cat",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "upsample_bilinear2d",
    "channel_shuffle",
    "sigmoid",
    "mul",
    "sub",
    "div",
    "silu_",
    "softmax",
    "chunk",
    "upsample_nearest2d",
    "linalg_vector_norm",
    "clamp_min",
    "expand_as",
}


DETECTORS = ("lffd", "elan", "csp")


@pytest.fixture(params=tasknets.names())
def network(request):
    return tasknets.load(request.param)


def random_frame(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    assert sum(p.numel() for p in tasknets.load(name).model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("size", [(64, 96), (75, 101), (33, 150)])
def test_any_frame_size_comes_back_as_a_prediction_of_that_size(network, size):
    with torch.inference_mode():
        output = network.model(network.preprocess(random_frame(*size)))
    prediction = network.predict(output, size)
    if network.task == "segmentation":
        assert prediction.shape == size
        assert prediction.dtype == torch.int64
        assert 0 <= prediction.min() and prediction.max() < len(network.class_names)
        assert network.palette.shape == (len(network.class_names), 3)
    elif network.task == "detection":
        boxes, labels = prediction["boxes"], prediction["labels"]
        assert boxes.shape == (len(labels), 4) and prediction["scores"].shape == labels.shape
        assert (boxes >= 0).all() and (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
        assert network.palette.shape == (len(network.class_names), 3)
    else:
        assert prediction.shape == (1, *size)
        assert 0 <= prediction.min() and prediction.max() <= 1


@pytest.mark.parametrize("name", [name for name in tasknets.names() if name not in DETECTORS])
def test_without_a_size_the_prediction_has_the_output_times_its_stride(name):
    network = tasknets.load(name)
    with torch.inference_mode():
        output = network.model(network.preprocess(random_frame(64, 128)))
    assert network.predict(output).shape[-2:] == (64, 128)


def test_preprocess_follows_its_formula(network):
    rgb = random_frame(11, 13)
    x = network.preprocess(rgb)
    order = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}
    values = rgb.double() / 255
    if network.channels == "luma":
        values = values @ torch.tensor([[0.299], [0.587], [0.114]], dtype=torch.float64)
    else:
        values = values[:, :, order[network.channels]]
    expected = (values - torch.tensor(network.mean).double()) / torch.tensor(network.std).double()
    torch.testing.assert_close(x[0, :, :11, :13].permute(1, 2, 0), expected.float())
    assert not x[:, :, 11:].any() and not x[:, :, :, 13:].any(), "padding is the value that normalises to 0"
    assert x.shape[2] % network.multiple == 0 and x.shape[3] % network.multiple == 0


def test_torch_export_captures_the_network_with_plain_ops(network):
    x = network.preprocess(random_frame(64, 96))
    graph = torch.export.export(network.model, (x,), strict=False).graph
    called = {str(node.target).split(".")[1] for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    assert called <= PLAIN_OPS


def test_a_seed_gives_the_same_network_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (tasknets.load("vdsr", seed=seed).model.input.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_importing_tasknets_needs_torch_and_numpy_only():
    script = (
        "import sys; sys.modules.update(torchvision=None, torchmetrics=None, av=None)\n"
        "import tasknets, tasknets.scenes, tasknets.scores\n"
        "tasknets.load('espnet'), tasknets.scenes.SceneGenerator()[0]\n"
        "try: tasknets.load('swiftnet-rn18')\n"
        "except ValueError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == (
        "swiftnet: torchvision is not installed; its ResNet is the encoder; pip install sparseblock[video]"
    )


def test_an_unknown_name_is_answered_with_the_names():
    known = "swiftnet-rn18, swiftnet-rn50, espnet, espnetv2, vdsr, lffd, elan, csp, streets"
    message = f"tasknets: no network is named 'segnet'; the names are {known}"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        tasknets.load("segnet")


def test_a_frame_of_the_wrong_kind_is_refused():
    message = "vdsr: frame is torch.float32 [8, 8, 3]; preprocess takes a uint8 tensor [h, w, 3] in RGB"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        tasknets.load("vdsr").preprocess(torch.zeros(8, 8, 3))


def test_swiftnet_refuses_another_depth():
    message = "swiftnet: depth is 34; the encoders are ResNet-18 and ResNet-50; pass 18 or 50"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        SwiftNet(34)


def test_espnet_refuses_a_frame_that_was_not_padded():
    message = "espnet: frame of 12x16; height and width must be multiples of 8; pad it, as TaskNetwork.preprocess does"
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        ESPNet().eval()(torch.zeros(1, 3, 12, 16))


@pytest.mark.parametrize("name", ["swiftnet-rn18", "swiftnet-rn50"])
def test_swiftnet_skips_before_and_after_relu(name):
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = tasknets.load(name).model
    net = model.backbone

    def both() -> list[torch.Tensor]:
        outputs = []
        for model.skips_before_relu in (True, False):
            with torch.inference_mode():
                outputs.append(model(x))
        return outputs

    for up in model.upsample:
        # A norm that lets some of what the ReLU would have cut through to the bottleneck's own ReLU.
        up.bottleneck.norm.bias.fill_(1)
    assert not torch.equal(*both())
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        last = stage[-1].bn2 if name == "swiftnet-rn18" else stage[-1].bn3
        last.weight.fill_(0.001)
        last.bias.fill_(1000)
    # With every last sum above zero no ReLU cuts anything, and the two are one network.
    assert torch.equal(*both())


def test_vdsr_adds_its_residual_to_the_input():
    model = VDSR().eval()
    torch.nn.init.zeros_(model.output.weight)
    x = torch.rand(2, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(x), x)


@pytest.mark.parametrize(
    ("clip", "corner"),
    [("driving_highway_540p", (142, 352)), ("fixed_dog_720p", (0, 0)), ("fixed_road_360p", (104, 384))],
)
def test_real_vdsr_weights_gain_what_was_checked_over_bicubic(data, read_frame, clip, corner):
    network = tasknets.load("vdsr", data / "weights" / "vdsr_epoch50_converted.pth")
    y, x = corner
    sharp = network.preprocess(read_frame(clip, 60))[..., y : y + 256, x : x + 256].contiguous()
    # Antialiased resizing is Keys' cubic with a = -1/2 in both directions: what the network was trained on.
    resize = {"mode": "bicubic", "antialias": True, "align_corners": False}
    small = torch.nn.functional.interpolate(sharp, size=(128, 128), **resize).clamp(0, 1)
    enlarged = torch.nn.functional.interpolate(small, size=(256, 256), **resize).clamp(0, 1)
    with torch.inference_mode():
        restored = network.predict(network.model(enlarged))[None]
    inner = (..., slice(8, -8), slice(8, -8))
    assert psnr(restored[inner], sharp[inner]) - psnr(enlarged[inner], sharp[inner]) > 2.1


def test_real_espnet_weights_see_road_below_and_sky_above_on_the_highway(data, read_frame):
    network = tasknets.load("espnet", data / "weights" / "espnet_p2q8_cityscapes.pth")
    rgb = read_frame("driving_highway_540p", 60)
    with torch.inference_mode():
        classes = network.predict(network.model(network.preprocess(rgb)), (540, 960))
    name = network.class_names
    assert (classes[400:530, 250:750] == name.index("road")).float().mean() > 0.9
    assert (classes[:200, :100] == name.index("sky")).float().mean() > 0.5
    assert (classes[:150, 880:] == name.index("vegetation")).float().mean() > 0.5


def test_real_espnet_weights_see_the_person_with_the_dog(data, read_frame):
    network = tasknets.load("espnet", data / "weights" / "espnet_p2q8_cityscapes.pth")
    with torch.inference_mode():
        classes = network.predict(network.model(network.preprocess(read_frame("fixed_dog_720p", 100))))
    person = classes == network.class_names.index("person")
    assert person[200:520, 320:450].float().mean() > 0.5
    assert person[:, 700:].float().mean() < 0.01


def test_real_espnetv2_weights_see_the_person_and_no_car_with_the_dog(data, read_frame):
    network = tasknets.load("espnetv2", data / "weights" / "espnetv2_s2_pascal.pth")
    with torch.inference_mode():
        x = torch.nn.functional.interpolate(
            network.preprocess(read_frame("fixed_dog_720p", 100)), (256, 448), mode="bilinear"
        )
        classes = network.predict(network.model(x))
    seen = torch.bincount(classes.flatten(), minlength=21)
    person = classes == network.class_names.index("person")
    assert seen[network.class_names.index("car")] == 0
    assert person[70:180, 110:160].float().mean() > 0.5 and person[:, 240:].float().mean() < 0.01
