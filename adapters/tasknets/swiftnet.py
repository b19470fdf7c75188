"""SwiftNet: a ResNet encoder, a spatial pyramid and three light up-sampling steps.

"In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of Road-driving Images",
Oršić et al., CVPR 2019. The encoder is torchvision's (the `video` extra).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from sparseblock import SparseBlockError
from tasknets import resnet

_FEATURES = 128
_GRID_ROWS = (8, 4, 2)


class SwiftNet(nn.Module):
    """Class logits at a quarter of the frame: float32 [n, 3, h, w] to [n, classes, ceil(h / 4), ceil(w / 4)].

    Args:
        depth: ResNet depth, 18 or 50: 11,797,071 and 24,502,991 parameters with 19 classes.
        skips_before_relu: the decoder and the pyramid read a stage's last sum before its ReLU (the original SwiftNet)
            or after it (BlockCopy's checkpoints).

    Raises:
        SparseBlockError: another depth, or torchvision is not installed.
    """

    def __init__(self, depth: int = 18, classes: int = 19, skips_before_relu: bool = False) -> None:
        super().__init__()
        self.skips_before_relu = skips_before_relu
        self.backbone, widths = _resnet(depth)
        self.spp = _SpatialPyramidPooling(widths[3])
        self.upsample = nn.ModuleList(_Upsample(width) for width in (widths[2], widths[1], widths[0]))
        self.logits = _norm_relu_conv(_FEATURES, classes, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        skips = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            if self.skips_before_relu:
                skip = _sum_before_relu(stage[-1], stage[:-1](x))
                x = F.relu(skip)
            else:
                x = skip = stage(x)
            skips.append(skip)
        x = self.spp(skips[3])
        for up, skip in zip(self.upsample, skips[2::-1], strict=True):
            x = up(x, skip)
        return self.logits(x)

    def adapt_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`state` under this module's keys, from either published key scheme; sets `skips_before_relu` to match it.

        BlockCopy: `backbone.*`, `spp.spp.*`, `upsample.*`, `logits.*`. The original: `backbone.spp.*`,
        `backbone.upsample.*` and the input normalisation as buffers, which `TaskNetwork.preprocess` does here.
        """
        original = any(key.startswith(("backbone.spp.", "backbone.upsample.")) for key in state)
        self.skips_before_relu = original
        # The classifier of an ImageNet encoder is no part of the network; some checkpoints still carry it.
        unused = ("backbone.img_", "backbone.fc.")
        state = {key: value for key, value in state.items() if not key.startswith(unused)}
        if not original:
            return state
        return {
            key.removeprefix("backbone.") if key.startswith(("backbone.spp.", "backbone.upsample.")) else key: value
            for key, value in state.items()
        }


class _SpatialPyramidPooling(nn.Module):
    """Averages over grids of 8, 4 and 2 rows (columns in the frame's ratio), beside the map itself, fused by a 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        level = _FEATURES // len(_GRID_ROWS)
        parts = OrderedDict(spp_bn=_norm_relu_conv(width, _FEATURES))
        for i in range(len(_GRID_ROWS)):
            parts[f"spp{i}"] = _norm_relu_conv(_FEATURES, level)
        parts["spp_fuse"] = _norm_relu_conv(_FEATURES + len(_GRID_ROWS) * level, _FEATURES)
        self.spp = nn.Sequential(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        x = self.spp.spp_bn(x)
        levels = [x]
        for rows, project in zip(_GRID_ROWS, self.spp[1:-1], strict=True):
            pooled = F.adaptive_avg_pool2d(x, (rows, max(1, round(rows * width / height))))
            levels.append(F.interpolate(project(pooled), (height, width), mode="bilinear", align_corners=False))
        return self.spp.spp_fuse(torch.cat(levels, 1))


class _Upsample(nn.Module):
    def __init__(self, skip_width: int) -> None:
        super().__init__()
        self.bottleneck = _norm_relu_conv(skip_width, _FEATURES)
        self.blend_conv = _norm_relu_conv(_FEATURES, _FEATURES, kernel=3)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        # To the skip's size, not twice its own: the two differ by a pixel on odd sizes.
        x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.blend_conv(x + self.bottleneck(skip))


def _norm_relu_conv(c: int, k: int, kernel: int = 1, bias: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(c, k, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(c), relu=nn.ReLU(), conv=conv))


def _resnet(depth: int) -> tuple[nn.Module, tuple[int, ...]]:
    """torchvision's encoder without its classifier, and the channels of its four stages."""
    if depth not in (18, 50):
        raise SparseBlockError(f"swiftnet: depth is {depth}; the encoders are ResNet-18 and ResNet-50; pass 18 or 50")
    net = resnet.encoder(depth, "swiftnet")
    for module in net.modules():
        # In place it would overwrite a sum that `skips_before_relu` still reads.
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net, tuple(width * (1 if depth == 18 else 4) for width in (64, 128, 256, 512))


def _sum_before_relu(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A torchvision BasicBlock or Bottleneck without its last ReLU."""
    out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
    if hasattr(block, "conv3"):
        out = block.bn3(block.conv3(block.relu(out)))
    return out + (x if block.downsample is None else block.downsample(x))
