from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.graph import Graph
from evo_tvm.plan.fold_permutes import fold_permutes, reshaped
from evo_tvm.plan.storage import permuted
from tests.plan.graphs import Draft, kinds


def permute(d: Draft, name: str, x: str, *axes: int) -> str:
    shape = d.values[x].shape
    return d.op("permute", name, [x], [shape[a] for a in axes], axes=axes)


def matmul(d: Draft, name: str, left: str, right: str) -> str:
    a, b = d.values[left].shape, d.values[right].shape
    attrs = {}
    for side, shape in (("left", a), ("right", b)):
        attrs |= {f"{side}_shape": shape, f"{side}_strides": permuted(shape, tuple(range(len(shape))))[1]}
    return d.op("matmul", name, [left, right], (*a[:-1], b[-1]), **attrs)


def attrs(graph: Graph, name: str) -> dict[str, tuple[int, ...]]:
    return dict(next(g for g in graph.groups if g.name == name).anchor.attrs)


def test_operands_are_read_where_they_lie() -> None:
    d = Draft()
    q, k = d.input("q", 1, 19, 33), d.input("k", 1, 19, 33)
    q3 = d.op("view", "q3", [q], (19, 3, 11))
    q4 = d.op("view", "q4", [permute(d, "qp", q3, 1, 0, 2)], (1, 3, 19, 11))
    k2 = d.op("view", "k2", [k], (19, 33))
    k4 = d.op("view", "k4", [permute(d, "kp", k2, 1, 0)], (1, 3, 11, 19))
    y = matmul(d, "y", q4, k4)
    g = fold_permutes(d.graph(y))
    assert kinds(g) == ["matmul"] and g.groups[0].inputs == ("q", "k")
    assert attrs(g, "y")["left_strides"][1:] == (11, 33, 1)
    assert attrs(g, "y")["right_strides"][1:] == (11, 1, 33)
    assert g.values["y"].shape == (1, 3, 19, 19)


def test_the_result_is_written_where_the_transpose_would_put_it() -> None:
    d = Draft()
    y = matmul(d, "y", d.input("a", 2, 3, 5, 7), d.input("b", 2, 3, 7, 4))
    z = permute(d, "z", y, 0, 2, 1, 3)
    g = fold_permutes(d.graph(d.op("view", "v", [z], (2, 5, 12))))
    assert kinds(g) == ["matmul", "view"] and g.groups[0].outputs == ("z",)
    assert attrs(g, "y")["output_strides"] == (60, 4, 12, 1)


def test_others_keep_their_transposes() -> None:
    d = Draft()
    x = d.input("x", 3, 5, 7)
    turned = permute(d, "turned", x, 0, 2, 1)
    y = matmul(d, "y", x, turned)
    g = fold_permutes(d.graph(y, turned, permute(d, "z", y, 0, 2, 1)))
    assert kinds(g) == ["permute", "matmul", "permute"]  # read twice; an output; of an output


def test_a_reshape_that_mixes_transposed_axes() -> None:
    d = Draft()
    mixed = d.op("view", "mixed", [permute(d, "p", d.input("x", 6, 10), 1, 0)], (4, 15))
    g = fold_permutes(d.graph(matmul(d, "y", mixed, d.input("w", 15, 8))))
    assert kinds(g) == ["permute", "view", "matmul"] and g.groups[-1].inputs == ("mixed", "w")


def test_twice_is_as_once() -> None:
    d = Draft()
    y = matmul(d, "y", d.input("a", 5, 7), permute(d, "bt", d.input("b", 4, 7), 1, 0))
    g = fold_permutes(d.graph(y))
    assert fold_permutes(g) == g and kinds(g) == ["matmul"]


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((0, 1, 2, 3), (24, 35)),
        ((2, 0, 1, 3), (5, 24, 7)),
        ((2, 0, 1, 3), (1, 5, 2, 12, 1, 7)),
        ((0, 2, 1, 3), (4, 35, 6)),
        ((3, 2, 1, 0), (7, 5, 24)),
        ((0, 2, 1, 3), (20, 42)),
        ((1, 0, 2, 3), (24, 35)),
    ],
)
def test_reshaped_agrees_with_numpy(axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """It finds the same strides as numpy, and none where numpy has to copy."""
    data = np.arange(4 * 6 * 5 * 7, dtype=np.int32).reshape(4, 6, 5, 7)
    seen = reshaped(permuted(data.shape, axes), shape)
    moved = data.transpose(axes)
    if seen is None:
        assert not np.shares_memory(moved.reshape(shape), data)
    else:
        strided = np.lib.stride_tricks.as_strided(data, shape, [4 * s for s in seen[1]])
        assert np.array_equal(strided, moved.reshape(shape))
