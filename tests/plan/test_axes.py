"""What has four axes is a map of the frame only where its last two are the frame's rows and columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Call

import sparseblock

SIDE, WINDOW = 16, 4
PARTS = SIDE // WINDOW  # as many windows along a side as pixels of one: sizes tell nothing apart


def through_tokens(x):
    tokens = x.flatten(2).transpose(1, 2)
    tokens = tokens + F.linear(F.layer_norm(tokens, (4,)), torch.ones(4, 4))
    return tokens.transpose(1, 2).reshape(1, 4, SIDE, SIDE)


def through_tokens_channels_last(x):
    tokens = x.permute(0, 2, 3, 1).reshape(1, SIDE * SIDE, 4).sin()
    return tokens.view(1, SIDE, SIDE, 4).permute(0, 3, 1, 2)


def windows(x):
    """[1, c, rows of windows, columns of windows, rows, columns]."""
    return x.view(1, 4, PARTS, WINDOW, PARTS, WINDOW).transpose(3, 4)


def through_windows(x):
    listed = windows(x).permute(0, 2, 3, 1, 4, 5).reshape(PARTS * PARTS, 4, WINDOW * WINDOW).sin()
    return listed.view(1, PARTS, PARTS, 4, WINDOW, WINDOW).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def through_attention(x):
    q, k, v = x.flatten(2).repeat(1, 3, 1).view(1, 3, 2, 2, SIDE * SIDE).transpose(3, 4).unbind(1)
    scores = (q @ k.transpose(2, 3)).softmax(-1)
    return (scores @ v).transpose(2, 3).reshape(x.shape)


def through_fused_attention(x):
    q = x.flatten(2).view(1, 2, 2, SIDE * SIDE).transpose(2, 3)
    return F.scaled_dot_product_attention(q, q * 2, q).transpose(2, 3).reshape(x.shape)


def through_additive_attention(x):
    pixels = x.flatten(2).transpose(1, 2)
    return (pixels.mean(1, keepdim=True) * pixels).transpose(1, 2).reshape(x.shape)


def through_linear_attention(x):
    pixels = x.flatten(2)
    return (pixels @ pixels.transpose(1, 2) @ pixels).view(x.shape)


def written(place, value, into=torch.clone):
    """What `into` makes of a map, with `value` of the map at `place`."""

    def write(x):
        y = into(x)
        y[place] = value(x)
        return y

    return write


THROUGH = [
    *(through_tokens, through_tokens_channels_last, through_windows),
    *(through_attention, through_fused_attention, through_additive_attention, through_linear_attention),
]
FRAMES = [
    *(Call(function.__name__, function) for function in THROUGH),
    Call("pixels to channels", lambda x: windows(x).permute(0, 4, 5, 1, 2, 3).reshape(1, -1, PARTS, PARTS)),
    Call("flip and roll", lambda x: x.flip(2).roll(1, 3)),
    Call("a pad that is cut off", lambda x: F.pad(x, (0, 3, 0, 3)).sin()[:, :, :SIDE, :SIDE]),
    Call(
        "a stack's weighted sum",
        lambda x: (torch.stack([x, x * 3], 1) * x.mean((2, 3)).softmax(1)[:, :2, None, None, None]).sum(1),
    ),
    Call("written in some channels", written(np.s_[:, 1:3], lambda x: x[:, :2].sin())),
    Call("written in some pixels", written(np.s_[..., :5, 3:9], lambda x: 1.0)),
    Call("written to a constant", written(np.s_[:, 1:5], lambda x: x, lambda x: torch.ones(1, 6, SIDE, SIDE))),
    Call("beside a map", lambda x: torch.einsum("bchw,bcvw->bchv", x, x) + x),
]
OTHERS = [
    Call("transposed", lambda x: x.transpose(2, 3)),
    Call("permuted", lambda x: x.permute(0, 3, 1, 2).reshape(1, 4, SIDE, SIDE)),
    Call("channels last in the shape of a map", lambda x: x.permute(0, 2, 3, 1).reshape(x.shape)),
    Call("windows to channels", lambda x: windows(x).reshape(1, -1, WINDOW, WINDOW)),
    Call("windows by their pixels", lambda x: windows(x).reshape(x.shape)),
    Call("contracted", lambda x: torch.einsum("bchw,bcvw->bchv", x, x)),
    Call("scores", lambda x: (t := F.avg_pool2d(x, PARTS).flatten(2).transpose(1, 2)[:, None]) @ t.transpose(2, 3)),
    Call(
        "heads", lambda x: x.flatten(2).view(1, 4, SIDE, SIDE)[:, :2].flatten(1).view(1, SIDE, 2, SIDE).transpose(1, 2)
    ),
    Call("a stack's sum along the rows", lambda x: torch.stack([x] * SIDE, 2).sum(-2)),
    Call(
        "a window in a constant",
        written(np.s_[..., :8, :8], lambda x: x[..., 8:, 8:], lambda x: torch.ones(1, 4, SIDE, SIDE)),
    ),
    Call("of a vector", lambda x: x.mean((2, 3)).repeat(1, SIDE * SIDE).view(x.shape)),
]


def run(function):
    """Two frames, of the second one block: the report, both outputs, what the function then reads, and where."""
    torch.manual_seed(0)
    frames = torch.rand(2, 1, 4, SIDE, SIDE)
    plan = sparseblock.compile(Call("", lambda x: function(x * 2) * 2).eval(), frames[0], block_size=8)
    state = plan.new_state()
    first = plan(frames[0], None, state).clone()
    mask = torch.tensor([[[True, False], [False, False]]])
    active = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    read = torch.where(active, frames[1], frames[0]) * 2
    return plan.report(), first, plan(frames[1], mask, state), read, active


@pytest.mark.parametrize("function", FRAMES, ids=repr)
def test_a_map_is_one_again_after_its_pixels_were_moved_about(function):
    report, first, out, read, active = run(function)
    active = F.interpolate(active.float(), out.shape[2:]) > 0
    torch.testing.assert_close(out, torch.where(active, function(read) * 2, first))
    assert report.nodes[-1].placement == "sparse"


@pytest.mark.parametrize("function", OTHERS, ids=repr)
def test_what_has_the_sizes_of_a_map_alone_has_no_blocks(function):
    report, _, out, read, _ = run(function)
    torch.testing.assert_close(out, function(read) * 2)
    assert report.nodes[-1].placement == "dense"
