"""The contract, for every op, on arbitrary shapes, blocks and layouts, under poison."""

from __future__ import annotations

import pytest
from hypothesis import given

from sparseblock import ops
from sparseblock.testing import check_contract, check_in_place, check_independence, strategies

OPS = sorted(strategies.CASES)


def test_every_op_has_a_strategy():
    assert sorted([*OPS, "cat_slices", "gather", "scatter"]) == sorted(ops.__all__)


@pytest.mark.parametrize("op", OPS)
def test_active_blocks_are_dense_and_the_rest_keeps_its_bits(op):
    @given(strategies.CASES[op](), strategies.guards())
    def check(case, guard):
        check_contract(case, guard)

    check()


@pytest.mark.parametrize("op", OPS)
def test_a_block_depends_on_nothing_but_its_input(op):
    @given(strategies.CASES[op]())
    def check(case):
        check_independence(case)

    check()


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("activation", "x"),
        ("add", "x"),
        ("add", "y"),
        ("affine", "x"),
        ("group_norm", "x"),
        ("mul", "x"),
        ("mul", "y"),
        ("conv2d", "residual"),
        ("conv_transpose2d", "residual"),
    ],
)
def test_in_place(op, name):
    @given(strategies.CASES[op]().filter(lambda case: name in case.maps and case.maps[name].shape == case.out_shape))
    def check(case):
        check_in_place(case, name)

    check()
