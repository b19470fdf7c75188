"""The C interface of csrc/include/sparseblock.h as ctypes sees it: the structs, the functions, and finding the library.

Field names, order and meaning are the header's; tests/ops/test_native.py has a C compiler compare sizes and offsets.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path

import torch  # first: its OpenMP runtime must be in the process before the kernels' library asks for one

import sparseblock
from sparseblock.errors import SparseBlockError

F32, BF16, F16 = range(3)  # sb_dtype
DTYPES = {torch.float32: F32, torch.bfloat16: BF16, torch.float16: F16}
IDENTITY, RELU, CLAMP, PRELU, ELU, SIGMOID, TANH = range(7)  # sb_activation
SILU, GELU, GELU_TANH, MISH, SOFTPLUS, HARDSIGMOID, HARDSWISH = range(7, 14)
ACTIVATIONS = {
    None: IDENTITY,
    "relu": RELU,
    "clamp": CLAMP,
    "prelu": PRELU,
    "elu": ELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "silu": SILU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "mish": MISH,
    "softplus": SOFTPLUS,
    "hardsigmoid": HARDSIGMOID,
    "hardswish": HARDSWISH,
}
ADD, MULTIPLY = range(2)  # sb_combine
COMBINATIONS = {"add": ADD, "mul": MULTIPLY}
POOL_MAX, POOL_AVG = range(2)  # sb_pool
NEAREST, BILINEAR = range(2)  # sb_resize
NORMS = {"l1": 0, "l2": 1, "max": 2}  # sb_norm
SOFTMAX, UNIT_LENGTH, UNIT_VARIANCE = range(3)  # sb_channel_norm_kind
CHANNEL_NORMS = {"softmax": SOFTMAX, "normalize": UNIT_LENGTH, "layer_norm": UNIT_VARIANCE}
PAD_MODES = {"constant": 0, "zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}  # sb_pad_mode
DIRECT, WINOGRAD_2X2, WINOGRAD_4X4, PAIRS, AMX = range(5)  # sb_algorithm
ALGORITHMS = {
    "direct": DIRECT,
    "winograd_2x2": WINOGRAD_2X2,
    "winograd_4x4": WINOGRAD_4X4,
    "bf16_pairs": PAIRS,
    "bf16_amx": AMX,
}
PIXEL_SHUFFLE, PIXEL_UNSHUFFLE, CHANNEL_SHUFFLE = range(3)  # sb_shuffle_kind
SHUFFLES = {"pixel_shuffle": PIXEL_SHUFFLE, "pixel_unshuffle": PIXEL_UNSHUFFLE, "channel_shuffle": CHANNEL_SHUFFLE}
LONGEST_CHAIN = 16  # SB_LONGEST_CHAIN
OP_CONV2D, OP_POOL2D, OP_INTERPOLATE, OP_POINTWISE, OP_BLOCK_MOMENTS, OP_GLOBAL_AVG_POOL2D, OP_GROUP_NORM, OP_PAD = (
    range(8)
)  # sb_op
OP_SHUFFLE, OP_CHANNEL_NORM = 8, 9


class Plane(Structure):
    """sb_plane: a feature map [n, h, w, c]; strides in elements."""

    _fields_ = [
        ("data", c_void_p),
        ("stride_n", c_int64),
        ("stride_y", c_int64),
        ("stride_x", c_int64),
        ("stride_c", c_int64),
        ("n", c_int32),
        ("h", c_int32),
        ("w", c_int32),
        ("c", c_int32),
        ("border", c_int32),
        ("dtype", c_int32),
    ]


class Blocks(Structure):
    """sb_blocks: the active blocks of an operator's output."""

    _fields_ = [
        ("index", c_void_p),
        ("count", c_void_p),
        ("block_h", c_int32),
        ("block_w", c_int32),
        ("whole", c_int32),
        ("next", c_int32),
        ("again", c_int32),
    ]


class PolicyInputs(Structure):
    """sb_policy_inputs: what a policy network's inputs are made of."""

    _fields_ = [
        ("frame", c_void_p),
        ("executed", c_void_p),
        ("mean", POINTER(c_float)),
        ("deviation", POINTER(c_float)),
        ("active", c_void_p),
        ("age", c_void_p),
        ("channels", c_int32),
        ("rows", c_int32),
        ("cols", c_int32),
        ("side", c_int32),
        ("logarithms", c_int32),
        ("momentum", c_float),
    ]


class Policy(Structure):
    """sb_policy: the sizes of a policy network."""

    _fields_ = [
        ("rows", c_int32),
        ("cols", c_int32),
        ("side", c_int32),
        ("channels", c_int32),
        ("summaries", c_int32),
        ("widths", c_int32 * 3),
        ("bound", c_float),
    ]


class List(Structure):
    """sb_list: active blocks without their size."""

    _fields_ = [("index", c_void_p), ("count", c_void_p)]


class Epilogue(Structure):
    """sb_epilogue: what happens to a value before it is stored. A null pointer leaves its part out."""

    _fields_ = [
        ("bias", c_void_p),
        ("scale", c_void_p),
        ("shift", c_void_p),
        ("slope", c_void_p),
        ("activation", c_int32),
        ("combine", c_int32),
        ("low", c_float),
        ("high", c_float),
    ]


class Conv2d(Structure):
    """sb_conv2d: a convolution, or a transposed one."""

    _fields_ = [
        ("in_channels", c_int32),
        ("out_channels", c_int32),
        ("groups", c_int32),
        ("kernel_h", c_int32),
        ("kernel_w", c_int32),
        ("stride_h", c_int32),
        ("stride_w", c_int32),
        ("pad_h", c_int32),
        ("pad_w", c_int32),
        ("dilation_h", c_int32),
        ("dilation_w", c_int32),
        ("transposed", c_int32),
        ("pad_mode", c_int32),
        ("algorithm", c_int32),
        ("packed_weight", c_void_p),
    ]


class Pool2d(Structure):
    """sb_pool2d: maximum or average over a window."""

    _fields_ = [
        ("kind", c_int32),
        ("kernel_h", c_int32),
        ("kernel_w", c_int32),
        ("stride_h", c_int32),
        ("stride_w", c_int32),
        ("pad_h", c_int32),
        ("pad_w", c_int32),
        ("dilation_h", c_int32),
        ("dilation_w", c_int32),
        ("count_include_pad", c_int32),
        ("divisor", c_int32),
        ("adaptive", c_int32),
        ("outside", c_float),
    ]


class Interpolate(Structure):
    """sb_interpolate: resize; scale is input pixels per output pixel."""

    _fields_ = [("mode", c_int32), ("align_corners", c_int32), ("scale_h", c_float), ("scale_w", c_float)]


class Moments(Structure):
    """sb_moments: the map, and the cells that it is cut into."""

    _fields_ = [
        ("height", c_int32),
        ("width", c_int32),
        ("block_h", c_int32),
        ("block_w", c_int32),
        ("order", c_int32),
    ]


class GroupNorm(Structure):
    """sb_group_norm: normalization by the moments of a map."""

    _fields_ = [("moments", Moments), ("groups", c_int32), ("eps", c_float)]


class ChannelNorm(Structure):
    """sb_channel_norm: the channels of a pixel brought to one scale."""

    _fields_ = [("kind", c_int32), ("eps", c_float)]


class BlockNorm(Structure):
    """sb_block_norm: norms of the cells of a map."""

    _fields_ = [("norm", c_int32), ("block_h", c_int32), ("block_w", c_int32)]


class Pad(Structure):
    """sb_pad: pixels around a map."""

    _fields_ = [("mode", c_int32), ("top", c_int32), ("left", c_int32), ("value", c_float)]


class Shuffle(Structure):
    """sb_shuffle: elements in another order."""

    _fields_ = [("kind", c_int32), ("factor", c_int32)]


class StepParameters(ctypes.Union):
    """The union inside sb_step."""

    _fields_ = [
        ("conv2d", Conv2d),
        ("pool2d", Pool2d),
        ("interpolate", Interpolate),
        ("moments", Moments),
        ("group_norm", GroupNorm),
        ("channel_norm", ChannelNorm),
        ("pad", Pad),
        ("shuffle", Shuffle),
    ]


class Rims(Structure):
    """sb_rims: what lasts of a step's output, and in which planes."""

    _fields_ = [
        ("rows", c_int32),
        ("cols", c_int32),
        ("above", c_int32),
        ("below", c_int32),
        ("left", c_int32),
        ("right", c_int32),
    ]


class Step(Structure):
    """sb_step: one operator of a plan; planes by number, block size in pixels of the step's output."""

    _fields_ = [
        ("op", c_int32),
        ("x", c_int32),
        ("residual", c_int32),
        ("out", c_int32),
        ("list", c_int32),
        ("block_h", c_int32),
        ("block_w", c_int32),
        ("chain", c_int32),
        ("piece_h", c_int32),
        ("piece_w", c_int32),
        ("local", c_int32),
        ("scratch", c_int64),
        ("dense", c_int32),
        ("rims", Rims),
        ("u", StepParameters),
        ("epilogue", Epilogue),
    ]


class Changes(Structure):
    """sb_changes: what changed of a value, the list of its tiles that are computed, what its gate remembers."""

    _fields_ = [
        ("pixels", c_void_p),
        ("index", c_void_p),
        ("count", c_void_p),
        ("passed", c_void_p),
        ("h", c_int32),
        ("w", c_int32),
        ("tile", c_int32),
        ("reference", c_void_p),
        ("difference", c_void_p),
        ("carried", c_void_p),
    ]


class Reach(Structure):
    """sb_reach: which pixels of an output read which of an input, along one axis."""

    _fields_ = [("start", c_void_p), ("index", c_void_p)]


class Source(Structure):
    """sb_source: one input of a step."""

    _fields_ = [("value", c_int32), ("rows", Reach), ("cols", Reach)]


class ResidualGate(Structure):
    """sb_residual_gate: whether a changed pixel of a convolution's output is computed anew."""

    _fields_ = [
        ("rows", Reach),
        ("cols", Reach),
        ("row_readers", Reach),
        ("col_readers", Reach),
        ("weight", c_void_p),
        ("threshold", c_float),
        ("bias", c_float),
        ("since_update", c_int32),
    ]


class Spread(Structure):
    """sb_spread: how changes pass a step."""

    _fields_ = [
        ("sources", POINTER(Source)),
        ("n_sources", c_int32),
        ("value", c_int32),
        ("tolerance", c_float),
        ("gate", POINTER(ResidualGate)),
    ]


STRUCTS = {
    "sb_plane": Plane,
    "sb_blocks": Blocks,
    "sb_list": List,
    "sb_epilogue": Epilogue,
    "sb_conv2d": Conv2d,
    "sb_pool2d": Pool2d,
    "sb_interpolate": Interpolate,
    "sb_moments": Moments,
    "sb_group_norm": GroupNorm,
    "sb_channel_norm": ChannelNorm,
    "sb_block_norm": BlockNorm,
    "sb_pad": Pad,
    "sb_shuffle": Shuffle,
    "sb_step": Step,
    "sb_changes": Changes,
    "sb_reach": Reach,
    "sb_source": Source,
    "sb_residual_gate": ResidualGate,
    "sb_spread": Spread,
}

_FUNCTIONS = {
    "sb_isa": (c_char_p, []),
    "sb_isa_problem": (c_char_p, []),
    "sb_set_isa": (c_int, [c_char_p]),
    "sb_conv2d_has": (c_int, [c_int]),
    "sb_conv2d_packed_size": (c_int64, [POINTER(Conv2d)]),
    "sb_conv2d_pack": (None, [POINTER(Conv2d), c_void_p, c_void_p]),
    "sb_evict": (None, [c_void_p, c_int64]),
    "sb_conv2d_run": (
        None,
        [POINTER(Conv2d), POINTER(Epilogue), POINTER(Plane), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_conv2d_weight_grad_run": (
        None,
        [POINTER(Conv2d), POINTER(Plane), POINTER(Plane), POINTER(Blocks), c_void_p, c_void_p, c_int],
    ),
    "sb_pool2d_input_grad_run": (
        None,
        [POINTER(Pool2d), POINTER(Plane), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_interpolate_input_grad_run": (
        None,
        [POINTER(Interpolate), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_pool2d_run": (None, [POINTER(Pool2d), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_interpolate_run": (None, [POINTER(Interpolate), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_pointwise_run": (
        None,
        [POINTER(Epilogue), POINTER(Plane), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_block_moments_run": (None, [POINTER(Moments), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_block_norm_run": (
        None,
        [POINTER(BlockNorm), POINTER(Plane), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_global_avg_pool2d_run": (None, [POINTER(Moments), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_group_norm_run": (
        None,
        [POINTER(GroupNorm), POINTER(Epilogue), POINTER(Plane), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_channel_norm_run": (
        None,
        [POINTER(ChannelNorm), POINTER(Epilogue), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int],
    ),
    "sb_pad_run": (None, [POINTER(Pad), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_shuffle_run": (None, [POINTER(Shuffle), POINTER(Plane), POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_gather_run": (None, [POINTER(Plane), POINTER(Blocks), c_int, c_void_p, c_int]),
    "sb_scatter_run": (None, [c_void_p, POINTER(Blocks), POINTER(Plane), c_int]),
    "sb_area_mean_run": (c_int, [POINTER(Plane), c_int, c_void_p, c_int, c_int]),
    "sb_channel_moments_run": (None, [c_void_p, c_int, c_int64, POINTER(c_float), POINTER(c_float)]),
    "sb_picture_distance_run": (c_float, [c_void_p, c_void_p, c_int, c_int64, c_float]),
    "sb_sample_run": (None, [POINTER(Plane), c_void_p, c_int, c_void_p, c_int, c_void_p]),
    "sb_policy_inputs_run": (
        None,
        [POINTER(PolicyInputs), POINTER(Plane), c_void_p, c_void_p, POINTER(c_float)],
    ),
    "sb_policy_logits_run": (None, [POINTER(Policy), *[c_void_p] * 5]),
    "sb_policy_logits_grad_run": (None, [POINTER(Policy), *[c_void_p] * 7]),
    "sb_blocks_from_mask": (None, [c_void_p, c_int, c_int, c_int, c_void_p, c_void_p]),
    "sb_run": (
        None,
        [POINTER(Step), c_int, POINTER(Plane), POINTER(List), c_int, POINTER(c_double)],
    ),
    "sb_spread_run": (None, [POINTER(Spread), POINTER(Changes), c_int, c_void_p]),
    "sb_residual_gate_run": (
        None,
        [POINTER(Spread), POINTER(Conv2d), POINTER(Plane), POINTER(Changes), c_int, c_void_p, c_int],
    ),
    "sb_compare_run": (None, [POINTER(Plane), POINTER(Plane), c_float, POINTER(Changes), c_void_p, c_int]),
    "sb_run_changes": (
        None,
        [
            *(POINTER(Step), POINTER(Spread), c_int, POINTER(Plane), POINTER(Changes), c_int, c_void_p, c_int),
            *(c_void_p, POINTER(c_double)),
        ],
    ),
}


@functools.cache
def lib() -> ctypes.CDLL:
    """The kernels' shared library with every signature set, loaded on the first call.

    Raises:
        SparseBlockError: no library lies beside the package, the one there does not load, or SPARSEBLOCK_ISA names an
            instruction set that the processor or the build lacks.
    """
    # A list: an editable install has the Python files in the source tree and the library in site-packages.
    for folder in sparseblock.__path__:
        path = Path(folder) / "lib" / "libsparseblock.so"
        if path.is_file():
            return _load(path)
    raise SparseBlockError(
        f"libsparseblock.so is not in {os.pathsep.join(str(Path(folder, 'lib')) for folder in sparseblock.__path__)}; "
        "the cpu backend needs it: install with `pip install .` and leave the source tree, whose folder hides the "
        "installed package, or install with `pip install -e .`"
    )


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise SparseBlockError(f"{path} does not load ({error}); rebuild it with `pip install .`") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    problem = library.sb_isa_problem()
    if problem:
        raise SparseBlockError(problem.decode())
    return library


def plane_of(tensor: torch.Tensor, border: int = 0) -> Plane:
    """The plane of `tensor` [n, c, h, w], its dtype in `DTYPES`; `border` zero pixels around each image may be read."""
    n, c, h, w = tensor.shape
    stride_n, stride_c, stride_y, stride_x = tensor.stride()
    # torch lets the stride of an axis of size 1 be anything; kernels take stride_c == 1 for channels-last.
    strides = stride_n, stride_y, stride_x, stride_c if c > 1 else 1
    return Plane(tensor.data_ptr(), *strides, n, h, w, c, border, DTYPES[tensor.dtype])


def blocks_of(index: torch.Tensor, count: torch.Tensor, block: Sequence[int]) -> Blocks:
    """The list of active blocks in these tensors (`BlockSet.index`, `.count`), which must outlive it."""
    return Blocks(index.data_ptr(), count.data_ptr(), *block)


def lists_of(*lists: tuple[torch.Tensor, torch.Tensor]) -> ctypes.Array[List]:
    """The array of lists with these (index, count), which must outlive it."""
    return (List * len(lists))(*(List(index.data_ptr(), count.data_ptr()) for index, count in lists))


def policy_of(pixels: torch.Tensor, summary: torch.Tensor, widths: Sequence[int], bound: float) -> Policy:
    """The policy network that reads these inputs."""
    summaries, rows, cols = summary.shape
    return Policy(rows, cols, pixels.shape[0] // rows, pixels.shape[2], summaries, (c_int32 * 3)(*widths), bound)


def epilogue_of(
    *,
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    activation: str | None = None,
    slope: torch.Tensor | None = None,
    bounds: Sequence[float] | None = None,
    combine: str = "add",
) -> Epilogue:
    """The epilogue with these parameters, tensors being [c], as float32; it keeps alive what it points to."""
    vectors = [None if vector is None else vector.float().contiguous() for vector in (bias, scale, shift, slope)]
    pointers = (None if vector is None else vector.data_ptr() for vector in vectors)
    epilogue = Epilogue(*pointers, ACTIVATIONS[activation], COMBINATIONS[combine], *(bounds or ()))
    epilogue.vectors = vectors
    return epilogue
