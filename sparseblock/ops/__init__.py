"""The operators. Each computes active blocks of `out` in place and leaves every other element as it was:

    op(x, blocks, out)  ==  where(active, dense_op(x), out)

A block's value depends neither on which other blocks are active, nor on their order, nor on the number of threads.
Tensors are [n, c, h, w] in shape and channels-last in memory (slices of images, rows, columns or channels are fine);
image i of `out` takes blocks of image i of `blocks`. The maps of a call are all float32, all bfloat16 or all float16
(float64 too on the reference backend); sums are float32 whatever is stored, and what is stored is rounded once, to
nearest even. Parameters (weight, bias, scale, shift, slope) beside halves are float32 or the maps' dtype.

Every op is registered with torch.library as `torch.ops.sparseblock.<name>`, unchecked there; the functions here
validate first.

Ops are differentiable, once, with respect to every map and parameter and to what `out` held: with g the gradient of the
result, that gets where(active, 0, g), and everything else what the dense op gives for where(active, g, 0). Only what
active blocks reach is computed. What an op read must not be written over before the backward pass (torch then raises).
Gradients have the dtype of what they are of, and are rounded to it once. All backends have them.
"""

from __future__ import annotations

from sparseblock.ops.activation import activation
from sparseblock.ops.adaptive_avg_pool2d import adaptive_avg_pool2d
from sparseblock.ops.adaptive_max_pool2d import adaptive_max_pool2d
from sparseblock.ops.add import add
from sparseblock.ops.affine import affine
from sparseblock.ops.avg_pool2d import avg_pool2d
from sparseblock.ops.block_moments import block_moments
from sparseblock.ops.block_norm import block_norm
from sparseblock.ops.cat import cat, cat_slices
from sparseblock.ops.channel_shuffle import channel_shuffle
from sparseblock.ops.conv2d import conv2d
from sparseblock.ops.conv_transpose2d import conv_transpose2d
from sparseblock.ops.gather import gather
from sparseblock.ops.global_avg_pool2d import global_avg_pool2d
from sparseblock.ops.group_norm import group_norm
from sparseblock.ops.interpolate import interpolate
from sparseblock.ops.layer_norm import layer_norm
from sparseblock.ops.max_pool2d import max_pool2d
from sparseblock.ops.mul import mul
from sparseblock.ops.normalize import normalize
from sparseblock.ops.pad import pad
from sparseblock.ops.pixel_shuffle import pixel_shuffle
from sparseblock.ops.pixel_unshuffle import pixel_unshuffle
from sparseblock.ops.scatter import scatter
from sparseblock.ops.softmax import softmax

__all__ = [
    "activation",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "affine",
    "avg_pool2d",
    "block_moments",
    "block_norm",
    "cat",
    "cat_slices",
    "channel_shuffle",
    "conv2d",
    "conv_transpose2d",
    "gather",
    "global_avg_pool2d",
    "group_norm",
    "interpolate",
    "layer_norm",
    "max_pool2d",
    "mul",
    "normalize",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "scatter",
    "softmax",
]
