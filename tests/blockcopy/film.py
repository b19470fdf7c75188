"""A small network and a synthetic film for it."""

from __future__ import annotations

import torch
from blockcopy import BlockCopy
from torch import nn

BLOCK = 32
SIZE = (100, 150)


def network(out: int = 5, stride: int = 1) -> nn.Module:
    """Without a halo: what a block computes is then what the dense network computes there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, stride, stride), nn.ReLU(), nn.Conv2d(8, out, 1)]
    return nn.Sequential(*layers).eval()


class Logarithm(nn.Module):
    """`network`, whose output is -inf where the frame is DARK."""

    DARK = -1.0

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + (x[:, :1] - self.DARK).relu().log()


def moving_square(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> list[torch.Tensor]:
    """A still scene and a bright square that moves through it."""
    coarse = torch.rand(1, 3, *(-(-side // 8) for side in size), generator=torch.Generator().manual_seed(seed))
    scene = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., : size[0], : size[1]].contiguous()
    frames = []
    for index in range(count):
        frame = scene.clone()
        left = 2 * index % size[1]
        frame[:, :, size[0] // 3 : size[0] // 2, left : left + 20] = 2
        frames.append(frame)
    return frames


def play(video: BlockCopy, frames: list[torch.Tensor]) -> tuple[torch.Tensor, list]:
    """Masks, bool [frames, rows, cols], and stats."""
    masks, stats = [], []
    for frame in frames:
        video(frame)
        masks.append(video.active)
        stats.append(video.stats)
    return torch.stack(masks), stats
