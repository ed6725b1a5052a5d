from __future__ import annotations

from typing import Any

import pytest

from evo_tvm.plan.choose_algorithms import choose_algorithms
from evo_tvm.target import resolve
from tests.plan.graphs import Draft


def chosen(channels: int, size: int, kernel: int = 3, **attrs: Any) -> Any:
    d = Draft()
    d.conv("y", d.input("x", 1, channels, size, size), channels, kernel, **attrs)
    return choose_algorithms(d.graph("y"), resolve("x86-64-v3")).groups[0].anchor.attrs


def test_winograd_where_it_pays() -> None:
    attrs = chosen(64, 56)
    assert attrs["algorithm"] == "winograd4" and attrs["border"] == (1, 1, 1, 1)


def test_whole_tiles_reach_beyond_the_padding() -> None:
    attrs = chosen(64, 30)  # eight tiles of four rows: 34 rows are read
    assert attrs["algorithm"] == "winograd4" and attrs["border"] == (1, 1, 3, 3)
    assert attrs["padding"] == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "attrs"),
    [
        (60, 56, 3, {}),
        (64, 56, 5, {}),
        (64, 56, 3, {"stride": (2, 2)}),
        (64, 56, 3, {"dilation": (2, 2)}),
        (64, 56, 3, {"groups": 2}),
        (512, 3, 3, {}),
    ],
)
def test_direct_elsewhere(channels: int, size: int, kernel: int, attrs: dict[str, Any]) -> None:
    got = chosen(channels, size, kernel, **attrs)
    assert got["algorithm"] == "direct" and got["border"] == got["padding"]


def test_other_kernels_are_left_alone() -> None:
    d = Draft()
    d.same("relu", "y", d.input("x", 3))
    graph = d.graph("y")
    assert choose_algorithms(graph, resolve("x86-64-v3")) == graph
