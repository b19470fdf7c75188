"""What the library is tested with, for kernels of your own: strategies, oracle comparison, poison, the contract.

Needs hypothesis; `import sparseblock` does not load it.

    @given(sparseblock.testing.strategies.conv2d())
    def test_conv2d(case):
        sparseblock.testing.check_contract(dataclasses.replace(case, call=my_conv2d))
"""

from __future__ import annotations

from sparseblock.testing import cases, strategies, winograd
from sparseblock.testing.case import Case, channels_last
from sparseblock.testing.compare import assert_identical, assert_matches, tolerance, winograd_tolerance
from sparseblock.testing.contract import check_contract, check_in_place, check_independence
from sparseblock.testing.device import on_device
from sparseblock.testing.poison import NAN, Guard, Guarded, guarded, poisoned

__all__ = [
    "NAN",
    "Case",
    "Guard",
    "Guarded",
    "assert_identical",
    "assert_matches",
    "cases",
    "channels_last",
    "check_contract",
    "check_in_place",
    "check_independence",
    "guarded",
    "on_device",
    "poisoned",
    "strategies",
    "tolerance",
    "winograd",
    "winograd_tolerance",
]
