"""Networks and clips of small integers: sums are exact in float32, so gates decide alike and values agree in bits."""

from __future__ import annotations

import torch
from torch import nn


class Twice(nn.Module):
    """A stem, a convolution that is called at two sizes, another with any window, added up and read by a last one."""

    def __init__(self, seed: int, **window: object) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(4, 5, **window)
        self.head = nn.Conv2d(9, 2, 1, bias=False)
        self.smaller, self.larger = nn.MaxPool2d(2, ceil_mode=True), nn.Upsample(scale_factor=2)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu().clamp(max=8)
        small = self.shared(self.smaller(x)).relu().clamp(max=8)
        x = self.shared(x) + self.larger(small)[..., : x.shape[2], : x.shape[3]]
        x = x.relu().clamp(max=8)
        wide = self.wide(x)
        wide = nn.functional.interpolate(wide, x.shape[2:], mode="nearest")
        return self.head(torch.cat([x, wide], 1))


def clip(seed: int, frames: int, streams: int, height: int, width: int) -> list[torch.Tensor]:
    """Frames [n, c, h, w] of integers, of which some patches and single pixels change by little, and once nothing."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    frame, out = integers(0, 4, streams, 3, height, width).float(), []
    for number in range(frames):
        out.append(frame)
        frame = frame.clone()
        if number == 2:
            continue
        for n in range(streams):
            y, x = int(integers(0, height, 1)), int(integers(0, width, 1))
            frame[n, :, y : y + 5, x : x + 6] += integers(-1, 2, 1).float()
            for _ in range(6):
                frame[n, int(integers(0, 3, 1)), int(integers(0, height, 1)), int(integers(0, width, 1))] += 1
    return out
