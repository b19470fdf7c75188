"""The contract, for every op, on arbitrary shapes, blocks and layouts, under poison."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from sparseblock import backends, ops
from sparseblock.testing import check_contract, check_in_place, check_independence, strategies

OPS = sorted(strategies.CASES)
IN_PLACE = [
    ("activation", "x"),
    ("add", "x"),
    ("add", "y"),
    ("affine", "x"),
    ("group_norm", "x"),
    ("layer_norm", "x"),
    ("normalize", "x"),
    ("softmax", "x"),
    ("mul", "x"),
    ("mul", "y"),
    ("conv2d", "residual"),
    ("conv_transpose2d", "residual"),
]
BACKENDS = ("cpu", "cuda", "triton")


def on_every_backend(*parameters):
    """These, each with every backend that has its op: its name and what makes a case run on it."""
    return [
        pytest.param(*(given if isinstance(given, tuple) else (given,)), name, id=f"{given}-{name}")
        for given in parameters
        for name in BACKENDS
        if backends.has(name, given[0] if isinstance(given, tuple) else given)
    ]


@pytest.fixture
def computing(there, name):
    """Makes a case run on the backend of the test. All but the cpu's round a convolution's weights to what maps store:
    its case gets such weights.
    """

    def on_backend(case):
        keywords = dict(case.keywords)
        if name != "cpu" and case.oracle in (ops.conv2d, ops.conv_transpose2d):
            keywords["weight"] = keywords["weight"].to(case.dtype)
        return replace(case, call=there(case.call), keywords=keywords)

    return on_backend


def test_every_op_has_a_strategy():
    assert sorted([*OPS, "cat_slices", "gather", "scatter"]) == sorted(ops.__all__)


@pytest.mark.parametrize(("op", "name"), on_every_backend(*OPS))
def test_active_blocks_are_dense_and_the_rest_keeps_its_bits(op, name, computing, examples):
    @examples
    @given(strategies.CASES[op](), strategies.guards())
    def check(case, guard):
        check_contract(computing(case), guard)

    check()


@pytest.mark.parametrize(("op", "name"), on_every_backend(*OPS))
def test_a_block_depends_on_nothing_but_its_input(op, name, computing, examples):
    @examples
    @given(strategies.CASES[op]())
    def check(case):
        check_independence(computing(case))

    check()


@pytest.mark.parametrize(("op", "map", "name"), on_every_backend(*IN_PLACE))
def test_in_place(op, map, name, computing, examples):
    @examples
    @given(strategies.CASES[op]().filter(lambda case: map in case.maps and case.maps[map].shape == case.out_shape))
    def check(case):
        check_in_place(computing(case), map)

    check()
