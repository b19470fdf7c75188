"""policy_inputs of the cuda backend: csrc/cuda/policy_level.cu and policy_inputs.cu."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int32, c_void_p

import torch

from sparseblock.backends.cpu import native
from sparseblock.backends.cuda.launch import launch


class PolicyInputs(ctypes.Structure):
    """sb::PolicyInputs of csrc/cuda/policy_inputs.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("frame", "executed", "mean", "deviation", "active", "age")),
        *((name, c_int32) for name in ("channels", "rows", "cols", "side", "logarithms")),
    )


def policy_inputs(
    frame, executed, mean, deviation, features, active, age, level, momentum, logarithms, pixels, summary
) -> torch.Tensor:
    device, (rows, cols) = frame.device, active.shape
    maps = [x.contiguous() for x in (frame, executed)]
    read = [*maps, mean, deviation, active.contiguous(), age.contiguous()]
    given = PolicyInputs(*(x.data_ptr() for x in read), frame.shape[1], rows, cols, frame.shape[2] // rows, logarithms)
    updated = torch.empty_like(level)
    before, after = (c_void_p(x.data_ptr()) for x in (level, updated))
    launch("policy_level", work=1, arguments=[given, before, c_double(momentum), after], device=device)
    written = (c_void_p(x.data_ptr()) for x in (pixels, summary))
    arguments = [given, native.plane_of(features), after, *written]
    launch("policy_inputs", work=rows * cols, arguments=arguments, device=device)
    return updated
