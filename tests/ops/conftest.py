"""How the tests of ops run on each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import settings

from sparseblock import backend
from sparseblock.testing import on_device

SHARES = {"cpu": 1.0, "cuda": 0.3, "triton": 0.1}  # of the examples: what is emulated or interpreted takes its time


@pytest.fixture
def device(request: pytest.FixtureRequest, name: str) -> torch.device:
    """Where the backend `name` computes, the parameter of the test."""
    return torch.device("cpu") if name == "cpu" else request.getfixturevalue(f"{name}_device")


@pytest.fixture
def there(device: torch.device, name: str) -> Iterator[Callable]:
    """Makes an op run on the backend `name`."""
    if name == "cpu":
        yield lambda call: call
        return
    with backend(name):
        yield lambda call: on_device(call, device)


@pytest.fixture
def examples(name: str) -> settings:
    """As many as are given to the backend `name`; a search for more stays one."""
    return settings(max_examples=int(settings().max_examples * SHARES[name]))
