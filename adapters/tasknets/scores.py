"""How close a prediction is to the truth, or a block-sparse output to the dense one."""

from __future__ import annotations

import torch

from sparseblock import SparseBlockError
from tasknets.boxes import overlaps


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


def detection_agreement(
    prediction: dict[str, torch.Tensor], target: dict[str, torch.Tensor], overlap: float = 0.5
) -> float:
    """Share of the boxes of both that have a partner in the other, in [0, 1] (the F1 score); 1 where neither has any.

    Partners are of one class and overlap by at least `overlap` (intersection over union). The boxes of `prediction`
    choose theirs one after the other, best first, each the box of largest overlap that is still free.

    Args:
        prediction, target: "boxes" [n, 4], "scores" [n] and "labels" [n], as `TaskNetwork.predict` returns them.
    """
    count = len(prediction["boxes"]) + len(target["boxes"])
    if not count:
        return 1.0
    same = prediction["labels"][:, None] == target["labels"][None]
    shared = torch.where(same, overlaps(prediction["boxes"], target["boxes"]), -1.0)
    pairs = 0
    for box in prediction["scores"].argsort(descending=True).tolist() if shared.numel() else ():
        partner = int(shared[box].argmax())
        if shared[box, partner] >= overlap:
            pairs += 1
            shared[:, partner] = -1.0
    return 2 * pairs / count


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
