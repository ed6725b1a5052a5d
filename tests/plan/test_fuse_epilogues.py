from __future__ import annotations

import pytest

from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from tests.plan.graphs import Draft, kinds


def test_a_chain_joins_its_convolution() -> None:
    d = Draft()
    y = d.conv("y", d.input("x", 1, 8, 4, 4), 8)
    d.same("relu", "b", d.same("add", "a", y, d.constant("c", 1, 8, 1, 1)))
    fused = fuse_epilogues(d.graph("b"))
    assert kinds(fused) == ["conv2d+add+relu"]
    assert fused.groups[0].inputs == ("x", "y.w", "c") and fused.groups[0].outputs == ("b",)
    assert [op.args for op in fused.groups[0].ops] == [(0, 1), (3, 2), (4,)]
    assert fuse_epilogues(fused) == fused


def test_a_residual_joins_the_later_convolution() -> None:
    d = Draft()
    x = d.input("x", 1, 8, 4, 4)
    first, second = d.conv("first", x, 8), d.conv("second", x, 8)
    d.same("add", "sum", first, second)
    fused = fuse_epilogues(d.graph("sum"))
    assert kinds(fused) == ["conv2d", "conv2d+add"]
    assert fused.groups[1].inputs == ("x", "second.w", "first")


def test_a_value_used_twice_by_one_operator() -> None:
    d = Draft()
    y = d.conv("y", d.input("x", 1, 8, 4, 4), 8)
    d.same("multiply", "z", y, d.same("sigmoid", "s", y))
    fused = fuse_epilogues(d.graph("z"))
    assert kinds(fused) == ["conv2d", "sigmoid+multiply"] or kinds(fused) == ["conv2d+sigmoid+multiply"]


def test_the_operands_own_input_keeps_one_place() -> None:
    d = Draft()
    x = d.input("x", 1, 8, 4, 4)
    d.same("add", "z", d.conv("y", x, 8), x)
    fused = fuse_epilogues(d.graph("z"))
    assert fused.groups[0].inputs == ("x", "y.w")
    assert fused.groups[0].ops[1].args == (2, 0)


@pytest.mark.parametrize("case", ["output", "other reader", "broadcast up"])
def test_it_must_not_fire(case: str) -> None:
    d = Draft()
    y = d.conv("y", d.input("x", 1, 8, 4, 4), 8)
    outputs = ["z"]
    if case == "broadcast up":
        d.op("add", "z", [y, d.input("r", 2, 8, 4, 4)], (2, 8, 4, 4))
    else:
        d.same("relu", "z", y)
    if case == "output":
        outputs.append(y)
    if case == "other reader":
        outputs.append(d.conv("w", y, 8))
    assert kinds(fuse_epilogues(d.graph(*outputs)))[:2] == (
        ["conv2d", "relu"] if case != "broadcast up" else ["conv2d", "add"]
    )


def test_not_behind_a_view_or_a_tir_function() -> None:
    d = Draft()
    v = d.op("view", "v", [d.input("x", 2, 8)], (16,))
    t = d.op("tir", "t", [d.same("relu", "r", v)], (16,))
    d.same("exp", "e", t)
    assert kinds(fuse_epilogues(d.graph("e"))) == ["view", "relu", "tir", "exp"]


@pytest.mark.parametrize(
    ("operand", "fits"),
    [((2, 3, 6), True), ((6,), True), ((1, 1, 6), True), ((1,), True), ((3, 1), False), ((3, 6), False)],
)
def test_dense_takes_rows_and_scalars(operand: tuple[int, ...], fits: bool) -> None:
    d = Draft()
    y = d.op("dense", "y", [d.input("x", 2, 3, 8), d.constant("w", 8, 6)], (2, 3, 6))
    d.same("add", "z", y, d.input("o", *operand))
    assert (len(fuse_epilogues(d.graph("z")).groups) == 1) == fits
