"""Lifetimes, reuse in place and borders of planned graphs. Nothing is compiled."""

from __future__ import annotations

from evo_tvm.executor.plan_program import plan_program
from evo_tvm.executor.program import Call, Copy, FillBorder, Pointer, Program
from evo_tvm.graph import Graph
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.storage import Placement
from evo_tvm.schedules.depthwise import Config
from tests.plan.graphs import Draft


def planned(d: Draft, *outputs: str) -> tuple[Program, dict[str, Call]]:
    """The program, and the call that makes each value."""
    graph: Graph = place_concats(assign_layouts(d.graph(*outputs), 8))
    placement = Placement(graph)
    groups = [g for g in graph.groups if g.anchor.kind not in ("view", "join")]
    lowered = [lower_group(graph, placement, g, 8, signed_bytes=False) for g in groups]
    program = plan_program(graph, lowered, [g.output for g in groups])
    return program, {s.symbol: s for s in program.steps if isinstance(s, Call)}


def test_the_last_reader_writes_over_what_it_reads() -> None:
    d = Draft()
    a = d.same("exp", "a", d.input("x", 4, 8))
    d.same("tanh", "c", d.same("sqrt", "b", a))
    _, calls = planned(d, "c")
    assert calls["a"].arguments[-1] == calls["b"].arguments[0] == calls["b"].arguments[-1]
    assert calls["a"].arguments[0].space == "input" and calls["c"].arguments[-1].space == "output"


def test_not_over_a_value_that_is_read_later() -> None:
    d = Draft()
    a = d.same("exp", "a", d.input("x", 4, 8))
    b = d.same("sqrt", "b", a)
    c = d.same("tanh", "c", b)
    d.same("add", "z", c, a)
    _, calls = planned(d, "z")
    assert calls["b"].arguments[-1] != calls["a"].arguments[-1]
    assert calls["c"].arguments[-1] == calls["b"].arguments[-1]


def test_not_over_what_the_anchor_reads() -> None:
    d = Draft()
    x = d.same("exp", "x1", d.input("x", 1, 8, 4, 4))
    y = d.conv("y", x, 8, 1, 0)
    d.same(
        "max_pool2d",
        "z",
        y,
        pool_size=(3, 3),
        stride=(1, 1),
        padding=(1,) * 4,
        dilation=(1, 1),
        count_include_pad=False,
        algorithm="pool",
        config=Config(1, 4),
    )
    d.same("relu", "r", "z")
    _, calls = planned(d, "r")
    assert calls["y"].arguments[-1] not in calls["y"].arguments[:-1]
    assert calls["z"].arguments[-1] not in calls["z"].arguments[:-1]


def test_not_over_a_value_of_another_shape_or_a_viewed_one() -> None:
    d = Draft()
    row = d.same("exp", "row", d.input("x", 8))
    d.op("add", "y", [row, d.input("w", 4, 8)], (4, 8))
    v = d.op("view", "v", ["y"], (32,))
    s = d.same("sqrt", "s", v)
    d.op("add", "z", [d.op("view", "u", [s], (4, 8)), "w"], (4, 8))
    _, calls = planned(d, "z")
    assert calls["row"].arguments[-1] != calls["y"].arguments[-1]
    assert calls["s"].arguments[-1] != calls["s"].arguments[0]


def test_a_border_is_cleared_once_before_the_first_write() -> None:
    d = Draft()
    x = d.input("x", 2, 8, 4, 4)
    y = d.op("concat", "y", [d.conv("a", x, 8, 1, 0), d.conv("b", x, 8, 1, 0)], (2, 16, 4, 4), axis=1)
    d.conv("c", y, 8, 3, 1)
    d.conv("e", y, 8, 5, 2)
    program, calls = planned(d, "c", "e")
    (clear,) = [s for s in program.steps if isinstance(s, FillBorder)]
    assert (clear.planes, clear.rows, clear.columns, clear.pixel_bytes, clear.halo) == (4, 8, 8, 32, (2, 2, 2, 2))
    assert program.steps.index(clear) < program.steps.index(calls["a"])
    assert calls["a"].arguments[-1].offset == clear.at.offset + (2 * 8 + 2) * 32


def test_a_border_survives_reuse_in_place() -> None:
    d = Draft()
    a = d.conv("a", d.input("x", 1, 8, 4, 4), 8, 1, 0)
    b = d.same("sqrt", "b", a)
    d.conv("c", d.same("tanh", "t", b), 8, 3, 1)
    program, calls = planned(d, "c")
    clears = [s for s in program.steps if isinstance(s, FillBorder)]
    assert len(clears) == 1 and calls["b"].arguments[0] == calls["b"].arguments[-1]
    assert calls["t"].arguments[-1].offset == clears[0].at.offset + (6 + 1) * 32


def test_outputs_that_nothing_computes_are_copied() -> None:
    d = Draft()
    x, c = d.input("x", 2, 3), d.constant("c", 5)
    y = d.same("exp", "y", x)
    program, calls = planned(d, x, c, y, y, d.op("view", "v", [y], (6,)))
    copies = [s for s in program.steps if isinstance(s, Copy)]
    assert calls["y"].arguments[-1] == Pointer("output", 0, 2)
    assert [(c.source, c.target.index, c.size_bytes) for c in copies] == [
        (Pointer("input", 0, 0), 0, 24),
        (Pointer("weights", 0), 1, 20),
        (Pointer("output", 0, 2), 3, 24),
        (Pointer("output", 0, 2), 4, 24),
    ]
    assert program.steps[-4:] == tuple(copies)


def test_a_constant_is_stored_once_for_each_packing() -> None:
    d = Draft()
    x, c = d.input("x", 4, 8), d.constant("c", 8)
    d.same("add", "z", d.same("multiply", "y", x, c), c)
    program, calls = planned(d, "z")
    assert calls["y"].arguments[1] == calls["z"].arguments[1] == Pointer("weights", 0)
    assert len(program.weights) == 64
