from __future__ import annotations

import pytest

from evo_tvm.graph import PLAIN, Graph, Layout
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from tests.plan.graphs import Draft, kinds


def planned(d: Draft, *outputs: str) -> Graph:
    return assign_layouts(fuse_epilogues(d.graph(*outputs)), 8)


def test_convolutions_are_blocked_and_outputs_plain() -> None:
    d = Draft()
    d.conv("z", d.conv("y", d.input("x", 1, 16, 4, 4), 24, padding=0), 8, padding=0)
    g = planned(d, "z")
    assert kinds(g) == ["transform", "conv2d", "conv2d", "transform"]
    assert g.values["y"].layout == Layout(8) and g.outputs == ("z@plain",)
    assert g.values["z@plain"].layout == PLAIN


def test_few_channels_stay_plain_in_a_border_of_their_own() -> None:
    d = Draft()
    d.conv("y", d.input("x", 1, 3, 4, 4), 8)
    g = planned(d, "y")
    assert g.groups[1].inputs[0] == "x@pad" and g.values["x@pad"].layout == Layout(1, (1, 1, 1, 1))
    assert g.values["x"].layout == PLAIN


def test_few_channels_that_the_epilogue_reads_are_blocked() -> None:
    d = Draft()
    x = d.input("x", 1, 3, 4, 4)
    d.same("add", "z", d.conv("y", x, 3), x)
    g = planned(d, "z")
    assert g.values[g.groups[1].inputs[0]].layout.block == 8


@pytest.mark.parametrize(
    ("channels", "expected"), [(12, ["transform", "max_pool2d", "transform"]), (3, ["max_pool2d"])]
)
def test_pools_read_blocks_where_they_have_channels_for_it(channels: int, expected: list[str]) -> None:
    d = Draft()
    window = {"pool_size": (2, 2), "stride": (2, 2), "padding": (0,) * 4, "dilation": (1, 1)}
    d.op("max_pool2d", "y", [d.input("x", 1, channels, 6, 6)], (1, channels, 3, 3), **window)
    assert kinds(planned(d, "y")) == expected


def test_one_border_for_the_widest_reader() -> None:
    d = Draft()
    y = d.conv("y", d.input("x", 1, 8, 6, 6), 8, padding=0)
    d.conv("a", y, 8, 3, 1)
    d.conv("b", y, 8, 5, 2)
    g = planned(d, "a", "b")
    assert g.values["y"].layout.halo == (2, 2, 2, 2)
    assert kinds(g).count("transform") == 3  # x, and the two outputs


def test_a_border_makes_a_copy_of_a_view() -> None:
    d = Draft()
    y = d.conv("y", d.input("x", 1, 8, 1, 1), 8, 1, 0)
    d.op("view", "flat", [y], (8,))
    d.conv("z", y, 8, 3, 1)
    g = planned(d, "flat", "z")
    assert g.values["y"].layout.halo == (1, 1, 1, 1)
    assert [k.anchor.kind for k in g.groups if k.output == "y@plain"] == ["transform"]


def test_pixels_of_whole_blocks_are_views() -> None:
    d = Draft()
    y = d.conv("y", d.input("x", 1, 16, 1, 1), 16, 1, 0)
    g = planned(d, y)
    assert kinds(g) == ["view", "conv2d", "view"]
    d = Draft()
    y = d.conv("y", d.input("x", 1, 12, 1, 1), 12, 1, 0)
    assert kinds(planned(d, y)) == ["transform", "conv2d", "transform"]


def test_one_transform_for_all_readers() -> None:
    d = Draft()
    x = d.input("x", 1, 16, 4, 4)
    d.conv("a", x, 8, 1, 0)
    d.conv("b", x, 8, 1, 0)
    assert kinds(planned(d, "a", "b")).count("transform") == 3


def test_concat_of_odd_channels_is_plain() -> None:
    d = Draft()
    x = d.input("x", 1, 16, 4, 4)
    y = d.op("concat", "y", [d.conv("a", x, 12, 1, 0), d.conv("b", x, 8, 1, 0)], (1, 20, 4, 4), axis=1)
    assert planned(d, y).values["y"].layout == PLAIN
