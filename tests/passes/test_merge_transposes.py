"""merge_transposes: as few axes as there can be, and one transpose where reshapes kept two apart."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.merge_transposes import merge_transposes
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module


def transposed(axes: list[int]) -> Any:
    return lambda emit, x: op.tanh(emit(op.permute_dims(emit(op.exp(x)), axes)))


@pytest.mark.parametrize(
    ("shape", "axes", "merged"),
    [
        ((1, 3, 4, 5), [0, 2, 3, 1], [1, 0]),
        ((2, 3, 4, 5), [0, 2, 3, 1], [0, 2, 1]),
        ((2, 1, 4, 5), [3, 0, 1, 2], [1, 0]),
        ((2, 3, 4, 1, 5), [4, 2, 3, 0, 1], [2, 1, 0]),
    ],
)
def test_merges_axes(shape: tuple[int, ...], axes: list[int], merged: list[int]) -> None:
    before = module(transposed(axes), shape)
    after = assert_rewrites(merge_transposes, before, ["exp", "reshape", "permute_dims", "reshape", "tanh"], rtol=0)
    assert [int(axis) for axis in calls(after, "permute_dims")[0].attrs.axes] == merged


def test_keys_of_attention() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        heads = emit(op.permute_dims(emit(op.reshape(x, (1, 6, 1, 2, 4))), [2, 0, 3, 1, 4]))
        return op.permute_dims(emit(op.reshape(heads, (1, 2, 6, 4))), [0, 1, 3, 2])

    after = assert_rewrites(merge_transposes, module(body, (1, 6, 8)), ["reshape", "permute_dims", "reshape"], rtol=0)
    assert [int(axis) for axis in calls(after, "permute_dims")[0].attrs.axes] == [1, 0]


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 3), [1, 0]), ((2, 3, 4), [0, 2, 1]), ((2, 3, 4, 5), [3, 2, 1, 0]), ((1, 3, 4), [0, 1, 2])]
)
def test_leaves(shape: tuple[int, ...], axes: list[int]) -> None:
    # the last moves nothing at all: that is for remove_no_ops
    assert_leaves(merge_transposes, module(transposed(axes), shape))
