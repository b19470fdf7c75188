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
def there(request: pytest.FixtureRequest, name: str) -> Iterator[Callable]:
    """Makes an op run on the backend `name`, the parameter of the test."""
    if name == "cpu":
        yield lambda call: call
        return
    device: torch.device = request.getfixturevalue(f"{name}_device")
    with backend(name):
        yield lambda call: on_device(call, device)


@pytest.fixture
def examples(name: str) -> settings:
    """As many as are given to the backend `name`; a search for more stays one."""
    return settings(max_examples=int(settings().max_examples * SHARES[name]))
