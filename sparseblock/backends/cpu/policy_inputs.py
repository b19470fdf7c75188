"""policy_inputs of the cpu backend: csrc/cpu/policy_inputs.cpp."""

from __future__ import annotations

from ctypes import byref, c_float

from sparseblock.backends.cpu import native


def policy_inputs(
    frame, executed, mean, deviation, features, active, age, level, momentum, logarithms, pixels, summary
) -> float:
    frame, executed, active, age = (x.contiguous() for x in (frame, executed, active, age))
    rows, cols = active.shape
    floats = c_float * len(mean)
    inputs = native.PolicyInputs(
        frame.data_ptr(), executed.data_ptr(), floats(*mean), floats(*deviation), active.data_ptr(), age.data_ptr(),
        frame.shape[1], rows, cols, frame.shape[2] // rows, logarithms, momentum,
    )  # fmt: skip
    new_level = c_float(level)
    native.lib().sb_policy_inputs_run(
        byref(inputs), byref(native.plane_of(features)), pixels.data_ptr(), summary.data_ptr(), byref(new_level)
    )
    return new_level.value
