from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evo_tvm.decide import Known
from evo_tvm.graph import Graph, Group
from evo_tvm.plan.choose_layouts import Layout, choose_layouts, other_layouts
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.workloads_to_measure import workloads_to_measure
from evo_tvm.target import resolve
from tests.plan.graphs import Draft


def blocks(d: Draft, *outputs: str, target: str = "x86-64-v4") -> dict[str, Any]:
    graph, _ = choose_layouts(d.graph(*outputs), resolve(target))
    return {group.output: group.anchor.attrs.get("blocks") for group in graph.groups}


def test_whole_vectors_are_left_alone() -> None:
    d = Draft()
    d.conv("b", d.conv("a", d.input("x", 1, 32, 14, 14), 64), 16)
    assert blocks(d, "b") == {"a": None, "b": None}


def test_eight_channels_take_half_a_vector() -> None:
    d = Draft()
    a = d.conv("a", d.input("x", 1, 3, 14, 14), 8)
    d.conv("c", d.conv("b", a, 8), 32)
    assert blocks(d, "c") == {"a": (1, 8), "b": (8, 8), "c": (8, 16)}


def test_more_vectors_cost_more_than_idle_lanes() -> None:
    d = Draft()
    d.conv("b", d.conv("a", d.input("x", 1, 16, 14, 14), 24), 32)
    assert blocks(d, "b") == {"a": None, "b": None}
    assert blocks(d, "b", target="x86-64-v3") == {"a": None, "b": None}, "24 channels are three whole vectors of 8"


def test_what_is_added_shares_a_block() -> None:
    d = Draft()
    a = d.conv("a", d.input("x", 1, 3, 14, 14), 8)
    b = d.conv("b", a, 8)
    d.conv("c", d.same("add", "sum", a, b), 64)
    got = blocks(d, "c")
    assert got["a"][1] == got["b"][1] == got["c"][0] == 8


def test_a_depthwise_convolution_reads_and_writes_one_block() -> None:
    d = Draft()
    around = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 3}
    d.op("depthwise_conv2d", "y", [d.input("x", 1, 3, 9, 9), d.constant("w", 3, 1, 3, 3)], (1, 3, 9, 9), **around)
    assert blocks(d, "y") == {"y": (8, 8)}


def test_an_input_that_is_added_to_the_result_has_its_block() -> None:
    d = Draft()
    x = d.input("x", 1, 3, 14, 14)
    d.same("add", "sum", d.conv("y", x, 3), x)
    graph, _ = choose_layouts(fuse_epilogues(d.graph("sum")), resolve("x86-64-v4"))
    assert graph.groups[0].anchor.attrs["blocks"] == (8, 8)


def test_twice_is_as_once() -> None:
    d = Draft()
    d.conv("b", d.conv("a", d.input("x", 1, 3, 14, 14), 8), 8)
    target = resolve("x86-64-v4")
    once, _ = choose_layouts(d.graph("b"), target)
    assert choose_layouts(once, target)[0] == once


def test_few_bytes_lie_in_fours() -> None:
    d = Draft()
    x = d.input("x", 1, 3, 14, 14)
    d.conv("b", d.conv("a", d.same("quantize", "q", x), 8), 8)
    for name in ("q", "a"):
        d.values[name] = replace(d.values[name], dtype="uint8")
    assert blocks(d, "b") == {"q": None, "a": (4, 8), "b": (8, 8)}


def test_known_times_overrule_the_estimate_where_they_promise_enough() -> None:
    def chosen(half_ms: float | None, whole_measured: bool = False, half_measured: bool = False) -> tuple[Any, Layout]:
        d = Draft()
        d.conv("b", d.conv("a", d.input("x", 1, 3, 14, 14), 8), 32)

        def times(graph: Graph, groups: Sequence[Group]) -> Known | None:
            assert [group.output for group in groups] == ["a", "b"]
            if "blocks" not in groups[0].anchor.attrs:
                return Known(1.0, whole_measured)
            return None if half_ms is None else Known(half_ms, half_measured)

        graph, (layout,) = choose_layouts(d.graph("b"), resolve("x86-64-v4"), times)
        return graph.groups[0].anchor.attrs.get("blocks"), layout

    assert chosen(None)[0] == (1, 8) and chosen(None)[1].times_ms == {}
    assert chosen(1.05)[0] == (1, 8), "not by a tenth"
    taken, layout = chosen(1.2)
    assert taken is None and (layout.block, layout.reason) == (16, "predicted")
    assert layout.tensors == ("a",) and layout.times_ms == {16: 1.0, 8: 1.2} and layout.cycles[8] < layout.cycles[16]
    assert layout.as_json()["times_ms"] == {"16": 1.0, "8": 1.2}
    assert chosen(1.2, half_measured=True)[0] == (1, 8), "what is predicted does not overrule what was measured"
    assert chosen(1.2, True, True)[1].reason == "measured" and chosen(1.2, True, False)[1].reason == "measured"


def test_the_other_layouts_are_those_that_the_estimate_passes_over() -> None:
    d = Draft()
    d.conv("c", d.conv("b", d.conv("a", d.input("x", 1, 3, 14, 14), 8), 32), 24)
    target = resolve("x86-64-v4")
    made = [[g.anchor.attrs.get("blocks") for g in graph.groups] for graph in other_layouts(d.graph("c"), target)]
    assert blocks(d, "c") == {"a": (1, 8), "b": (8, 16), "c": None}
    assert made == [[None, None, None], [(1, 8), (8, 16), (16, 8)]]
    assert not [*other_layouts(d.graph("b"), resolve("cortex-a72"))], "blocks of four are not halved"


def test_all_layouts_are_measured() -> None:
    d = Draft()
    d.conv("b", d.conv("a", d.input("x", 1, 3, 14, 14), 8), 32)
    target = resolve("x86-64-v4")
    chosen, _ = choose_layouts(d.graph("b"), target)
    found = workloads_to_measure(chosen, target)
    assert {w.attributes.get("blocks") for w in found if w.shapes[0][1] == 3} == {(1, 8), None}
    assert {w.attributes.get("blocks") for w in found if w.shapes[0][1] == 8} == {(8, 16), None}
