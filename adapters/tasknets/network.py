"""TaskNetwork: a network with what leads into it and out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sparseblock import SparseBlockError

# ITU-R BT.601, full range.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class TaskNetwork:
    """A network and how a frame becomes its input and its output a prediction.

    Attributes:
        name: the name that `tasknets.load` knows it by.
        model: nn.Module in eval mode, float32 [1, c, h, w] in.
        task: "segmentation", "restoration" or "detection".
        channels: "rgb", "bgr" or "luma": what the model's input channels are.
        mean, std: per input channel; the input is (value / 255 - mean) / std.
        multiple: `preprocess` pads height and width, below and to the right, to multiples of it, with the value that
            normalises to 0; `predict` cuts that off again.
        stride: the model's output is the (padded) frame divided by it, rounded up; no meaning for detection.
        class_names: names by class index; empty for restoration.
        palette: uint8 [classes, 3], RGB of each class.
        decode: of detectors, the model's output to {"boxes": float32 [n, 4], left, top, right, bottom in pixels of the
            (padded) frame, "scores": float32 [n], "labels": int64 [n]}, best first; else None.
    """

    name: str
    model: nn.Module
    task: str
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple: int
    stride: int
    class_names: tuple[str, ...]
    palette: torch.Tensor
    decode: Callable[[Any], dict[str, torch.Tensor]] | None = None

    def preprocess(self, rgb: torch.Tensor) -> torch.Tensor:
        """The model's input, float32 [1, c, H, W] (channels-last in memory), of a frame, uint8 [h, w, 3] RGB.

        H and W are h and w rounded up to `multiple`.

        Raises:
            SparseBlockError: `rgb` is no uint8 [h, w, 3].
        """
        if not isinstance(rgb, torch.Tensor) or rgb.dtype != torch.uint8 or rgb.dim() != 3 or rgb.shape[2] != 3:
            what = f"{rgb.dtype} {list(rgb.shape)}" if isinstance(rgb, torch.Tensor) else type(rgb).__name__
            raise SparseBlockError(f"{self.name}: frame is {what}; preprocess takes a uint8 tensor [h, w, 3] in RGB")
        height, width, _ = rgb.shape
        if self.channels == "luma":
            x = torch.mv(rgb.reshape(-1, 3).float(), torch.tensor(_LUMA)).view(height, width)
        else:
            x = (rgb.flip(2) if self.channels == "bgr" else rgb).reshape(height, -1).float()
        c = len(self.mean)
        scale = torch.tensor([1 / (255 * s) for s in self.std])
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)])
        # Rows of interleaved channels: one wide multiply-add instead of c strided ones.
        x = torch.addcmul(shift.repeat(width), x, scale.repeat(width)).view(height, width, c)
        x = F.pad(x, (0, 0, 0, -width % self.multiple, 0, -height % self.multiple))
        return x.permute(2, 0, 1)[None]

    def predict(self, output: Any, size: tuple[int, int] | None = None) -> torch.Tensor | dict[str, torch.Tensor]:
        """The prediction at the frame's size (height, width) in the model's output, float [1, c, h', w'].

        Without `size` the frame is taken to be `stride` times the output: right wherever the frame is a multiple of
        both `multiple` and `stride`. Segmentation: int64 [h, w], the class of the largest logit, after bilinear
        enlargement where the network stops at a coarser stride. Restoration: float [1, h, w], luma clipped to [0, 1].
        Detection: what `decode` makes of the output, whatever that is; with `size` cut off at the frame's edge.
        """
        if self.task == "detection":
            found = self.decode(output)
            return found if size is None else _within(found, size)
        if self.task == "restoration":
            return (output[0] if size is None else output[0, :, : size[0], : size[1]]).clamp(0, 1)
        padded = [output.shape[-2] * self.stride, output.shape[-1] * self.stride]
        if size is not None:
            padded = [-(-side // self.multiple) * self.multiple for side in size]
        # Channels-last: a pixel's logits lie together for both the enlargement and the maximum.
        output = output.contiguous(memory_format=torch.channels_last)
        if self.stride > 1:
            output = F.interpolate(output, padded, mode="bilinear", align_corners=False)
        classes = output.max(1).indices[0]
        return classes if size is None else classes[: size[0], : size[1]]


def _within(found: dict[str, torch.Tensor], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Detections cut off at the edge of a frame of `size`, (height, width); those past it are dropped."""
    height, width = size
    boxes = torch.minimum(found["boxes"].clamp(0), found["boxes"].new_tensor([width, height, width, height]))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return {name: value[inside] for name, value in (found | {"boxes": boxes}).items()}
