"""Wrong input: one clear line each, matched whole."""

from __future__ import annotations

import re

import pytest
import torch

from sparseblock import BlockSet, SparseBlockError, backend, ops
from sparseblock.testing import channels_last


def plane(*shape: int, **options) -> torch.Tensor:
    return torch.zeros(shape, **options).to(memory_format=torch.channels_last)


X = plane(2, 4, 8, 8)
POOLED = X.clone()
OUT = plane(2, 6, 8, 8)
WEIGHT = torch.zeros(6, 4, 3, 3)
BLOCKS = BlockSet.all(2, 2, 2, 4)


def conv(x=X, weight=WEIGHT, bias=None, blocks=BLOCKS, out=OUT, padding=1, **options):
    return ops.conv2d(x, weight, bias, blocks, out, padding=padding, **options)


def transpose(x=X, weight=None, blocks=BLOCKS, out=OUT, **options):
    return ops.conv_transpose2d(x, torch.zeros(4, 6, 1, 1) if weight is None else weight, None, blocks, out, **options)


def pool(x=X, out=POOLED, blocks=BLOCKS, kernel_size=3, stride=1, padding=1, **options):
    return ops.max_pool2d(x, blocks, out, kernel_size=kernel_size, stride=stride, padding=padding, **options)


def resize(out=POOLED, **options):
    return ops.interpolate(X, BLOCKS, out, **options)


def shifted(tensor, channels):
    """`tensor`'s shape and strides, a few channels further in the same memory."""
    base = torch.zeros(tensor.numel() + channels)
    place = [torch.as_strided(base, tensor.shape, tensor.stride(), start) for start in (0, channels)]
    return place


SAME = shifted(X, 2)
ERRORS = {
    # What is not a feature map.
    "type": (lambda: conv(x=[1]), "conv2d: x is a list; it must be a torch.Tensor [n, c, h, w]"),
    "no weight": (
        lambda: ops.conv2d(X, None, None, BLOCKS, OUT),
        "conv2d: weight is a NoneType; it must be a torch.Tensor",
    ),
    "no weight of a transposed convolution": (
        lambda: ops.conv_transpose2d(X, None, None, BLOCKS, OUT),
        "conv_transpose2d: weight is a NoneType; it must be a torch.Tensor",
    ),
    "sparse x": (
        lambda: conv(x=X.to_sparse()),
        "conv2d: x is torch.sparse_coo; it must be a dense tensor: x.to_dense()",
    ),
    "sparse weight": (
        lambda: conv(weight=WEIGHT.to_sparse()),
        "conv2d: weight is torch.sparse_coo; it must be a dense tensor: weight.to_dense()",
    ),
    "sparse bias": (
        lambda: conv(bias=torch.zeros(6).to_sparse()),
        "conv2d: bias is torch.sparse_coo; it must be a dense tensor: bias.to_dense()",
    ),
    "sparse slope": (
        lambda: conv(activation="prelu", slope=torch.zeros(6).to_sparse()),
        "conv2d: slope is torch.sparse_coo; it must be a dense tensor: slope.to_dense()",
    ),
    "unknown algorithm": (
        lambda: conv(algorithm="fft"),
        "conv2d: algorithm is 'fft'; it must be one of direct, winograd_2x2, winograd_4x4, bf16_pairs, bf16_amx, tf32",
    ),
    "algorithm of another kernel": (
        lambda: conv(weight=torch.zeros(6, 4, 1, 3), algorithm="winograd_4x4"),
        "conv2d: algorithm is 'winograd_4x4', but its kernel is 1x3; "
        "it needs a 3x3 kernel, stride 1, one group and zeros around: use 'direct'",
    ),
    "algorithm of another stride": (
        lambda: conv(stride=2, algorithm="winograd_2x2"),
        "conv2d: algorithm is 'winograd_2x2', but its stride is 2x2; "
        "it needs a 3x3 kernel, stride 1, one group and zeros around: use 'direct'",
    ),
    "algorithm of groups": (
        lambda: conv(weight=torch.zeros(6, 2, 3, 3), groups=2, algorithm="winograd_4x4"),
        "conv2d: algorithm is 'winograd_4x4', but it has 2 groups; "
        "it needs a 3x3 kernel, stride 1, one group and zeros around: use 'direct'",
    ),
    "axes": (lambda: conv(x=X[0]), "conv2d: x has 3 axes [4, 8, 8]; it must have 4: [n, c, h, w]"),
    "empty": (
        lambda: conv(x=plane(2, 4, 0, 8)),
        "conv2d: x is [n=2 c=4 h=0 w=8]; every axis must be at least 1 and below 2**31",
    ),
    "overflow": (
        lambda: conv(x=plane(1, 1, 1, 1).expand(1, 1, 1, 2**31)),
        "conv2d: x is [n=1 c=1 h=1 w=2147483648]; every axis must be at least 1 and below 2**31",
    ),
    "layout of x": (
        lambda: conv(x=torch.zeros(2, 4, 8, 8)),
        "conv2d: x has strides (256, 64, 8, 1); it must be channels-last (stride 1 over channels): "
        "x.contiguous(memory_format=torch.channels_last)",
    ),
    "layout of out": (
        lambda: conv(out=torch.zeros(2, 6, 8, 8)),
        "conv2d: out has strides (384, 64, 8, 1); it must be channels-last (stride 1 over channels): "
        "out.contiguous(memory_format=torch.channels_last)",
    ),
    "layout of residual": (
        lambda: conv(residual=torch.zeros(2, 6, 8, 8)),
        "conv2d: residual has strides (384, 64, 8, 1); it must be channels-last (stride 1 over channels): "
        "residual.contiguous(memory_format=torch.channels_last)",
    ),
    "out onto itself": (
        lambda: conv(out=plane(1, 6, 8, 8).expand(2, 6, 8, 8)),
        "conv2d: out [n=2 c=6 h=8 w=8] has strides (0, 1, 48, 6); elements must lie apart in the order n, h, w, c: "
        "allocate it with memory_format=torch.channels_last",
    ),
    # Dtypes, devices.
    "dtype": (
        lambda: conv(x=X.int(), weight=WEIGHT.int(), out=OUT.int()),
        "conv2d: out is torch.int32; the cpu backend takes torch.float32 or torch.bfloat16 or torch.float16: "
        "convert the tensors",
    ),
    "dtype of a map beside halves": (
        lambda: conv(x=X, out=OUT.bfloat16()),
        "conv2d: x is torch.float32 but out is torch.bfloat16; all tensors must have one dtype",
    ),
    "dtype of a parameter beside halves": (
        lambda: conv(x=X.half(), weight=WEIGHT.bfloat16(), out=OUT.half()),
        "conv2d: weight is torch.bfloat16 but out is torch.float16; weight must have that dtype or float32",
    ),
    "mixed dtypes": (
        lambda: conv(weight=WEIGHT.double()),
        "conv2d: weight is torch.float64 but out is torch.float32; all tensors must have one dtype",
    ),
    "device": (
        lambda: conv(weight=WEIGHT.to("meta")),
        "conv2d: weight is on meta but out is on cpu; all tensors must be on one device",
    ),
    "device without a backend": (
        lambda: conv(out=OUT.to("meta")),
        "conv2d: no backend is the default on meta; move the tensors to cpu, or use sparseblock.backend('reference')",
    ),
    # Parameters of a convolution.
    "stride": (lambda: conv(stride=0), "conv2d: stride is 0; it must be at least 1 and below 2**31"),
    "padding": (
        lambda: conv(padding=(1, 2, 3)),
        "conv2d: padding is (1, 2, 3); it must be an integer or two (vertical, horizontal), or "
        "((top, bottom), (left, right))",
    ),
    "padding of sides": (
        lambda: conv(padding=((1, 1, 1), (1, 1))),
        "conv2d: padding is ((1, 1, 1), (1, 1)); it must be an integer or two (vertical, horizontal), or "
        "((top, bottom), (left, right))",
    ),
    "tensor in place of a number": (
        lambda: conv(dilation=X),
        "conv2d: dilation is torch.float32 [2, 4, 8, 8] on cpu; it must be an integer or two (vertical, horizontal)",
    ),
    "dilation": (
        lambda: conv(dilation=1.5),
        "conv2d: dilation is 1.5; it must be an integer or two (vertical, horizontal)",
    ),
    "weight": (
        lambda: conv(weight=torch.zeros(6, 4, 3)),
        "conv2d: weight is [6, 4, 3]; it must be [k, c / groups, r, s], none empty",
    ),
    "channels": (
        lambda: conv(weight=torch.zeros(6, 3, 3, 3)),
        "conv2d: weight has 3 input channels but x has 4 (x: [n=2 c=4 h=8 w=8], groups=1); "
        "weight.shape[1]*groups must equal c",
    ),
    "groups": (
        lambda: conv(groups=4),
        "conv2d: groups is 4 for 6 output channels; it must be a positive divisor of weight.shape[0]",
    ),
    "truth in place of groups": (
        lambda: conv(groups=True),
        "conv2d: groups is True for 6 output channels; it must be a positive divisor of weight.shape[0]",
    ),
    "kernel": (
        lambda: conv(weight=torch.zeros(6, 4, 9, 3), padding=0),
        "conv2d: a kernel of 9x3 (dilation (1, 1)) does not fit into x [n=2 c=4 h=8 w=8] with padding (0, 0); "
        "pad more or pass a larger x",
    ),
    "shape of out": (
        lambda: conv(padding=0),
        "conv2d: out is [n=2 c=6 h=8 w=8] but the dense op gives [n=2 c=6 h=6 w=6] (x: [n=2 c=4 h=8 w=8]); "
        "allocate out with that shape",
    ),
    "bias": (
        lambda: conv(bias=torch.zeros(4)),
        "conv2d: bias is [4] for 6 output channels; it must be [6]",
    ),
    "residual": (
        lambda: conv(residual=X),
        "conv2d: residual is [n=2 c=4 h=8 w=8] but out is [n=2 c=6 h=8 w=8]; it must have that shape, or one pixel or "
        "one channel that counts for all: [n=2 c=6 h=1 w=1] or [n=2 c=1 h=8 w=8]",
    ),
    "activation": (
        lambda: conv(activation="swish"),
        "conv2d: activation is 'swish'; it must be one of None, 'relu', 'relu6', 'clamp', 'leaky_relu', 'prelu', "
        "'elu', 'sigmoid', 'tanh', 'silu', 'gelu', 'gelu_tanh', 'mish', 'softplus', 'hardsigmoid', 'hardswish'",
    ),
    "bounds of nothing": (
        lambda: conv(activation="relu", bounds=(0, 1)),
        "conv2d: bounds are given, but activation 'relu' has none; leave them out",
    ),
    "bounds": (
        lambda: conv(activation="clamp", bounds=(1, 0)),
        "conv2d: bounds of 'clamp' are (1, 0); they must be two numbers, low <= high, infinite where there is none",
    ),
    "truth in place of a bound": (
        lambda: ops.activation(X, BLOCKS, X, activation="clamp", bounds=(False, 10)),
        "activation: bounds of 'clamp' are (False, 10); they must be two numbers, low <= high, infinite where there is "
        "none",
    ),
    "combine": (lambda: conv(combine="sub"), "conv2d: combine is 'sub'; it must be 'add' or 'mul'"),
    "gate": (
        lambda: ops.mul(X, plane(2, 4, 1, 8), BLOCKS, POOLED),
        "mul: y is [n=2 c=4 h=1 w=8] but out is [n=2 c=4 h=8 w=8]; it must have that shape, or one pixel or one "
        "channel that counts for all: [n=2 c=4 h=1 w=1] or [n=2 c=1 h=8 w=8]",
    ),
    "slope of nothing": (
        lambda: conv(activation="relu", slope=0.1),
        "conv2d: slope is given, but activation 'relu' has none; leave it out",
    ),
    "slope missing": (
        lambda: conv(activation="prelu"),
        "conv2d: slope of 'prelu' is None; it must be a finite number (torch.float32) or a tensor [6] or [1]",
    ),
    "slope of NaN": (
        lambda: conv(activation="elu", slope=float("nan")),
        "conv2d: slope of 'elu' is nan; it must be a finite number (torch.float32) or a tensor [6] or [1]",
    ),
    "infinite slope": (
        lambda: conv(activation="leaky_relu", slope=float("-inf")),
        "conv2d: slope of 'leaky_relu' is -inf; it must be a finite number (torch.float32) or a tensor [6] or [1]",
    ),
    "slope beyond float32": (
        lambda: conv(activation="prelu", slope=1e39),
        "conv2d: slope of 'prelu' is 1e+39; it must be a finite number (torch.float32) or a tensor [6] or [1]",
    ),
    "slope": (
        lambda: conv(activation="prelu", slope=torch.zeros(4)),
        "conv2d: slope of 'prelu' is [4]; it must be a finite number (torch.float32) or a tensor [6] or [1]",
    ),
    "output padding": (
        lambda: transpose(output_padding=1),
        "conv_transpose2d: output_padding is (1, 1) with stride (1, 1) and dilation (1, 1); "
        "it must be smaller than either",
    ),
    "weight, transposed": (
        lambda: transpose(weight=torch.zeros(4, 6)),
        "conv_transpose2d: weight is [4, 6]; it must be [c, k / groups, r, s], none empty",
    ),
    "channels, transposed": (
        lambda: transpose(weight=torch.zeros(3, 6, 1, 1)),
        "conv_transpose2d: weight has 3 input channels but x has 4 (x: [n=2 c=4 h=8 w=8]); "
        "weight.shape[0] must equal c",
    ),
    "groups, transposed": (
        lambda: transpose(groups=3),
        "conv_transpose2d: groups is 3 for 4 input channels; it must be a positive divisor of weight.shape[0]",
    ),
    "padding, transposed": (
        lambda: transpose(padding=4),
        "conv_transpose2d: padding (4, 4) leaves nothing of x [n=2 c=4 h=8 w=8] under a kernel of 1x1; pad less",
    ),
    # Blocks.
    "blocks": (
        lambda: conv(blocks=torch.ones(2, 2, 2, dtype=torch.bool)),
        "conv2d: blocks is a Tensor; it must be a BlockSet: BlockSet.from_mask(mask, block)",
    ),
    "grid": (
        lambda: conv(blocks=BlockSet.all(2, 2, 3, 4)),
        "conv2d: blocks are a grid of [2, 2, 3] blocks of 4x4 px, but out [n=2 c=6 h=8 w=8] takes [2, 2, 2]; "
        "[n, rows, cols] must cover out exactly",
    ),
    "images of the grid": (
        lambda: conv(blocks=BlockSet.all(1, 2, 2, 4)),
        "conv2d: blocks are a grid of [1, 2, 2] blocks of 4x4 px, but out [n=2 c=6 h=8 w=8] takes [2, 2, 2]; "
        "[n, rows, cols] must cover out exactly",
    ),
    "count of blocks": (  # of an op that is called past the checks, as a compiled graph calls it
        lambda: torch.ops.sparseblock.add(X, X, BLOCKS.index, torch.tensor([99]).int(), (4, 4), X, None, None, None),
        f"add: blocks have count 99 but {len(BLOCKS.index)} rows of index; count is how many of them are active",
    ),
    "device of blocks": (
        lambda: conv(blocks=BlockSet.all(2, 2, 2, 4, device="meta")),
        "conv2d: blocks are on meta but out is on cpu; they must be on one device",
    ),
    # Memory.
    "overlap": (
        lambda: pool(x=SAME[0], out=SAME[1]),
        "max_pool2d: x and out share memory; they must lie apart: pass x.clone()",
    ),
    "in place": (
        lambda: pool(x=X, out=X),
        "max_pool2d: x and out share memory; they must lie apart: pass x.clone()",
    ),
    "overlap in part": (
        lambda: ops.add(X, SAME[0], BLOCKS, SAME[1]),
        "add: y and out share memory; they must lie apart or be the same elements: pass y.clone()",
    ),
    # Pooling.
    "window": (
        lambda: pool(kernel_size=9, padding=0),
        "max_pool2d: a window of 9x9 (dilation (1, 1)) does not fit into x [n=2 c=4 h=8 w=8] with padding (0, 0); "
        "pad more or pass a larger x",
    ),
    "padding of a window": (
        lambda: pool(padding=2),
        "max_pool2d: padding is (2, 2) for kernel_size (3, 3); it must be at most half of it",
    ),
    "divisor": (
        lambda: ops.avg_pool2d(X, BLOCKS, X.clone(), kernel_size=1, divisor_override=0),
        "avg_pool2d: divisor_override is 0; it must be None or a positive integer below 2**31",
    ),
    "truth in place of a divisor": (
        lambda: ops.avg_pool2d(X, BLOCKS, X.clone(), kernel_size=1, divisor_override=True),
        "avg_pool2d: divisor_override is True; it must be None or a positive integer below 2**31",
    ),
    "rounding of a maximum": (lambda: pool(ceil_mode=None), "max_pool2d: ceil_mode is None; it must be True or False"),
    "rounding of an average": (
        lambda: ops.avg_pool2d(X, BLOCKS, X.clone(), kernel_size=1, ceil_mode="no"),
        "avg_pool2d: ceil_mode is 'no'; it must be True or False",
    ),
    "count of padding": (
        lambda: ops.avg_pool2d(X, BLOCKS, X.clone(), kernel_size=1, count_include_pad=None),
        "avg_pool2d: count_include_pad is None; it must be True or False",
    ),
    # Resize.
    "mode": (lambda: resize(mode="bicubic"), "interpolate: mode is 'bicubic'; it must be 'nearest' or 'bilinear'"),
    "corners": (
        lambda: resize(align_corners=True),
        "interpolate: align_corners is set with mode 'nearest'; only 'bilinear' knows it",
    ),
    "kind of corners": (
        lambda: resize(align_corners=None, mode="bilinear"),
        "interpolate: align_corners is None; it must be True or False",
    ),
    "endless factor": (
        lambda: resize(scale_factor=1e308),
        "interpolate: scale_factor is 1e+308; it must be one or two positive numbers below 2**31",
    ),
    "factor": (
        lambda: resize(scale_factor=(2.0, 0.0)),
        "interpolate: scale_factor is (2.0, 0.0); it must be one or two positive numbers below 2**31",
    ),
    "kind of factor": (
        lambda: resize(scale_factor="2"),
        "interpolate: scale_factor is '2'; it must be one or two positive numbers below 2**31",
    ),
    "size by factor": (
        lambda: resize(scale_factor=1.3),
        "interpolate: out is [n=2 c=4 h=8 w=8] but the dense op gives [n=2 c=4 h=10 w=10] (x: [n=2 c=4 h=8 w=8]); "
        "allocate out with that shape",
    ),
    # Padding.
    "sides": (
        lambda: conv(padding=((1, -1), (0, 0))),
        "conv2d: padding is (1, -1); it must be at least 0 and below 2**31",
    ),
    "mode of padding": (
        lambda: conv(padding_mode="mirror"),
        "conv2d: padding_mode is 'mirror'; it must be one of 'zeros', 'reflect', 'replicate', 'circular'",
    ),
    "more than there is": (
        lambda: conv(padding=8, padding_mode="reflect"),
        "conv2d: padding is (8, 8) for x [n=2 c=4 h=8 w=8]; with padding_mode 'reflect' at most 7 of 8 pixels can be "
        "padded on a side",
    ),
    "value of a mode": (
        lambda: ops.pad(X, BLOCKS, POOLED, padding=0, mode="circular", value=1.0),
        "pad: value is 1.0 with mode 'circular'; only 'constant' has one: leave it out",
    ),
    "word in place of a value": (
        lambda: ops.pad(X, BLOCKS, POOLED, padding=0, value="a"),
        "pad: value is 'a' for out in torch.float32; it must be a number of magnitude at most 3.4028235e+38, "
        "infinite, or NaN",
    ),
    "no value": (
        lambda: ops.pad(X, BLOCKS, POOLED, padding=0, mode="circular", value=None),
        "pad: value is None for out in torch.float32; it must be a number of magnitude at most 3.4028235e+38, "
        "infinite, or NaN",
    ),
    "value that a half cannot hold": (
        lambda: ops.pad(X.half(), BLOCKS, POOLED.half(), padding=0, value=1e5),
        "pad: value is 100000.0 for out in torch.float16; it must be a number of magnitude at most 65504, "
        "infinite, or NaN",
    ),
    # Elements in another order.
    "factor of channels": (
        lambda: ops.pixel_shuffle(X, BLOCKS, POOLED, upscale_factor=3),
        "pixel_shuffle: upscale_factor is 3 for 4 channels; it must be a positive integer whose square divides them",
    ),
    "factor of sides": (
        lambda: ops.pixel_unshuffle(X, BLOCKS, POOLED, downscale_factor=3),
        "pixel_unshuffle: downscale_factor is 3 for 8x8 px; it must be a positive integer that divides them",
    ),
    "groups of a shuffle": (
        lambda: ops.channel_shuffle(X, BLOCKS, POOLED, groups=0),
        "channel_shuffle: groups is 0 for 4 channels; it must be a positive integer that divides them",
    ),
    "size of a shuffle": (
        lambda: ops.pixel_shuffle(X, BLOCKS, POOLED, upscale_factor=2),
        "pixel_shuffle: out is [n=2 c=4 h=8 w=8] but the dense op gives [n=2 c=1 h=16 w=16] (x: [n=2 c=4 h=8 w=8]); "
        "allocate out with that shape",
    ),
    # Moments.
    "order": (
        lambda: ops.block_moments(X, BLOCKS, OUT, cell=4, order=3),
        "block_moments: order is 3; it must be 1 (means) or 2 (means and sums of squared deviations)",
    ),
    "kind of order": (
        lambda: ops.block_moments(X, BLOCKS, OUT, cell=4, order=1.0),
        "block_moments: order is 1.0; it must be 1 (means) or 2 (means and sums of squared deviations)",
    ),
    "other map of a norm": (
        lambda: ops.block_norm(X, BLOCKS, OUT, cell=4, y=X[:, :2]),
        "block_norm: y is [n=2 c=2 h=8 w=8] but x is [n=2 c=4 h=8 w=8]; both must have one shape",
    ),
    "dtype of the other map of a norm": (
        lambda: ops.block_norm(X, BLOCKS, OUT, cell=4, y=X.half()),
        "block_norm: y is torch.float16 but x is torch.float32; all tensors must have one dtype",
    ),
    "dtype of a norm": (
        lambda: ops.block_norm(X.half(), BLOCKS, OUT.half(), cell=4),
        "block_norm: out is torch.float16 but x is torch.float16; out must be torch.float32",
    ),
    "dtype of moments": (
        lambda: ops.group_norm(X.half(), OUT.half(), None, None, BLOCKS, POOLED.half(), num_groups=2, cell=4),
        "group_norm: moments is torch.float16 but out is torch.float16; moments must be torch.float32",
    ),
    "norm": (
        lambda: ops.block_norm(X, BLOCKS, OUT, cell=4, norm="l3"),
        "block_norm: norm is 'l3'; it must be one of 'l1', 'l2', 'max'",
    ),
    "moments": (
        lambda: ops.group_norm(X, OUT, None, None, BLOCKS, POOLED, num_groups=2, cell=4),
        "group_norm: moments is [n=2 c=6 h=8 w=8] for a map [n=2 c=4 h=8 w=8] in cells of 4x4 px; "
        "it must be [n=2 c=8 h=2 w=2]: block_moments of order 2",
    ),
    "groups of a norm": (
        lambda: ops.group_norm(X, plane(2, 8, 2, 2), None, None, BLOCKS, POOLED, num_groups=3, cell=4),
        "group_norm: num_groups is 3 for 4 channels; it must be a positive divisor of them",
    ),
    "eps": (
        lambda: ops.group_norm(X, plane(2, 8, 2, 2), None, None, BLOCKS, POOLED, num_groups=2, cell=4, eps=-1),
        "group_norm: eps is -1; it must be a finite number of at least 0",
    ),
    "infinite eps": (
        lambda: ops.layer_norm(X, None, None, BLOCKS, X.clone(), eps=float("inf")),
        "layer_norm: eps is inf; it must be a finite number of at least 0",
    ),
    "eps of a thousand digits": (
        lambda: ops.normalize(X, BLOCKS, X.clone(), eps=10**999),
        f"normalize: eps is {10**999}; it must be a finite number of at least 0",
    ),
    "truth in place of groups of a norm": (
        lambda: ops.group_norm(X, plane(2, 8, 2, 2), None, None, BLOCKS, POOLED, num_groups=True, cell=4),
        "group_norm: num_groups is True for 4 channels; it must be a positive divisor of them",
    ),
    # Over channels.
    "eps of a norm": (
        lambda: ops.normalize(X, BLOCKS, X.clone(), eps="0"),
        "normalize: eps is '0'; it must be a finite number of at least 0",
    ),
    "shape of a softmax": (
        lambda: ops.softmax(X, BLOCKS, OUT),
        "softmax: x is [n=2 c=4 h=8 w=8] but out is [n=2 c=6 h=8 w=8]; both must have one shape",
    ),
    "weight of a layer norm": (
        lambda: ops.layer_norm(X, torch.ones(3), None, BLOCKS, X.clone()),
        "layer_norm: weight is [3] for 4 output channels; it must be [4]",
    ),
    # The rest.
    "scale": (
        lambda: ops.affine(X, torch.zeros(3), torch.zeros(4), BLOCKS, X.clone()),
        "affine: scale is [3] for 4 output channels; it must be [4]",
    ),
    "no shift": (
        lambda: ops.affine(X, torch.zeros(4), None, BLOCKS, X.clone()),
        "affine: shift is a NoneType; it must be a torch.Tensor",
    ),
    "slices": (
        lambda: ops.cat_slices(X, [3, 2]),
        "cat_slices: channels are [3, 2] for out [n=2 c=4 h=8 w=8]; they must be positive integers that add up to c",
    ),
    "kind of slices": (
        lambda: ops.cat_slices(X, "a"),
        "cat_slices: channels are 'a' for out [n=2 c=4 h=8 w=8]; they must be positive integers that add up to c",
    ),
    "slices of no integers": (
        lambda: ops.cat_slices(X, [2.0, 2.0]),
        "cat_slices: channels are [2.0, 2.0] for out [n=2 c=4 h=8 w=8]; "
        "they must be positive integers that add up to c",
    ),
    "parts": (
        lambda: ops.cat([], BLOCKS, X),
        "cat: tensors is []; it must be a list of at least one tensor [n, c, h, w]",
    ),
    "tensor in place of parts": (
        lambda: ops.cat(X, BLOCKS, X.clone()),
        "cat: tensors is torch.float32 [2, 4, 8, 8] on cpu; it must be a list of at least one tensor [n, c, h, w]",
    ),
    "channels of parts": (
        lambda: ops.cat([X], BLOCKS, OUT),
        "cat: out is [n=2 c=6 h=8 w=8] but the dense op gives [n=2 c=4 h=8 w=8] (tensors[0]: [n=2 c=4 h=8 w=8]); "
        "allocate out with that shape",
    ),
    "size of parts": (
        lambda: ops.cat([X, plane(2, 2, 8, 7)], BLOCKS, OUT),
        "cat: tensors[1] is [n=2 c=2 h=8 w=7] but out is [n=2 c=2 h=8 w=8]; both must have one shape",
    ),
    "halo": (
        lambda: ops.gather(X, BLOCKS, X, halo=-1),
        "gather: halo is -1; it must be an integer of at least 0 and below 2**31 (pixels)",
    ),
    "room": (
        lambda: ops.gather(X, BLOCKS, plane(8, 4, 4, 4), halo=1),
        "gather: out is [8, 4, 4, 4] for 8 blocks of 4x4 px with halo 1 and 4 channels; it must be [8, 4, 6, 6]",
    ),
    "gaps": (
        lambda: ops.scatter(plane(8, 6, 4, 4)[:, :4], BLOCKS, X),
        "scatter: packed has strides (96, 1, 24, 6); it must be channels-last without gaps: "
        "packed.contiguous(memory_format=torch.channels_last)",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_input_is_one_clear_line(case):
    call, message = ERRORS[case]
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("case", ERRORS)
def test_nothing_is_written_before_the_input_is_known_to_be_right(case):
    before = [tensor.clone() for tensor in (X, OUT, *SAME)]
    with pytest.raises(SparseBlockError):
        ERRORS[case][0]()
    assert all(torch.equal(now, then) for now, then in zip((X, OUT, *SAME), before, strict=True))


def test_a_parameter_is_fine_without_grad_mode():
    with torch.no_grad():
        conv(weight=torch.nn.Parameter(WEIGHT), out=channels_last(OUT.clone()))


def test_float64_is_for_the_reference_backend():
    double = {"x": X.double(), "weight": WEIGHT.double(), "out": OUT.double()}
    with backend("reference"):
        conv(**double)
    message = (
        "conv2d: out is torch.float64; the cpu backend takes torch.float32 or torch.bfloat16 or torch.float16: "
        "convert the tensors"
    )
    with pytest.raises(SparseBlockError, match=f"^{re.escape(message)}$"):
        conv(**double)
