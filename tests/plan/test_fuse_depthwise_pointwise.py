from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evo_tvm.graph import Graph
from evo_tvm.plan.fuse_depthwise_pointwise import fuse_depthwise_pointwise
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.target import resolve
from evo_tvm.tune.log import Log, Record
from evo_tvm.workload import workload_of
from tests.plan.graphs import Draft, kinds

TARGET = resolve("x86-64-v4")


def pair(size: int = 56, channels: int = 96, kernel: int = 1, padding: int = 0, **attrs: Any) -> Draft:
    """relu6(depthwise(x) + b), then a 1x1 convolution to 24 channels, plus a tensor."""
    d = Draft()
    x = d.input("x", 1, channels, size, size)
    weight = d.constant("dw", channels, 1, 3, 3)
    around = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": channels}
    hidden = d.op("depthwise_conv2d", "hidden", [x, weight], (1, channels, size, size), **around)
    hidden = d.same("add", "biased", hidden, d.constant("b", 1, channels, 1, 1))
    hidden = d.same("clip", "clipped", hidden, min=0.0, max=6.0)
    y = d.conv("y", hidden, 24, kernel, padding, **attrs)
    d.same("add", "sum", y, d.input("residual", 1, 24, size, size))
    return d


def fused(d: Draft, *outputs: str, log: Log | None = None) -> Graph:
    graph = fuse_epilogues(d.graph(*outputs))
    return fuse_depthwise_pointwise(graph, TARGET, 1, log or Log())


def test_it_fires() -> None:
    graph = fused(pair(), "sum")
    assert kinds(graph) == ["depthwise_pointwise+add"]
    (group,) = graph.groups
    assert group.inputs == ("x", "dw", "y.w", "b", "residual") and group.outputs == ("sum",)
    assert [step[0] for step in group.anchor.attrs["between"]] == ["add", "clip"]
    assert group.anchor.attrs["between"][0][2] == 3
    assert group.ops[1].args == (5, 4)


@pytest.mark.parametrize(
    "d",
    [pair(size=7), pair(channels=16, size=28), pair(kernel=3, padding=1), pair(stride=(2, 2)), pair(groups=2)],
    ids=["small image", "small tensor", "not 1x1", "stride", "groups"],
)
def test_it_must_not_fire(d: Draft) -> None:
    assert "depthwise_conv2d+add+clip" in kinds(fused(d, "sum"))


def test_not_where_the_first_reads_bytes() -> None:
    d = pair()
    d.values["x"] = replace(d.values["x"], dtype="uint8")
    assert "depthwise_conv2d+add+clip" in kinds(fused(d, "sum"))


def test_not_where_the_tensor_between_has_another_reader() -> None:
    assert "depthwise_conv2d+add+clip" in kinds(fused(pair(), "sum", "clipped"))


def test_not_where_idle_lanes_could_become_infinite() -> None:
    d = Draft()
    x = d.input("x", 1, 96, 56, 56)
    around = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 96}
    hidden = d.op("depthwise_conv2d", "hidden", [x, d.constant("dw", 96, 1, 3, 3)], (1, 96, 56, 56), **around)
    d.conv("y", d.same("log", "logged", hidden), 24, 1, 0)
    assert kinds(fused(d, "y")) == ["depthwise_conv2d+log", "conv2d"]


@pytest.mark.parametrize(("whole_ms", "expected"), [(1.0, 1), (3.0, 2)])
def test_measurements_decide_where_all_three_are_there(whole_ms: float, expected: int) -> None:
    apart = fuse_epilogues(pair(size=28).graph("sum"))
    together = fused(pair(size=28, channels=192), "sum")
    apart = fuse_epilogues(pair(size=28, channels=192).graph("sum"))
    names = [("depthwise", {}, 1.0), ("spatial_pack", {}, 1.0), ("depthwise_pointwise", {}, whole_ms)]
    groups = (*apart.groups, *together.groups)
    log = Log(
        Record(workload_of(graph, group), TARGET.name, name, config, "", samples_ms=(ms,))
        for graph, group, (name, config, ms) in zip((apart, apart, together), groups, names, strict=True)
    )
    assert len(fused(pair(size=28, channels=192), "sum", log=log).groups) == expected


def test_twice_is_as_once() -> None:
    once = fused(pair(), "sum")
    assert fuse_depthwise_pointwise(once, TARGET, 1, Log()) == once
