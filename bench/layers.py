"""The layers to measure on: one row a layer, as they occur in SwiftNet-RN18 at 1024x2048 pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """A convolution with padding dilation*(kernel-1)/2 on an input of [1, channels, height, width] pixels.

    `block` is the side of a block in pixels of the output: 128 px of the frame.
    """

    name: str
    channels: int
    out_channels: int
    kernel: int
    stride: int
    height: int
    width: int
    block: int
    dilation: int = 1

    @property
    def macs(self) -> int:
        return self._out_pixels * self._weights

    def bytes(self, itemsize: int) -> int:
        """What must at least be read and written, with maps of `itemsize` bytes an element and float32 weights."""
        elements = self.height * self.width * self.channels + self._out_pixels * self.out_channels
        return elements * itemsize + 4 * self._weights

    @property
    def _out_pixels(self) -> int:
        return (self.height // self.stride) * (self.width // self.stride)

    @property
    def _weights(self) -> int:
        return self.channels * self.out_channels * self.kernel**2


SWIFTNET_RN18 = (
    Layer("stem 7x7/2", 3, 64, 7, 2, 1024, 2048, 64),
    Layer("layer1 3x3", 64, 64, 3, 1, 256, 512, 32),
    Layer("layer2 3x3/2", 64, 128, 3, 2, 256, 512, 16),
    Layer("layer2 1x1/2", 64, 128, 1, 2, 256, 512, 16),
    Layer("layer2 3x3", 128, 128, 3, 1, 128, 256, 16),
    Layer("layer3 3x3/2", 128, 256, 3, 2, 128, 256, 8),
    Layer("layer3 3x3", 256, 256, 3, 1, 64, 128, 8),
    Layer("layer4 3x3/2", 256, 512, 3, 2, 64, 128, 4),
    Layer("layer4 3x3", 512, 512, 3, 1, 32, 64, 4),
    Layer("spp 1x1", 512, 128, 1, 1, 32, 64, 4),
    Layer("lateral3 1x1", 256, 128, 1, 1, 64, 128, 8),
    Layer("blend3 3x3", 128, 128, 3, 1, 64, 128, 8),
    Layer("lateral1 1x1", 64, 128, 1, 1, 256, 512, 32),
    Layer("blend1 3x3", 128, 128, 3, 1, 256, 512, 32),
    Layer("logits 1x1", 128, 19, 1, 1, 256, 512, 32),
)
