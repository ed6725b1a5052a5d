"""rebuild_channel_shuffle: gathers that deal out groups in turn."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.rebuild_channel_shuffle import rebuild_channel_shuffle
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, module


def gather(places: object, axis: int = 1) -> Body:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.take(x, relax.const(np.asarray(places, "int64")), axis)

    return body


def shuffled(channels: int, groups: int) -> list[int]:
    return [int(place) for place in np.arange(channels).reshape(groups, -1).T.reshape(-1)]


@pytest.mark.parametrize(
    ("groups", "axis", "shape"), [(2, 1, (2, 6, 3, 3)), (3, -3, (2, 6, 3, 3)), (2, 0, (4,)), (5, 1, (2, 15))]
)
def test_rebuilds(groups: int, axis: int, shape: tuple[int, ...]) -> None:
    before = module(gather(shuffled(shape[axis], groups), axis), shape)
    assert_rewrites(rebuild_channel_shuffle, before, ["reshape", "permute_dims", "reshape"], rtol=0)


@pytest.mark.parametrize(
    "places",
    [
        [0, 1, 2, 3, 4, 5],
        [5, 4, 3, 2, 1, 0],
        [0, 3, 1, 4, 2],
        [0, 3, 1, 4, 5, 2],
        [0, 4, 1, 5, 2, 3],
        [[0, 3, 1, 4, 2, 5]],
    ],
    ids=["in order", "backwards", "part", "no shuffle", "groups that do not divide", "matrix"],
)
def test_leaves(places: object) -> None:
    assert_leaves(rebuild_channel_shuffle, module(gather(places), (2, 6, 3)))
