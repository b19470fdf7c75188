"""What sparseblock.dense computes on the cuda backend is held to the reference, which catches faults in its kernels."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from planted import check_caught, passed

import sparseblock
from sparseblock import dense

# (file, what stands there, what is put there instead)
FAULTS = {
    "averages_past_the_map": ("area_mean.cu", "minimum(window, x.h - top)", "(int64_t)window"),
    "divides_by_whole_windows": ("area_mean.cu", "/ (height * width)", "/ (window * window)"),
    "calls_everything_finite": ("area_mean.cu", "*finite = 0;", "*finite = 1;"),
    "takes_the_first_channel": ("area_mean.cu", "c * x.stride_c", "0 * x.stride_c"),
    "leaves_the_second_round": ("area_mean.cu", "first += AT_ONCE * WARP", "first += vectors"),
    "repeats_the_first_average": ("area_mean.cu", "minimum(row, last_row)", "(row > last_row ? 0 : row)"),
    "forgets_the_square_of_the_mean": ("channel_moments.cu", " - mean * mean", ""),
    "forgets_the_first_value": ("channel_moments.cu", "first + mean", "mean"),
    "takes_the_first_channels_pixels": ("channel_moments.cu", "x + j * pixels", "x + 0 * pixels"),
    "sees_another_exposure": ("picture_distance.cu", " - means[j]", ""),
    "bounds_nothing": ("picture_distance.cu", "apart / energy < most ? apart / energy : most", "apart / energy"),
    "takes_the_energy_of_one_channel": ("picture_distance.cu", "energy += all_sum", "energy = all_sum"),
    "samples_the_first_channel": ("sample.cu", "[c * x.stride_c]", "[0 * x.stride_c]"),
    "samples_rows_for_columns": ("sample.cu", "xs[col]", "xs[col ? col - 1 : 0]"),
    "keeps_no_level": ("policy_level.cu", "before == before", "false"),
    "adds_channels_up": ("policy_level.cu", " / in.channels", ""),
    "does_not_standardise": ("policy_inputs.h", " / (float)deviation[c]", ""),
    "forgets_the_mean": ("policy_inputs.h", " - (float)mean[c]", ""),
    "calls_every_block_active": ("policy_inputs.cu", "in.active[block] ? 0.5f : -0.5f", "0.5f"),
    "calls_every_block_young": ("policy_inputs.cu", "(float)in.age[block]", "0.0f"),
    "enlarges_the_first_sample": ("policy_inputs.cu", "feature(by_step(y), by_step(x)", "feature(0, by_step(x)"),
    "does_not_scale": ("policy_inputs.cu", "log_scaled(v * scale)", "log_scaled(v)"),
    "forgets_the_number_of_features": ("policy_inputs.cu", " / log((float)k)", ""),
    "reads_logarithms_as_values": ("policy_inputs.cu", "(in.logarithms ? exp(v) : v)", "v"),
    "convolves_without_padding_above": ("policy_conv2d.cu", "2 * top - 1 + y", "2 * top + y"),
    "convolves_past_the_map": ("policy_conv2d.cu", "from_x >= 0 && from_x < 2 * w", "from_x >= 0"),
    "forgets_the_bias": ("policy_conv2d.cu", "bias[channel] : 0.0f", "0.0f : 0.0f"),
    "forgets_the_relu": ("policy_conv2d.cu", "sum < 0.0f ? 0.0f : sum", "sum"),
    "takes_the_first_input_channels": ("policy_conv2d.cu", "* c + begin) * TAPS", "* c) * TAPS"),
    "brings_what_others_still_read": ("policy_conv2d.cu", "barrier(); /* what", "/* what"),
    "does_not_wait_for_what_it_brings": ("policy_conv2d.cu", "wait_copies<0>();", ""),
    "forgets_the_linear_bias": ("policy_logits.cu", " + weight[k + s]", ""),
    "takes_the_summary_of_the_first_block": ("policy_logits.cu", "* blocks + i]", "* blocks]"),
    "bounds_no_logit": ("policy_logits.cu", "bound * sb::tanh(linear / bound)", "linear"),
    "copies_in_any_case": ("copy_where.cu", "if (!*flag) return;", ""),
    "copies_whole_words_alone": ("copy_where.cu", ") % 16) copy_words", ") % 1) copy_words"),
    "copies_the_first_stretch": ("copy_where.cu", "copies.from[i], bytes);\n    }", "copies.from[0], bytes);\n    }"),
    "keeps_sums_where_others_still_read": ("moments.h", "barrier(); /* what was summed before has been read */", ""),
}


def checks():
    """Every function of sparseblock.dense that has a kernel, on sizes that divide by nothing."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    frame = normal(2, 3, 37, 48)
    broken = frame.clone()
    broken[1, 2, 36, 47] = float("inf")
    for x, window in ((frame, 8), (frame[..., :45], 20), (broken, 8)):
        yield partial(same, "area_mean", x, window, 6, 6)
    a, b = normal(2, 1, 3, 37, 41) * torch.tensor([1.0, 2.0, 5.0])[:, None, None]
    yield partial(same, "channel_moments", a + 100)
    yield partial(same, "picture_distance", a, b + 3, 2.0)
    yield partial(same, "sample", normal(1, 5, 9, 7), torch.tensor([0, 8, 3]), torch.tensor([6, 2]))
    small, executed, features = normal(1, 3, 16, 24) + 1, normal(1, 3, 16, 24), normal(1, 5, 4, 6)
    active, age = torch.tensor([[True, False, True], [False, False, True]]), torch.arange(6).view(2, 3)
    scale = {"mean": [0.5, -1.0, 2.0], "deviation": [0.5, 2.0, 3.0], "momentum": 0.9}
    for level, logarithms in ((float("nan"), True), (0.7, False)):
        read = features.log_softmax(1) if logarithms else features
        options = {**scale, "level": level, "logarithms": logarithms}
        yield partial(same, "policy_inputs", small, executed, read, active, age, **options)
    # So many channels that they come in turns.
    widths, c, summaries = [8, 6, 4], 90, 2
    size = sum(k * (c_in * 16 + 1) for k, c_in in zip(widths, (c, *widths), strict=False)) + widths[-1] + summaries + 1
    inputs = normal(size) / 8, normal(16, 24, c), normal(summaries, 2, 3)
    yield partial(same, "policy_logits", *inputs, widths, 2.0)
    yield check_copies


def same(function, *given, **options):
    """What the cuda backend gives is the reference's, but for float32's rounding."""
    actual = getattr(dense, function)(*given, **options)
    with sparseblock.backend("reference"):
        double = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given]
        expected = getattr(dense, function)(*double, **options)
    if function == "policy_logits":
        actual, expected = actual[0], expected[0]  # the rest is for the gradient alone
    results = [x if isinstance(x, tuple) else (x,) for x in (actual, expected)]
    for one, other in zip(*results, strict=True):
        # Sums of at most 90 * 16 products of numbers of about 1, of which a logit is one after three layers.
        bound = 3 * 90 * 16 * torch.finfo(torch.float32).eps
        torch.testing.assert_close(one.double(), other.double(), rtol=bound, atol=bound, equal_nan=True)


def check_copies():
    sizes = (1, 16, 300, 7)
    for holds in (True, False):
        into, new = ([torch.full((size,), value, dtype=torch.uint8) for size in sizes] for value in (0, 1))
        new = [x + number for number, x in enumerate(new)]
        expected = [x.clone() for x in (new if holds else into)]
        dense.copy_where(torch.tensor(holds), into, new)
        assert all(map(torch.equal, into, expected))


@pytest.fixture(scope="module")
def passing(emulated_library):
    return list(passed(checks(), emulated_library))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, passing, emulated_library, tmp_path):
    check_caught(FAULTS[fault], passing, emulated_library, tmp_path)
