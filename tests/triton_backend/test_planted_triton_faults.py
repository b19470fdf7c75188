"""The contract catches faults that are planted into the sources of the Triton kernels."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import sys
from pathlib import Path

import pytest
import torch
from samples import gradients, samples

from sparseblock import backend, backends, ops
from sparseblock.backends import triton as package
from sparseblock.testing import check_contract, tolerance
from sparseblock.testing.gradients import check_gradients

NAME = package.__name__
SOURCES = Path(package.__file__).parent
# By name: the file, what stands there, what is put there instead.
FAULTS = {
    "ignores the count": ("maps", "listed = i < maps", "listed = i < maps + 1"),
    "leaves the last block": ("maps", "listed = i < maps", "listed = i < maps - 1"),
    "takes the first image": ("maps", "return tl.load(entry).to(tl.int64),", "return 0 * tl.load(entry).to(tl.int64),"),
    "writes whole blocks": ("maps", "inside & (y < height) & (x < width)", "inside & (x < width)"),
    "takes a map's pixels by the block's width": ("maps", "x = left + place % across", "x = left + place % block_h"),
    "repeats the edge of a mirror": ("maps", "2 * (size - 1)", "2 * size"),
    "rounds to zero": ("values", "0x7FFF + ((bits >> 16) & 1)", "0"),
    "loses NaN": ("math", "tl.where(v < low, low, v)", "tl.where(v > low, v, low)"),
    "takes another exponential": ("math", "0.5000000049", "0.5001"),
    "takes another tail": ("math", "-0.5 * (a - high) * (a + high)", "0.0 * a"),
    "leaves slopes of channels": (
        "epilogue",
        "v * of_channels(slope, c, inside)",
        "v * of_channels(slope, c * 0, inside)",
    ),
    "forgets the shift": ("pointwise", " + of_channels(shift, c, c < channels)", ""),
    "adds where it multiplies": ("pointwise", 'COMBINE == "mul"', 'COMBINE == "add"'),
    "takes a channel that counts for all for its own": ("pointwise", "c * residual_c", "c"),
    "loses NaN in a maximum": ("pool2d", " | (v != v)", ""),
    "divides by whole windows": ("pool2d", "PAD_W if COUNT_PAD else 0", "PAD_W"),
    "reads past the frame": ("pool2d", "(col >= 0) & (col < x_width)", "(col >= 0)"),
    "gathers without the halo": ("gather", "y = top - halo", "y = top"),
    "scatters past the frame": ("scatter", "inside & (y < height) & (column < width)", "inside & (column < width)"),
    "takes the near row twice": ("interpolate", "at(n, bottom, left,", "at(n, top, left,"),
    "ignores half a pixel": ("interpolate", "+ 0.5) * scale - 0.5", ") * scale"),
    "pads with zero": ("pad", "tl.float32) + value", "tl.float32)"),
    "pads at the other side": ("pad", "y - before_y", "y"),
    "shuffles columns first": (
        "shuffle",
        "y % FACTOR * FACTOR + column % FACTOR",
        "column % FACTOR * FACTOR + y % FACTOR",
    ),
    "forgets to square": ("block_moments", "d * d", "d"),
    "counts whole cells": ("cells", "tl.minimum(cell, size - i * cell)", "cell"),
    "forgets the root": ("block_norm", "norm = tl.sqrt(norm)", "norm = norm"),
    "loses NaN in a norm": ("block_norm", "tl.where(broken, total, 0.0)", "tl.where(broken, 0.0, 0.0)"),
    "weighs cells alike": ("global_avg_pool2d", "total += mean * pixels", "total += mean"),
    "forgets epsilon": ("group_norm", "+ EPS)", ")"),
    "forgets how means differ": ("group_norm", "deviations + d * d * part", "deviations"),
    "takes the first image's scale": ("group_norm", "of_image = statistics + n * 2", "of_image = statistics + n * 0"),
    "takes no maximum": ("channel_norm", "tl.where(most > center, most, center)", "center * 0 + 50.0"),
    "adds epsilon": ("channel_norm", "tl.where(total < EPS, EPS, total)", "total + EPS"),
    "convolves without the halo": (
        "conv2d",
        "(row >= 0) & (col >= 0), other=0.0)\n            b",
        "(row >= 0), other=0.0)\n            b",
    ),
    "takes the first group": ("conv2d", "group * IN\n", "0 * group\n"),
    "forgets the bias": ("conv2d", "v += of_channels(bias, c, known)", "v += 0.0"),
    "leaves the last columns": ("conv2d", "columns = (OUT + COLS - 1) // COLS", "columns = 1"),
    "leaves the last terms": ("conv2d", "for step in range(STEPS)", "for step in range(STEPS - 1)"),
    "takes rows' taps for columns'": ("conv2d", "source_of(y, tap // KERNEL_W,", "source_of(y, tap % KERNEL_W,"),
    "reaches between strides": ("conv2d", " & (source * STRIDE == reach)", ""),
    "takes the first multiplier": ("conv2d", "at(n, row, col, k // OUT,", "at(n, row, col, k * 0,"),
    "starts at another residual": ("conv2d", "at(n, y, column, c * residual_c,", "at(n, y, column, c * 0,"),
}
OF_GRADIENTS = {
    "leaves the last pixels": ("conv2d_weight_grad", "steps - first)", "steps - first - 1)"),
    "adds the first share again": ("conv2d_weight_grad", "tl.minimum(number * each, steps)", "number * 0"),
    "keeps the sums of the first share": ("conv2d_weight_grad", "((number * GROUPS", "((number * 0 * GROUPS"),
    "adds what is below the frame": ("conv2d_weight_grad", "listed & (y < height)", "listed"),
    "adds nothing from above a block": ("conv2d_weight_grad", "& (y >= 0)", "& (y > 0)"),
    "adds what is beside the map": ("conv2d_weight_grad", "& (column < x_width)", ""),
    "adds the first image": ("conv2d_weight_grad", "at(n, y, column, c, x_n", "at(n * 0, y, column, c, x_n"),
    "skips a tap": ("conv2d_weight_grad", "there & (term < terms)", "there & (term < terms - IN)"),
    "walks down the taps": ("conv2d_weight_grad", "tap % KERNEL_W * DILATION_W", "tap // KERNEL_W * DILATION_W"),
    "forgets the stride": ("conv2d_weight_grad", "ox * STRIDE_W", "ox"),
    "takes the first group's inputs": ("conv2d_weight_grad", "group.to(tl.int32) * IN + ", ""),
    "takes the first group's gradients": ("conv2d_weight_grad", "group.to(tl.int32) * OUT + k, grad_n", "k, grad_n"),
    "takes an input for every gradient": ("conv2d_weight_grad", "k // OUT", "k"),
    "takes the last of equals": ("pool2d_input_grad", "v > most", "v >= most"),
    "takes no NaN": ("pool2d_input_grad", " | (v != v)", ""),
    "gives to every tap": ("pool2d_input_grad", "best == r * KERNEL_W + s", "best >= 0"),
    "gives to the first row": ("pool2d_input_grad", "best == r * KERNEL_W + s", "best == s"),
    "leaves a window": ("pool2d_input_grad", "// STRIDE - number", "// STRIDE - number - 1"),
    "leaves a part": ("pool2d_input_grad", "longest_part(out, size)\n", "longest_part(out, size) - 1\n"),
    "gives between taps": ("pool2d_input_grad", "(tap * DILATION == reach) & ", ""),
    "gives whole gradients": ("pool2d_input_grad", "tl.div_rn(g, by +", "tl.div_rn(g, 1.0 + 0.0 * by +"),
    "gives to the near pixel alone": ("interpolate_input_grad", "tl.where(far == place, along, 0.0)", "0.0"),
    "looks for near pixels alone": ("interpolate_input_grad", "such = far >= place", "such = near >= place"),
    "leaves the last row": ("interpolate_input_grad", "range(most_of(rows))", "range(most_of(rows) - 1)"),
    "weighs columns as rows": ("interpolate_input_grad", "weight = down * ", "weight = down * down + 0.0 * "),
}


def check_samples(op: str | None = None) -> None:
    """Of every op, or of one."""
    with backend("triton"):
        for case in samples():
            if op in (None, case.oracle.__name__):
                check_contract(case)
        for case in samples(torch.bfloat16):
            if case.oracle is ops.add:
                check_contract(case)


def check_sampled_gradients(kind: str = "") -> None:
    """Of every kernel, or of those of "conv2d", "pool2d" or "interpolate"."""
    for case in gradients():
        op = case.oracle.__name__
        if kind in op:
            # An average, or a blended pixel, adds at most 64 terms, which are 2 at most.
            allowed = tolerance(64, torch.tensor(2.0)) if "avg" in op or op == "interpolate" else 0.0
            check_gradients(case, allowed, torch.Generator().manual_seed(8), name="triton")


@pytest.fixture
def with_fault(tmp_path, monkeypatch, triton_device):
    """Lets the backend be another folder's, for the test."""
    assert triton_device.type == "cpu"  # faults read where they should not

    def plant(file, there, instead):
        shutil.copytree(SOURCES, tmp_path / "triton", ignore=shutil.ignore_patterns("__pycache__"))
        source = tmp_path / "triton" / f"{file}.py"
        assert there in source.read_text(), f"{file}.py has no {there!r} any more"
        source.write_text(source.read_text().replace(there, instead))
        modules = [found.name for found in pkgutil.iter_modules([str(SOURCES)])]
        for module in modules:
            importlib.import_module(f"{NAME}.{module}")
        for module in modules:
            monkeypatch.delitem(sys.modules, f"{NAME}.{module}")
            monkeypatch.delattr(package, module)
        monkeypatch.setattr(package, "__path__", [str(source.parent)])
        backends.implementation.cache_clear()

    yield plant
    monkeypatch.undo()
    backends.implementation.cache_clear()


def test_without_a_fault_the_samples_pass():
    check_samples()
    check_sampled_gradients()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, with_fault):
    with_fault(*FAULTS[fault])
    file = FAULTS[fault][0]
    alone = file in ops.__all__ and file not in ("conv2d", "gather", "scatter")
    with pytest.raises(AssertionError):
        check_samples(file if alone else None)


@pytest.mark.parametrize("fault", OF_GRADIENTS)
def test_a_fault_in_a_gradient_is_caught(fault, with_fault):
    with_fault(*OF_GRADIENTS[fault])
    with pytest.raises(AssertionError, match="elements differ"):
        check_sampled_gradients(OF_GRADIENTS[fault][0].split("_")[0])
