"""Networks of others that are measured beside those of tasknets."""

from __future__ import annotations

import torch
import torchvision
from torch import nn


class DeepLabV3(nn.Module):
    """DeepLabV3-RN50 with one output, as exporters to ONNX take it; its weights are random."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)["out"]
