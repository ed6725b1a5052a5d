from __future__ import annotations

import pytest

from evo_tvm.graph import Graph, Part
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.storage import Placement
from tests.plan.graphs import Draft, kinds


def placed(d: Draft, *outputs: str) -> Graph:
    return place_concats(assign_layouts(d.graph(*outputs), 8))


def two_convs(size: int = 4) -> tuple[Draft, str, str]:
    d = Draft()
    x = d.input("x", 2, 8, size, size)
    return d, d.conv("a", x, 8, 1, 0), d.conv("b", x, 16, 1, 0)


def test_convolutions_write_into_the_whole() -> None:
    d, a, b = two_convs()
    y = d.op("concat", "y", [a, b], (2, 24, 4, 4), axis=1)
    g = placed(d, y)
    assert g.parts == {"a": Part("y", 0), "b": Part("y", 8)}
    assert kinds(g) == ["transform", "conv2d", "conv2d", "join", "transform"]


def test_nested() -> None:
    d, a, b = two_convs()
    y = d.op("concat", "y", [a, b], (2, 24, 4, 4), axis=1)
    z = d.op("concat", "z", [d.conv("c", y, 8, 3, 1), y], (2, 32, 4, 4), axis=1)
    g = placed(d, z)
    assert g.parts["y"] == Part("z", 8) and g.parts["a"] == Part("y", 0)
    assert {g.values[n].layout.halo for n in "abyzc"} == {(1, 1, 1, 1)}
    placement = Placement(g)
    assert placement.root("b") == "z" and placement.view("b").offset_bytes == ((8 + 8) // 8 * 36 * 8 + 7 * 8) * 4


def test_a_second_claim_is_copied() -> None:
    d, a, b = two_convs()
    y = d.op("concat", "y", [a, b], (2, 24, 4, 4), axis=1)
    z = d.op("concat", "z", [b, b], (2, 32, 4, 4), axis=1)
    g = placed(d, y, z)
    assert g.parts["b"] == Part("y", 8)
    assert sorted(n for n, p in g.parts.items() if p.whole == "z") == ["b@z.0", "b@z.16"]


@pytest.mark.parametrize("viewed", ["a", "b"])
def test_what_is_viewed_is_copied(viewed: str) -> None:
    d, a, b = two_convs(1)
    y = d.op("concat", "y", [a, b], (2, 24, 1, 1), axis=1)
    g = placed(d, d.conv("z", y, 8, 1, 0), viewed)
    assert viewed not in g.parts
    view = next(k for k in g.groups if k.output == f"{viewed}@plain")
    assert view.anchor.kind == "view" and Placement(g).root(view.output) == viewed


def test_a_border_that_a_part_brings_makes_a_copy_of_a_view() -> None:
    d, a, b = two_convs(1)
    y = d.op("concat", "y", [a, b], (2, 24, 1, 1), axis=1)
    g = placed(d, y, d.conv("z", a, 8, 3, 1))
    assert any(g.values["y"].layout.halo)
    assert next(k for k in g.groups if k.output == "y@plain").anchor.kind == "transform"


def test_plain_concats_stay_kernels() -> None:
    d = Draft()
    y = d.op("concat", "y", [d.input("p", 1, 3, 4, 4), d.input("q", 1, 8, 4, 4)], (1, 11, 4, 4), axis=1)
    g = placed(d, y)
    assert kinds(g) == ["concat"] and not g.parts
