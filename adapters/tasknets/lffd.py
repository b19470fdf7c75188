"""LFFD: a detector of heads without anchors; every output pixel answers for the square that it sees.

"LFFD: A Light and Fast Face Detector for Edge Devices", He et al., 2019; the 17-layer network for heads.
"""

from __future__ import annotations

import torch
from torch import nn

from tasknets.boxes import suppressed

STRIDES = (4, 8, 16, 32)  # of the four branches
SEEN = (20, 40, 80, 160)  # pixels: the side of the square that a branch's boxes are measured in
# (layer, channels in, channels out) of the convolutions, 3x3; those in _STRIDED halve the frame without padding.
_TRUNK = (
    *((1, 3, 64), (2, 64, 64), *((i, 64, 64) for i in range(3, 15))),
    *((15, 64, 128), (16, 128, 128), (17, 128, 128)),
)
_STRIDED = (1, 2, 9, 12, 15)
_BRANCHES = (8, 11, 14, 17)  # the layers that they hang on


class LFFD(nn.Module):
    """Scores and boxes of four sizes of head: float32 [n, 3, h, w] in 0..255 to four pairs of maps.

    Every pair is (scores [n, 2, h', w'], boxes [n, 4, h', w']) at a stride of 4, 8, 16 or 32: softmax over the channels
    of the scores, of which channel 0 is the head; of the boxes left, top, right and bottom, as distances from the
    pixel's centre over half of `SEEN`, the first two counted to the left and up. `detections` turns them into pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        for layer, c, k in _TRUNK:
            strided = layer in _STRIDED
            self.add_module(f"conv{layer}", nn.Conv2d(c, k, 3, 2 if strided else 1, 0 if strided else 1))
        for layer, c in zip(_BRANCHES, (64, 64, 64, 128), strict=True):
            self.add_module(f"conv{layer}_1", nn.Conv2d(c, 128, 1))
            for what, k in (("score", 2), ("bbox", 4)):
                self.add_module(f"conv{layer}_2_{what}", nn.Conv2d(128, 128, 1))
                self.add_module(f"conv{layer}_3_{what}", nn.Conv2d(128, k, 1))

    def forward(self, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        x = self._conv(2, self._conv(1, (x - 127.5) / 127.5).relu())
        tops = []
        for first, last in ((3, 8), (10, 11), (13, 14), (16, 17)):
            if tops:
                x = self._conv(first - 1, tops[-1])
            for layer in range(first, last, 2):  # residual pairs, the ReLU after the sum
                x = x + self._conv(layer + 1, self._conv(layer, x.relu()).relu())
            tops.append(x.relu())
        return [self._branch(layer, top) for layer, top in zip(_BRANCHES, tops, strict=True)]

    def adapt_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The published keys, "conv1_weight", in this module's form, "conv1.weight"."""
        return {".".join(key.rsplit("_", 1)) if "." not in key else key: value for key, value in state.items()}

    def _branch(self, layer: int, top: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        top = self._module(f"conv{layer}_1", top).relu()
        score, box = (
            self._module(f"conv{layer}_3_{what}", self._module(f"conv{layer}_2_{what}", top).relu())
            for what in ("score", "bbox")
        )
        return score.softmax(1), box

    def _conv(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        return self._module(f"conv{layer}", x)

    def _module(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, name)(x)


def detections(
    output: list[tuple[torch.Tensor, torch.Tensor]], threshold: float = 0.5, overlap: float = 0.3
) -> dict[str, torch.Tensor]:
    """The heads of one image, as `tasknets.boxes.suppressed` returns them; the label of all is 0.

    Args:
        output: what LFFD returns.
        threshold: of a head's score. overlap: with a better one, above which a box is left out.
    """
    boxes, scores = [], []
    for (score, box), stride, seen in zip(output, STRIDES, SEEN, strict=True):
        rows, cols = (score[0, 0] > threshold).nonzero(as_tuple=True)
        centre = torch.stack([cols, rows, cols, rows], 1) * stride + stride - 1
        boxes.append(centre - box[0, :, rows, cols].T * seen / 2)
        scores.append(score[0, 0, rows, cols])
    found = torch.cat(scores)
    return suppressed(torch.cat(boxes), found, torch.zeros_like(found, dtype=torch.int64), overlap)
