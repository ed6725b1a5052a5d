from __future__ import annotations

import pytest

from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.fold_shuffles import fold_shuffles
from tests.plan.graphs import Draft, kinds


def shuffle(
    d: Draft, x: str, seen: tuple[int, ...], axes: tuple[int, ...], result: tuple[int, ...] | None = None
) -> str:
    d.op("view", "apart", [x], seen)
    d.op("permute", "turned", ["apart"], [seen[a] for a in axes], axes=axes)
    return d.op("view", "together", ["turned"], result or d.values[x].shape)


@pytest.mark.parametrize(
    ("n", "seen", "axes"),
    [(1, (3, 4, 30), (1, 0, 2)), (2, (2, 3, 4, 5, 6), (0, 2, 1, 3, 4)), (2, (2, 3, 4, 30), (0, 2, 1, 3))],
)
def test_interleaved_groups(n: int, seen: tuple[int, ...], axes: tuple[int, ...]) -> None:
    d = Draft()
    g = fold_shuffles(d.graph(shuffle(d, d.input("x", n, 12, 5, 6), seen, axes)))
    assert kinds(g) == ["channel_shuffle"] and g.groups[0].anchor.attrs == {"groups": 3}
    assert g.groups[0].inputs == ("x",) and g.outputs == ("together",)
    assert fold_shuffles(g) == g


@pytest.mark.parametrize(
    ("seen", "axes", "result"),
    [
        ((3, 4, 30), (1, 2, 0), None),
        ((12, 5, 6), (0, 2, 1), None),
        ((4, 3, 2, 15), (0, 2, 1, 3), None),
        ((3, 4, 30), (1, 0, 2), (12, 5, 6)),
        ((6, 4, 15), (1, 0, 2), None),
    ],
)
def test_other_transposes_stay(seen: tuple[int, ...], axes: tuple[int, ...], result: tuple[int, ...] | None) -> None:
    d = Draft()
    g = fold_shuffles(d.graph(shuffle(d, d.input("x", 1, 12, 5, 6), seen, axes, result)))
    assert kinds(g) == ["view", "permute", "view"]


def test_one_that_others_read_stays() -> None:
    d = Draft()
    y = shuffle(d, d.input("x", 1, 12, 5, 6), (3, 4, 30), (1, 0, 2))
    assert kinds(fold_shuffles(d.graph(y, "turned"))) == ["view", "permute", "view"]


def test_it_keeps_the_layout_of_convolutions() -> None:
    d = Draft()
    x = d.conv("a", d.input("x", 1, 8, 5, 6), 16, 1, 0)
    y = d.conv("b", shuffle(d, x, (2, 8, 30), (1, 0, 2)), 8, 3, 1)
    g = assign_layouts(fold_shuffles(d.graph(y)), 8)
    assert kinds(g) == ["transform", "conv2d", "channel_shuffle", "conv2d", "transform"]
    assert g.values["together"].layout.block == 8 and g.values["together"].layout.halo == (1, 1, 1, 1)
