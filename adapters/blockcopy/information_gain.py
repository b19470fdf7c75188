"""Information gain: how much executing a block changed the network's output. The reward of BlockCopy.

Verelst and Tuytelaars, "BlockCopy: High-Resolution Video Processing with Block-Sparse Feature Propagation and Online
Policies", ICCV 2021, section 3.2. The network's own previous output is the reference: no labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from blockcopy.view import PolicyView, block_max, block_mean, describe
from sparseblock import BlockGrid, SparseBlockError

MASK_THRESHOLD = 0.5
"""Probability from which on a pixel belongs to an object."""


def segmentation_gain(previous: torch.Tensor, new: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Largest mean_c[ p_c (log p_c - log q_c) ] in each block: the divergence KL(p || q) over the number of classes.

    Args:
        previous: log p, log-probabilities before the frame, [1, k, rows * s, cols * s].
        new: log q, after it.
        grid: (rows, cols).

    Returns:
        Gain [rows, cols], not negative but for rounding; 0 where nothing changed.
    """
    return block_max((previous.exp() * (previous - new)).mean(1)[0], grid)


def restoration_gain(previous: torch.Tensor, new: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean absolute change of the output in each block.

    Args:
        previous, new: outputs before and after the frame, [1, k, rows * s, cols * s].
        grid: (rows, cols).

    Returns:
        Gain [rows, cols], in units of the output.
    """
    return block_mean((new - previous).abs().mean(1)[0], grid)


@dataclass(frozen=True)
class Objects:
    """Detected objects of one frame.

    Attributes:
        boxes: float [n, 4]: x0, y0, x1, y1 in pixels of the frame.
        scores: float [n].
        labels: int64 [n].
        masks: bool [n, h, w] at the frame's size, or None: boxes then stand for the objects' areas.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None = None


def detection_gain(previous: Objects, new: Objects, grid: tuple[int, int], block_size: int) -> torch.Tensor:
    """Largest change in each block by an object that moved, appeared or vanished.

    Each new object is matched with the previous object of its class of largest intersection over union. It paints its
    area, and its match's, with (1 - IoU) * score. New objects that overlap none of their class, and previous objects
    that nobody matched, paint theirs with their score. Of several paints the largest stays. With masks, areas and
    intersections are those of the masks (instance segmentation); the method is the same.

    Args:
        previous, new: objects before and after the frame; masks in both or in neither.
        grid: (rows, cols).
        block_size: pixels of the frame.

    Returns:
        Gain [rows, cols], in [0, 1] where scores are.
    """
    overlap = _overlap(previous, new)  # [new, previous]
    overlap = torch.where(new.labels[:, None] == previous.labels[None], overlap, overlap.new_zeros(()))
    value_new = new.scores.clone()
    value_previous = previous.scores.clone()
    if overlap.numel():
        best, match = overlap.max(1)
        value_new = (1 - best) * new.scores
        found = best > 0
        painted = torch.full_like(previous.scores, -math.inf)
        painted.scatter_reduce_(0, match[found], value_new[found], "amax")
        value_previous = torch.where(painted.isinf(), previous.scores, painted)
    value = torch.cat([value_new, value_previous])
    touched = torch.cat([_touched(new, grid, block_size), _touched(previous, grid, block_size)])  # [n, rows, cols]
    if not len(value):
        return torch.zeros(grid)
    return (value[:, None, None] * touched).amax(0)


def _overlap(previous: Objects, new: Objects) -> torch.Tensor:
    """Intersection over union of every new with every previous object: [new, previous]."""
    if new.masks is not None and previous.masks is not None:
        a, b = new.masks.flatten(1).float(), previous.masks.flatten(1).float()
        intersection = a @ b.T
        area_new, area_previous = a.sum(1), b.sum(1)
    else:
        a, b = new.boxes[:, None], previous.boxes[None]
        size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
        intersection = size[..., 0] * size[..., 1]
        area_new, area_previous = ((o.boxes[:, 2:] - o.boxes[:, :2]).clamp(min=0).prod(1) for o in (new, previous))
    union = area_new[:, None] + area_previous[None] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def _touched(objects: Objects, grid: tuple[int, int], block_size: int) -> torch.Tensor:
    """Which blocks each object's area reaches into: bool [n, rows, cols]."""
    rows, cols = grid
    if objects.masks is not None:
        below = rows * block_size - objects.masks.shape[1]
        right = cols * block_size - objects.masks.shape[2]
        return block_max(F.pad(objects.masks.to(torch.uint8), (0, right, 0, below)), grid).bool()
    return _boxes_touch(objects.boxes, grid, block_size)


def _boxes_touch(boxes: torch.Tensor, cells: tuple[int, int], side: float) -> torch.Tensor:
    """Which of rows x cols cells, of `side` pixels, each box reaches into: bool [n, rows, cols]."""
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes.unbind(1))
    top, left = (torch.arange(count, device=boxes.device) * side for count in cells)
    in_rows = (y0 < top + side) & (y1 > top)
    in_cols = (x0 < left + side) & (x1 > left)
    return in_rows[:, :, None] & in_cols[:, None]


def score_map(objects: Objects, view: PolicyView) -> torch.Tensor:
    """The largest score of the boxes that reach into each sample's cell, and 0 where none does: [1, 1, y, x]."""
    cells = (view.grid.rows * view.samples, view.grid.cols * view.samples)
    if not len(objects.boxes):
        return torch.zeros(1, 1, *cells)
    touched = _boxes_touch(objects.boxes, cells, view.grid.block_size / view.samples)
    return (objects.scores[:, None, None] * touched).amax(0)[None, None]


def objects_of(output: Any) -> Objects:
    """The objects in what a detector returned: a mapping, or a list with the mapping of the one image.

    It has "boxes" [n, 4] (left, top, right, bottom in pixels of the frame), "scores" [n], "labels" [n], and may have
    "masks" [n, h, w] or [n, 1, h, w], bool or probabilities: what torchvision's detectors return.

    Raises:
        SparseBlockError: it is something else.
    """
    found = output[0] if isinstance(output, (list, tuple)) and len(output) == 1 else output
    tensors = {}
    if isinstance(found, Mapping):
        tensors = {key: found[key] for key in ("boxes", "scores", "labels", "masks") if key in found}
    shapes = {key: list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__ for key, x in tensors.items()}
    count = shapes.get("boxes", [0])[0]
    wanted = {"boxes": [count, 4], "scores": [count], "labels": [count]}
    mask = tensors.get("masks")
    if isinstance(mask, torch.Tensor) and mask.dim() == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if {key: shapes.get(key) for key in wanted} != wanted or (
        mask is not None and (not isinstance(mask, torch.Tensor) or mask.dim() != 3 or len(mask) != count)
    ):
        what = str(shapes) if isinstance(found, Mapping) else describe(output)
        raise SparseBlockError(
            f'BlockCopy: the network\'s output is {what}; for the task "detection" the policy learns from a dict of '
            "boxes [n, 4], scores [n], labels [n] and, if there are any, masks [n, h, w], or a list of one such dict; "
            "give read=, a function that makes that of the output, or choose another policy"
        )
    if mask is not None:
        mask = mask.clone() if mask.dtype == torch.bool else mask >= MASK_THRESHOLD
    boxes, scores, labels = (tensors[key].clone() for key in wanted)
    return Objects(boxes.float(), scores.float(), labels, mask)


@dataclass(frozen=True)
class Seen:
    """What is remembered of an output from frame to frame.

    Attributes:
        features: what the policy reads, [1, k', y, x]: a whole number of samples a block.
        objects: of the task "detection"; else None.
    """

    features: torch.Tensor
    objects: Objects | None = None

    def within(self, limit: float) -> bool:
        """Whether all numbers are at most `limit` in size, which NaN is not. Waits for a device."""
        numbers = [self.features] + ([] if self.objects is None else [self.objects.boxes, self.objects.scores])
        extremes = [torch.stack(x.aminmax()).tolist() for x in numbers if x.numel()]
        return all(-limit <= low and high <= limit for low, high in extremes)


@dataclass(frozen=True)
class Task:
    """What the policy makes of a network's output.

    Attributes:
        name: as BlockCopy's `task`.
        see: the network's output to what is remembered of it.
        logarithms: whether features are log-probabilities, which say how certain the output is; else they are about
            [0, 1].
        gain: (seen before, seen after, grid) to the information gain [rows, cols].
        limit: size of the largest numbers that may be seen. Of larger ones the gain overflows, or what the policy
            network makes of them. Logarithms are read as probabilities, so that these only have to be finite.
        needs_host: whether how much there is to see depends on values, so that a device would have to be waited for.
    """

    name: str
    see: Callable[[Any, PolicyView], Seen]
    logarithms: bool
    gain: Callable[[Seen, Seen, BlockGrid], torch.Tensor]
    limit: float = 2.0**30
    needs_host: bool = False


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Of class logits [1, k, y, x]; one channel is foreground or not."""
    if logits.shape[1] == 1:  # a sigmoid is the softmax of (0, x)
        logits = F.pad(logits, (0, 0, 0, 0, 1, 0))
    # Over what lies together in samples, which is the quicker kernel.
    return logits.permute(0, 2, 3, 1).log_softmax(3).permute(0, 3, 1, 2)


def _see_objects(output: Any, view: PolicyView) -> Seen:
    objects = objects_of(output)
    return Seen(score_map(objects, view), objects)


def _of_features(gain: Callable[[torch.Tensor, torch.Tensor, tuple[int, int]], torch.Tensor]) -> Callable:
    return lambda before, after, grid: gain(before.features, after.features, (grid.rows, grid.cols))


_TASKS = {
    task.name: task
    for task in (
        Task(
            "segmentation",
            lambda output, view: Seen(log_probabilities(view.output(output))),
            True,
            _of_features(segmentation_gain),
            limit=torch.finfo(torch.float32).max,
        ),
        Task("restoration", lambda output, view: Seen(view.output(output)), False, _of_features(restoration_gain)),
        Task(
            "detection",
            _see_objects,
            False,
            lambda before, after, grid: detection_gain(
                before.objects, after.objects, (grid.rows, grid.cols), grid.block_size
            ),
            needs_host=True,
        ),
    )
}


def task_named(name: str) -> Task:
    """The task `name`.

    Raises:
        SparseBlockError: there is none of that name.
    """
    if not isinstance(name, str) or name not in _TASKS:
        raise SparseBlockError(f"BlockCopy: no task is named {name!r}; the tasks are {', '.join(_TASKS)}")
    return _TASKS[name]
