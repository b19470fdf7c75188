"""torchvision's ResNet as an encoder (the `video` extra)."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparseblock import SparseBlockError


def encoder(depth: int, network: str, **options: Any) -> nn.Module:
    """A ResNet of `depth` layers without its classifier, initialised at random, for `network`, which errors name.

    Args:
        options: of torchvision's constructor.

    Raises:
        SparseBlockError: torchvision is not installed.
    """
    try:
        from torchvision.models import resnet
    except ImportError as error:
        raise SparseBlockError(
            f"{network}: torchvision is not installed; its ResNet is the encoder; pip install sparseblock[video]"
        ) from error
    net = getattr(resnet, f"resnet{depth}")(weights=None, **options)
    del net.avgpool, net.fc
    return net
