"""The networks of docs/support.md: other people's, unedited, and those of tasknets, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

FRAME_128 = (128, 256)  # of networks whose coarsest stride is 128


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        name: as its package calls it.
        package: where it comes from; the row needs it installed.
        make: the network, freshly initialised.
        channels: of the frame.
        block: pixels of a block: a multiple of the network's coarsest stride.
        frame: height and width in pixels.
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    channels: int = 3
    block: int = 64
    frame: tuple[int, int] = (128, 192)


class Heads(nn.Module):
    """What of a torchvision detector is convolutional: backbone, pyramid, and the head that reads every level."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

    def forward(self, x: torch.Tensor) -> Any:
        features = self.backbone(x)
        return self.head(list(features.values()))


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision import models

        return models.get_model(name, weights=None, **options)

    return make


def _segmentation(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import segmentation

        return getattr(segmentation, name)(weights=None, weights_backbone=None)

    return make


def _heads(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import detection

        return Heads(getattr(detection, name)(weights=None, weights_backbone=None))

    return make


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **options)

    return make


def _effdet(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import effdet

        config = effdet.get_efficientdet_config(name)
        config.image_size = FRAME_128
        return effdet.EfficientDet(config, pretrained_backbone=False)

    return make


def _smp(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import segmentation_models_pytorch as smp

        return getattr(smp, name)("resnet34", encoder_weights=None, classes=19)

    return make


def _transformers(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        kind = getattr(transformers, name)
        return kind(kind.config_class())

    return make


def _tasknet(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import tasknets

        return tasknets.load(name).model

    return make


ZOO = (
    *(
        Entry(name, "torchvision", _torchvision(name))
        for name in (
            *("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "regnet_y_1_6gf", "mobilenet_v2"),
            *("mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "densenet121", "shufflenet_v2_x1_0"),
            *("squeezenet1_1", "efficientnet_v2_s"),
        )
    ),
    *(
        Entry(name, "torchvision", _segmentation(name))
        for name in ("fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large")
    ),
    *(
        Entry(name, "torchvision", _heads(name), block=128, frame=FRAME_128)
        for name in (
            *("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"),
            *("retinanet_resnet50_fpn", "fcos_resnet50_fpn"),
        )
    ),
    Entry("inception_v3", "torchvision", _torchvision("inception_v3", init_weights=True)),
    Entry("ssd300_vgg16", "torchvision", _heads("ssd300_vgg16"), block=64, frame=(320, 320)),
    Entry("ssdlite320_mobilenet_v3_large", "torchvision", _heads("ssdlite320_mobilenet_v3_large"), frame=(320, 320)),
    *(
        Entry(name, "timm", _timm(name))
        for name in (
            *("hrnet_w32", "seresnet50", "resnetblur50", "efficientnet_b0", "mobilenetv4_conv_small", "repvgg_a2"),
            *("res2net50_26w_4s", "dla34", "dm_nfnet_f0", "mobileone_s0", "fastvit_t8", "cspdarknet53"),
            *("ese_vovnet19b_dw", "dpn68", "hgnetv2_b0", "inception_next_tiny", "convnextv2_atto", "mambaout_femto"),
        )
    ),
    Entry("resnet18, features_only", "timm", _timm("resnet18", features_only=True)),
    Entry("convnext_atto, features_only", "timm", _timm("convnext_atto", features_only=True)),
    *(
        Entry(f"efficientdet_d{i}", "effdet", _effdet(f"efficientdet_d{i}"), block=128, frame=FRAME_128)
        for i in range(4)
    ),
    *(
        Entry(name, "segmentation_models_pytorch", _smp(name))
        for name in (
            *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus"),
            "UPerNet",
        )
    ),
    Entry("mobilenet_v2, segmentation", "transformers", _transformers("MobileNetV2ForSemanticSegmentation")),
    Entry("rtdetr_resnet", "transformers", _transformers("RTDetrResNetBackbone")),
    Entry("segformer", "transformers", _transformers("SegformerForSemanticSegmentation")),
    *(
        Entry(name, "tasknets", _tasknet(name), channels=1 if name == "vdsr" else 3)
        for name in ("swiftnet-rn18", "espnet", "espnetv2", "vdsr", "lffd", "elan", "csp")
    ),
)
