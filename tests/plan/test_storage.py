from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.graph import Graph, Layout, Part, Value
from evo_tvm.plan.storage import Placement, View, physical_shape, storage_bytes
from tests.plan.graphs import Draft


def value(name: str, channels: int, block: int, halo: tuple[int, int, int, int], n: int = 2) -> Value:
    return Value(name, (n, channels, 3, 5), "float32", layout=Layout(block, halo))


def graph(*values: Value, **parts: Part) -> Graph:
    return Graph({v.name: v for v in values}, (), (), (), parts)


@pytest.mark.parametrize(
    ("channels", "block", "halo", "physical", "size"),
    [
        (20, 1, (0, 0, 0, 0), (2, 20, 3, 5), 600),
        (20, 8, (0, 0, 0, 0), (2, 3, 3, 5, 8), 720),
        (20, 8, (1, 2, 0, 1), (2, 3, 3, 5, 8), 2 * 3 * 4 * 8 * 8),
        (3, 1, (1, 1, 1, 1), (2, 3, 3, 5), 2 * 3 * 5 * 7),
    ],
)
def test_sizes(
    channels: int, block: int, halo: tuple[int, int, int, int], physical: tuple[int, ...], size: int
) -> None:
    v = value("v", channels, block, halo)
    assert physical_shape(v) == physical and storage_bytes(v) == size * 4


def elements(view: View, total_bytes: int) -> np.ndarray:
    """The flat indices that a view touches; all within the storage."""
    index = sum(
        np.arange(e).reshape(-1, *[1] * (len(view.shape) - k - 1)) * s
        for k, (e, s) in enumerate(zip(view.shape, view.strides, strict=True))
    )
    flat = np.asarray(index) + view.offset_bytes // 4
    assert flat.min() >= 0 and flat.max() < total_bytes // 4
    assert len(np.unique(flat)) == flat.size
    return flat


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 2, 0, 1), (1, 0, 2, 3)])
def test_a_view_with_its_border(padding: tuple[int, int, int, int]) -> None:
    v = value("v", 20, 8, (1, 2, 2, 3))
    inner, outer = Placement(graph(v)).view("v"), Placement(graph(v)).view("v", padding=padding)
    a, b = elements(inner, storage_bytes(v)), elements(outer, storage_bytes(v))
    top, left, _, _ = padding
    np.testing.assert_array_equal(b[:, :, top : top + 3, left : left + 5], a)


def test_parts_fill_the_whole_and_do_not_overlap() -> None:
    halo = (1, 1, 2, 0)
    whole, a, b, c, d = (value(n, k, 8, halo) for n, k in zip("wabcd", (40, 8, 32, 16, 16), strict=True))
    parts = {"a": Part("w", 0), "b": Part("w", 8), "c": Part("b", 0), "d": Part("b", 16)}
    placement = Placement(graph(whole, a, b, c, d, **parts))
    size = storage_bytes(whole)
    everything = elements(placement.view("w"), size).ravel()
    together = np.concatenate([elements(placement.view(n), size).ravel() for n in "acd"])
    assert {placement.root(n) for n in "wabcd"} == {"w"}
    np.testing.assert_array_equal(np.sort(together), np.sort(everything))


def test_views_have_the_storage_of_what_they_show() -> None:
    d = Draft()
    d.op("view", "z", [d.op("view", "y", [d.input("x", 2, 6)], (12,))], (3, 4))
    placement = Placement(d.graph("z"))
    assert placement.root("z") == "x"
    assert placement.view("z") == View("x", 0, (3, 4), (4, 1), "float32") and placement.view("z").compact


def test_compact() -> None:
    assert Placement(graph(value("v", 16, 8, (0, 0, 0, 0)))).view("v").compact
    assert not Placement(graph(value("v", 16, 8, (0, 1, 0, 0)))).view("v").compact
