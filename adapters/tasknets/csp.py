"""CSP: a detector of pedestrians without anchors; a pixel is the centre of one, and says how tall it is.

"High-level Semantic Feature Detection: A New Perspective for Pedestrian Detection" (center and scale prediction),
Liu et al., CVPR 2019. The encoder is torchvision's ResNet-50 (the `video` extra).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tasknets import resnet
from tasknets.boxes import suppressed

STRIDE = 4  # of the maps that it returns
ASPECT = 0.41  # width of a pedestrian over the height, as CityPersons annotates them
_FEATURES = 256


class CSP(nn.Module):
    """Centres, heights and offsets of pedestrians: float32 [n, 3, h, w], h and w multiples of 16, to three maps.

    The maps are at a stride of 4: scores [n, 1, h / 4, w / 4] in [0, 1] that a pixel is a centre; logarithms of the
    height over the stride [n, 1, h / 4, w / 4]; and offsets [n, 2, h / 4, w / 4] of the centre from the pixel's, down
    and to the right, over the stride. `detections` turns them into boxes.

    The encoder's last stage keeps the stride of 16, with dilation 2. (BlockCopy measures a variant with three
    convolutions of 3x3 where this has one before its heads.)

    Raises:
        SparseBlockError: torchvision is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet.encoder(50, "csp", replace_stride_with_dilation=[False, False, True])
        first = self.backbone.layer4[0].conv2  # which torchvision leaves undilated
        first.dilation = first.padding = (2, 2)
        self.level3, self.level4, self.level5 = _Level(512, 2, padding=1), _Level(1024, 4), _Level(2048, 4)
        self.features = nn.Sequential(
            nn.Conv2d(3 * _FEATURES, _FEATURES, 3, padding=1, bias=False), nn.BatchNorm2d(_FEATURES), nn.ReLU()
        )
        self.centre, self.height, self.offset = (nn.Conv2d(_FEATURES, k, 1) for k in (1, 1, 2))
        nn.init.constant_(self.centre.bias, -math.log(99))  # so that one pixel in a hundred is one, before training

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        net = self.backbone
        third = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
        fourth = net.layer3(third)
        levels = self.level3(third), self.level4(fourth), self.level5(net.layer4(fourth))
        x = self.features(torch.cat(levels, 1))
        return self.centre(x).sigmoid(), self.height(x), self.offset(x)


def detections(
    output: tuple[torch.Tensor, torch.Tensor, torch.Tensor], threshold: float = 0.1, overlap: float = 0.5
) -> dict[str, torch.Tensor]:
    """The pedestrians of one image, as `tasknets.boxes.suppressed` returns them; the label of all is 0.

    Args:
        output: what CSP returns.
        threshold: of a centre's score. overlap: with a better one, above which a box is left out.
    """
    score, height, offset = (values[0] for values in output)
    rows, cols = (score[0] > threshold).nonzero(as_tuple=True)
    down, right = offset[:, rows, cols]
    centre = torch.stack([cols + 0.5 + right, rows + 0.5 + down], 1) * STRIDE
    half = height[0, rows, cols].exp()[:, None] * centre.new_tensor([ASPECT, 1.0]) * STRIDE / 2
    found = score[0, rows, cols]
    boxes = torch.cat([centre - half, centre + half], 1)
    return suppressed(boxes, found, torch.zeros_like(found, dtype=torch.int64), overlap)


class _Level(nn.Module):
    """A stage's map at stride 4, every pixel of length 1 over the channels times a scale for each."""

    def __init__(self, c: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(c, _FEATURES, 4, stride, padding)
        self.scale = nn.Parameter(torch.full((_FEATURES, 1, 1), 10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.up(x)) * self.scale
