"""Which task networks there are, and how each is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseblock import SparseBlockError
from sparseblock.seeded import Seeded
from tasknets import csp, elan, labels, lffd
from tasknets.checkpoint import load_weights
from tasknets.espnet import ESPNet
from tasknets.espnetv2 import ESPNetv2
from tasknets.network import TaskNetwork
from tasknets.streets import StreetsNet
from tasknets.swiftnet import SwiftNet
from tasknets.vdsr import VDSR


@dataclass(frozen=True)
class _Spec:
    """A row of the table: how to make the network, and TaskNetwork's fields."""

    make: Callable[[], nn.Module]
    task: str = "segmentation"
    channels: str = "rgb"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    multiple: int = 1
    stride: int = 4
    classes: tuple[labels.LabelClass, ...] = ()
    packaged: str | None = None
    decode: Callable[[Any], dict[str, torch.Tensor]] | None = None


def _of_255(*values: float) -> tuple[float, ...]:
    return tuple(value / 255 for value in values)


_CITYSCAPES_INPUT = dict(mean=_of_255(73.1584, 82.9090, 72.3924), std=_of_255(44.9149, 46.1529, 45.3192))

_SPECS = {
    "swiftnet-rn18": _Spec(lambda: SwiftNet(18), classes=labels.CITYSCAPES, **_CITYSCAPES_INPUT),
    "swiftnet-rn50": _Spec(lambda: SwiftNet(50), classes=labels.CITYSCAPES, **_CITYSCAPES_INPUT),
    "espnet": _Spec(
        ESPNet,
        channels="bgr",
        # ESPNet's own order of steps, ((x - mean) / std) / 255: with x in [0, 255] its inputs stay within ±0.02.
        mean=_of_255(72.39, 82.91, 73.16),
        std=(45.32, 46.15, 44.91),
        multiple=8,
        stride=1,
        classes=(*labels.CITYSCAPES, labels.VOID),
    ),
    "espnetv2": _Spec(ESPNetv2, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), stride=1, classes=labels.PASCAL),
    "vdsr": _Spec(VDSR, task="restoration", channels="luma", mean=(0.0,), std=(1.0,), stride=1),
    "lffd": _Spec(
        lffd.LFFD,
        task="detection",
        channels="bgr",
        # Raw values, 0 to 255: the network normalises by itself.
        mean=(0.0, 0.0, 0.0),
        std=_of_255(1, 1, 1),
        multiple=32,
        classes=labels.HEADS,
        decode=lffd.detections,
    ),
    "elan": _Spec(
        elan.ELAN,
        task="detection",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        multiple=32,
        classes=labels.COCO,
        decode=elan.detections,
    ),
    "csp": _Spec(
        csp.CSP,
        task="detection",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        multiple=16,
        classes=labels.PEDESTRIANS,
        decode=csp.detections,
    ),
    "streets": _Spec(StreetsNet, classes=labels.STREETS, packaged="streets.pt"),
}


def names() -> list[str]:
    """The names that `load` takes."""
    return list(_SPECS)


def load(name: str, weights: str | Path | None = None, seed: int = 0) -> TaskNetwork:
    """The task network `name`, in eval mode, with the weights of the file `weights`.

    Without a file, "streets" has the weights that the package carries and every other network is initialised at random
    from `seed`, which is enough to measure speed.

    Raises:
        SparseBlockError: the name is unknown, the file does not fit, or a package the network needs is not installed.
    """
    network = untrained(name, seed)
    packaged = _SPECS[name].packaged
    if weights is not None:
        load_weights(network.model, weights, name)
    elif packaged is not None:
        with resources.as_file(resources.files("tasknets") / "weights" / packaged) as path:
            load_weights(network.model, path, name)
    return network


def untrained(name: str, seed: int = 0) -> TaskNetwork:
    """The task network `name`, in eval mode, initialised at random from `seed`; raises as `load` does."""
    spec = _SPECS.get(name)
    if spec is None:
        raise SparseBlockError(f"tasknets: no network is named {name!r}; the names are {', '.join(_SPECS)}")
    with Seeded(seed):
        model = spec.make()
    return TaskNetwork(
        name=name,
        model=model.eval().requires_grad_(False),
        task=spec.task,
        channels=spec.channels,
        mean=spec.mean,
        std=spec.std,
        multiple=spec.multiple,
        stride=spec.stride,
        class_names=tuple(entry.name for entry in spec.classes),
        decode=spec.decode,
        palette=torch.tensor([entry.color for entry in spec.classes], dtype=torch.uint8).reshape(-1, 3),
    )
