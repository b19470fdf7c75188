"""How close a prediction is to the truth, or a block-sparse output to the dense one."""

from __future__ import annotations

import torch

from sparseblock import SparseBlockError


def mean_iou(prediction: torch.Tensor, target: torch.Tensor, classes: int, ignore: int | None = None) -> float:
    """Mean over classes of intersection over union, in [0, 1]; a class in neither tensor does not count.

    Args:
        prediction, target: class indices, integers [..., h, w]; several frames are scored as one set of pixels.
        classes: how many there are.
        ignore: pixels with this target do not count.

    Raises:
        SparseBlockError: the shapes differ, or torchmetrics (the `video` extra) is not installed.
    """
    try:
        from torchmetrics.functional.classification import multiclass_jaccard_index
    except ImportError as error:
        raise SparseBlockError(
            "mean_iou: torchmetrics is not installed; it counts the pixels; pip install sparseblock[video]"
        ) from error
    _same_shape("mean_iou", prediction, target)
    score = multiclass_jaccard_index(
        prediction.reshape(1, -1).long(),
        target.reshape(1, -1).long(),
        num_classes=classes,
        average="macro",
        ignore_index=ignore,
        validate_args=False,
    )
    return float(score)


def pixel_agreement(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """Share of pixels, in [0, 1], whose class is the same in both; [..., h, w] each."""
    _same_shape("pixel_agreement", prediction, target)
    return float((prediction == target).float().mean())


def psnr(prediction: torch.Tensor, target: torch.Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in decibels, 10 log10(peak^2 / mean squared error); inf where both are equal."""
    _same_shape("psnr", prediction, target)
    error = (prediction.double() - target.double()).square().mean()
    return float(10 * torch.log10(peak**2 / error))


def _same_shape(what: str, prediction: torch.Tensor, target: torch.Tensor) -> None:
    if prediction.shape != target.shape:
        raise SparseBlockError(
            f"{what}: prediction is {list(prediction.shape)}, target is {list(target.shape)}; the shapes must be equal"
        )
