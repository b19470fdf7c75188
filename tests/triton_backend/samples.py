"""Cases for every kernel of the triton backend: maps in blocks, some of them active, the last ones partial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from sparseblock import BlockSet, ops
from sparseblock.testing import Case, cases
from sparseblock.testing.gradients import whole


def blurred(*, x, blocks, out, **_):
    """avg_pool2d of 3x3 pixels, by dense code on packed blocks."""
    capacity, (height, width) = len(blocks.index), blocks.block
    layout = {"dtype": x.dtype, "device": x.device, "memory_format": torch.channels_last}
    packed = torch.empty(capacity, x.shape[1], height + 2, width + 2, **layout)
    means = F.avg_pool2d(ops.gather(x, blocks, packed, halo=1).float(), 3, 1).to(x.dtype)
    return ops.scatter(means.contiguous(memory_format=torch.channels_last), blocks, out)


def normal(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def samples(dtype: torch.dtype = torch.float32) -> Iterator[Case]:
    """One or more of each kernel, maps of `dtype`; some with NaN."""
    x = normal(2, 8, 13, 18, seed=0, dtype=dtype)
    broken = x.clone()
    broken[0, 0, 2, 2] = float("nan")  # where a block is active
    window = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    wide, slopes = normal(1, 160, 5, 6, seed=1, dtype=dtype), torch.arange(8.0)
    shapes = (20, 8, 3, 3), (24, 128, 1, 1), (2, 20, 1, 1)
    few, deep, gates = (normal(*shape, seed=3, dtype=dtype) for shape in shapes)
    cells = torch.cat([part := normal(2, 8, 4, 4, seed=5, dtype=torch.float32), part.square()], 1)
    norm = {"num_groups": 2, "cell": (4, 5), "eps": 0.5, "activation": "prelu", "slope": slopes}
    wide_cells = torch.ones(1, 320, 1, 1)
    for case, block in (
        (replace(cases.avg_pool2d(x, **window), call=blurred, tolerance=0.1), (4, 5)),
        (cases.conv2d(x, few, slopes.repeat(3)[:20], gates, padding=(1, 1), activation="silu"), (4, 5)),
        (cases.conv2d(x, few[:, :2], padding=(2, 1), stride=(2, 1), groups=4, padding_mode="reflect"), (3, 5)),
        (cases.conv2d(x, few[:16, :1], groups=8, dilation=(2, 1), padding=((1, 2), (1, 0))), (4, 5)),
        (cases.conv2d(normal(1, 128, 6, 7, seed=4, dtype=dtype), deep), (2, 2)),
        (cases.conv2d(wide[:, :72], normal(136, 72, 1, 1, seed=6, dtype=dtype), combine="mul"), (2, 3)),
        (cases.conv_transpose2d(x, few[:8, :5], stride=(2, 3), padding=(1, 0), combine="mul"), (7, 9)),
        (cases.activation(broken, activation="relu"), (4, 5)),
        (cases.activation(x, activation="gelu"), (4, 5)),
        (cases.activation(wide, activation="softplus"), (4, 4)),
        (cases.add(x, x.flip(2), activation="prelu", slope=slopes), (4, 5)),
        (cases.mul(x, x[:, :1], activation="clamp", bounds=(-0.5, 0.5)), (4, 5)),
        (cases.affine(x, slopes + 1, slopes, activation="hardswish"), (4, 5)),
        (cases.max_pool2d(broken, **window), (4, 5)),
        (cases.avg_pool2d(x, count_include_pad=False, **window), (4, 5)),
        (cases.avg_pool2d(wide, **window), (4, 4)),
        (cases.adaptive_avg_pool2d(x, (5, 7)), (2, 3)),
        (cases.adaptive_max_pool2d(x, (1, 1)), (1, 1)),
        (cases.interpolate(x, (20, 25), mode="nearest"), (4, 5)),
        (cases.interpolate(x, (20, 25), mode="bilinear"), (4, 5)),
        (cases.interpolate(x, (1, 25), mode="bilinear", align_corners=True), (1, 5)),
        (cases.pad(x, padding=((1, 2), (3, 4)), value=1.5), (4, 5)),
        (cases.pad(x, padding=((1, 2), (3, 4)), mode="reflect"), (4, 5)),
        (cases.pixel_shuffle(x, upscale_factor=2), (4, 5)),
        (cases.pixel_unshuffle(x[:, :, :12], downscale_factor=2), (2, 5)),
        (cases.channel_shuffle(x, groups=4), (4, 5)),
        (cases.softmax(wide), (4, 4)),
        (cases.normalize(x, eps=1.0), (4, 5)),
        (cases.layer_norm(wide[:, :1], slopes[1:2], None), (1, 1)),
        (cases.layer_norm(x, slopes + 1, slopes), (4, 5)),
        (cases.block_moments(x, cell=(4, 5), order=2), (2, 1)),
        (cases.block_moments(wide, cell=(5, 6)), (1, 1)),
        *((cases.block_norm(x, x.flip(2), cell=(4, 5), norm=norm), (2, 1)) for norm in ("l1", "l2")),
        (cases.block_norm(broken, cell=(4, 5), norm="max"), (2, 1)),
        (cases.global_avg_pool2d(cells[:, :8], size=(13, 18), cell=(4, 5)), (1, 1)),
        (cases.group_norm(x, cells, slopes, slopes + 1, **norm), (4, 5)),
        (cases.group_norm(wide, wide_cells, num_groups=1, cell=(5, 6)), (4, 4)),
    ):
        yield in_blocks(case, block)


def gradients() -> Iterator[Case]:
    """One or more of each kernel of gradients, of whole numbers: weights of more than a tile, in several shares of
    pixels; windows with ties and dilation; one with NaN.
    """
    x, wide, many = (normal(2, channels, 13, 18, seed=7, dtype=torch.float32) for channels in (8, 40, 17))
    weights = ((10, 3, 3, 2), (72, 40, 1, 2), (34, 1, 2, 2), (8, 6, 2, 3))
    grouped, dense, depthwise, transposed = (normal(*shape, seed=8, dtype=torch.float32) for shape in weights)
    broken = x.round()
    broken[0, 0, 2, 2] = float("nan")
    window = {"kernel_size": (3, 3), "stride": (2, 1), "padding": (1, 1)}
    for case, block in (
        (cases.conv2d(x[:, :6], grouped, groups=2, stride=(1, 2), dilation=(2, 1), padding=(2, 1)), (4, 5)),
        (cases.conv2d(wide, dense, padding=(0, 1)), (4, 5)),
        (cases.conv2d(many, depthwise, groups=17, padding=(1, 1)), (4, 5)),
        (cases.conv_transpose2d(x, transposed, stride=(2, 3), padding=(1, 2)), (5, 7)),
        (cases.max_pool2d(x, dilation=(1, 2), **window), (4, 5)),
        (cases.adaptive_max_pool2d(x, (6, 7)), (2, 3)),
        (cases.avg_pool2d(x, **window), (4, 5)),
        (cases.avg_pool2d(x, count_include_pad=False, **window), (4, 5)),
        (cases.adaptive_avg_pool2d(x, (6, 7)), (2, 3)),
        (cases.interpolate(x, (20, 25), mode="nearest"), (4, 5)),
        (cases.interpolate(x, (20, 25), mode="bilinear"), (4, 5)),
    ):
        yield in_blocks(whole(case), block)
    yield in_blocks(cases.max_pool2d(broken, **window), (4, 5))


def in_blocks(case: Case, block: tuple[int, int]) -> Case:
    """With half of its blocks, the first and the last among them."""
    n, _, height, width = case.out_shape
    mask = torch.rand(n, -(-height // block[0]), -(-width // block[1]), generator=torch.Generator().manual_seed(2))
    mask = mask < 0.5
    mask[-1, -1, -1] = mask[0, 0, 0] = True
    blocks = BlockSet.from_mask(mask, block)
    spare = torch.nonzero(~mask)[:1].int()  # behind the count, as in a list with room for every block
    return replace(case, blocks=replace(blocks, index=torch.cat([blocks.index, spare]).contiguous()))
