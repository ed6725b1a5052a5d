"""Guards, places that branches share, and tiles: the kernel graph of models with gates. Nothing is compiled."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import CompileError
from evo_tvm.executor.plan_program import plan_program
from evo_tvm.executor.program import Call, Copy, FillBorder, Program
from evo_tvm.graph import Graph, Group, Guard, Part, Value
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.guard_branches import guard_branches
from evo_tvm.plan.place_branches import place_branches
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.storage import Placement
from evo_tvm.plan.tile_branches import rectangle, rectangle_group, rectangles, tile_branches
from evo_tvm.target import host
from evo_tvm.workload import Workload, workload_of
from tests.plan.graphs import Draft, kinds


def decision(d: Draft, name: str, feature: str, kind: str = "skip") -> str:
    """A gate that decides from the values of `feature`, which are its logits."""
    d.op("decide", name, [feature], (1, 1), gate=name, gate_kind=kind, threshold=0.0)
    d.values[name] = Value(name, (1, 1), "int32")
    return name


def residual(d: Draft, x: str, name: str, gate: str) -> str:
    """select(gate, add(conv(relu(conv(x))), x), x)."""
    y = d.conv(f"{name}2", d.same("relu", f"{name}r", d.conv(f"{name}1", x, 8)), 8)
    on = d.same("add", f"{name}on", y, x)
    return d.same("select", name, on, on) if not gate else _select(d, name, gate, on, x)


def _select(d: Draft, name: str, gate: str, on: str, off: str) -> str:
    d.op("select", name, [gate, on, off], d.values[on].shape)
    return name


def guards(graph: Graph) -> dict[str, set[tuple[str, bool]]]:
    return {g.outputs[0]: {(guard.decision, guard.on) for guard in g.guards} for g in graph.groups}


def small() -> tuple[Draft, str]:
    d = Draft()
    x = d.conv("x1", d.input("x", 1, 8, 6, 6), 8, 1, 0)
    assert x == "x1"
    return d, decision(d, "g", d.same("exp", "z", d.input("v", 1, 1)))


def test_what_only_one_branch_needs_runs_there_only() -> None:
    d, gate = small()
    out = residual(d, "x1", "b", gate)
    found = guards(guard_branches(d.graph(out)))
    assert found["b1"] == found["br"] == found["b2"] == found["bon"] == {("g", True)}
    assert found["x1"] == found["z"] == found["g"] == found["b"] == set()


def test_what_both_branches_need_runs_always() -> None:
    d, gate = small()
    shared = d.same("tanh", "t", "x1")
    out = _select(d, "y", gate, d.same("exp", "e", shared), d.same("sqrt", "s", shared))
    found = guards(guard_branches(d.graph(out)))
    assert (found["t"], found["e"], found["s"]) == (set(), {("g", True)}, {("g", False)})


def test_what_is_an_output_too_runs_always() -> None:
    d, gate = small()
    out = residual(d, "x1", "b", gate)
    assert guards(guard_branches(d.graph(out, "br")))["b1"] == set()


def test_what_comes_before_its_decision_runs_always() -> None:
    d = Draft()
    x = d.same("exp", "x1", d.input("x", 1, 1))
    early = d.same("tanh", "early", x)
    gate = decision(d, "g", x)
    out = _select(d, "y", gate, d.same("sqrt", "late", early), x)
    found = guards(guard_branches(d.graph(out)))
    assert (found["early"], found["late"]) == (set(), {("g", True)})


def test_decisions_inside_a_branch_are_asked_for_there_only() -> None:
    d = Draft()
    x = d.same("exp", "x1", d.input("x", 1, 1))
    outer = decision(d, "outer", x, "exit")
    y = d.same("tanh", "y", x)
    inner = decision(d, "inner", y)
    z = _select(d, "z", inner, d.same("sqrt", "s", y), y)
    out = _select(d, "out", outer, x, d.same("exp", "last", z))
    found = guards(guard_branches(d.graph(out)))
    assert found["inner"] == found["last"] == {("outer", False)}
    assert found["s"] == {("outer", False), ("inner", True)}


def placed(d: Draft, *outputs: str) -> Graph:
    return guard_branches(place_branches(place_concats(assign_layouts(d.graph(*outputs), 8))))


def planned(graph: Graph) -> tuple[Program, dict[str, Call]]:
    placement = Placement(graph)
    groups = [g for g in graph.groups if g.anchor.kind not in ("view", "join", "select", "decide")]
    lowered = [lower_group(graph, placement, g, 8, signed_bytes=False) for g in groups]
    program = plan_program(graph, lowered, [g.output for g in groups])
    return program, {s.symbol: s for s in program.steps if isinstance(s, Call)}


def test_a_shortcut_that_dies_lies_where_the_block_writes() -> None:
    d, gate = small()
    b = residual(d, "x1", "b", gate)
    graph = placed(d, d.conv("c", b, 8))
    assert graph.parts == {"bon": Part("b", 0), "x1": Part("b", 0)}
    program, calls = planned(graph)
    assert calls["x1"].arguments[-1] == calls["bon"].arguments[-1] == calls["bon"].arguments[1]
    assert not any(isinstance(step, Copy) for step in program.steps)
    fill = next(step for step in program.steps if isinstance(step, FillBorder))
    assert fill.guards == () and program.steps.index(fill) < program.steps.index(calls["x1"])


@pytest.mark.parametrize("why", ["read later", "an output"])
def test_a_shortcut_that_lives_on_is_copied_where_the_block_is_skipped(why: str) -> None:
    d, gate = small()
    b = residual(d, "x1", "b", gate)
    c = d.conv("c", b, 8)
    outputs = [d.same("add", "z2", c, "x1")] if why == "read later" else [c, "x1"]
    graph = placed(d, *outputs)
    (copy,) = [g for g in graph.groups if g.output.startswith("x1@b")]
    assert copy.anchor.kind == "transform" and copy.guards == (Guard("g", False),)
    assert graph.parts["bon"] == graph.parts[copy.output] == Part("b", 0) and "x1" not in graph.parts
    _, calls = planned(graph)
    assert calls["bon"].arguments[-1] != calls["x1"].arguments[-1]


def test_a_shortcut_that_the_last_kernel_reads_otherwise_is_copied() -> None:
    """conv(x) cannot be written over x."""
    d, gate = small()
    out = _select(d, "y", gate, d.conv("b", "x1", 8), "x1")
    graph = placed(d, d.conv("c", out, 8))
    assert "x1" not in graph.parts and any(g.output.startswith("x1@y") for g in graph.groups)


def test_matrices_are_copied_by_a_permutation_that_is_none() -> None:
    d = Draft()
    x = d.input("x", 1, 8)
    gate = decision(d, "g", d.op("dense", "z", [x, d.constant("w", 8, 1)], (1, 1)))
    out = _select(d, "y", gate, d.same("exp", "e", x), x)
    graph = placed(d, out)
    (copy,) = [g for g in graph.groups if g.output.startswith("x@y")]
    assert copy.anchor.kind == "permute" and copy.anchor.attrs["axes"] == (0, 1)


def test_two_exits_and_the_end_write_one_output() -> None:
    d = Draft()
    x = d.same("exp", "x1", d.input("x", 1, 8))
    heads = []
    for i in range(2):
        heads.append(d.op("dense", f"h{i}", [x, d.constant(f"w{i}", 8, 4)], (1, 4)))
        decision(d, f"g{i}", heads[-1], "exit")
        x = d.same("tanh", f"x{i + 2}", x)
    end = d.op("dense", "end", [x, d.constant("w", 8, 4)], (1, 4))
    out = _select(d, "y", "g0", heads[0], _select(d, "rest", "g1", heads[1], end))
    graph = placed(d, out)
    root = Placement(graph).root
    assert {root(name) for name in (*heads, "end", "rest")} == {"y"}
    assert guards(graph)["end"] == {("g0", False), ("g1", False)}


def tiled(d: Draft, side: int, on: str, off: str | None, gate: str) -> Graph:
    shape = d.values[on].shape
    d.op("select_tiles", "y", [gate, on, *([off] if off else [])], shape, side=side)
    return tile_branches(d.graph("y"), by_rule)


def by_rule(workload: Workload, algorithm: str) -> object:
    return ALGORITHMS[workload.operator][algorithm].default(workload, host(), 1)


def tile_draft(size: int = 8) -> tuple[Draft, str]:
    d = Draft()
    x = d.conv("x1", d.input("x", 1, 16, size, size), 16, 1, 0)
    d.op("decide", "g", [d.input("z", 1, 1, 2, 2)], (1, 1, 2, 2), gate="g", gate_kind="space", threshold=0.0)
    return d, x


def test_convolutions_behind_each_other_are_tiled_with_margins() -> None:
    d, x = tile_draft()
    a = d.conv("a", x, 16)
    b = d.conv("b", a, 16)
    graph = tiled(d, 4, b, x, "g")
    marks = {g.output: g.tiled for g in graph.groups}
    assert marks["b"] is not None and (marks["b"].side, marks["b"].margin) == (4, 0)
    assert marks["a"] is not None and marks["a"].margin == 1
    assert marks["x1"] is None
    group = next(g for g in graph.groups if g.output == "a")
    shape = graph.values["a"].shape
    assert rectangles(group, shape) == [(1, 2), (2, 1), (1, 1)]
    assert rectangle(group, shape, 1, 1) == (6, 6) and rectangle(group, shape, 1, 2) == (6, 8)


def test_each_rectangle_of_tiles_is_configured_by_its_own_workload() -> None:
    d, x = tile_draft()
    b = d.conv("b", d.conv("a", x, 16), 16)
    d.op("select_tiles", "y", ["g", b, x], d.values[b].shape, side=4)
    asked: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []

    def configure(workload: Workload, algorithm: str) -> object:
        asked.append((algorithm, workload.shapes[0][2:], workload.output[2:]))
        return by_rule(workload, algorithm)

    graph = tile_branches(d.graph("y"), configure)
    name = next(g for g in graph.groups if g.output == "a").anchor.attrs["algorithm"]
    sizes = [(4, 8), (8, 4), (4, 4), (6, 8), (8, 6), (6, 6)]
    assert asked == [(name, size, size) for size in sizes]
    for group in graph.groups:
        if group.output in ("a", "b"):
            assert group.tiled is not None
            assert [(k.down, k.across) for k in group.tiled.kernels] == [(1, 2), (2, 1), (1, 1)]
            for kernel in group.tiled.kernels:
                small, part = rectangle_group(graph, group, kernel)
                workload = workload_of(small, part)
                assert part.anchor.attrs["config"] == kernel.config == by_rule(workload, name)
                assert part.tiled is None and workload.output[2:] == rectangle(
                    group, graph.values[group.output].shape, kernel.down, kernel.across
                )


def test_what_others_read_is_computed_whole() -> None:
    d, x = tile_draft()
    a = d.conv("a", x, 16)
    b = d.conv("b", a, 16)
    shape = d.values[b].shape
    d.op("select_tiles", "y", ["g", b, x], shape, side=4)
    graph = tile_branches(d.graph("y", "a"), by_rule)
    assert {g.output for g in graph.groups if g.tiled is not None} == {"b"}


def test_what_no_convolution_gives_is_refused() -> None:
    d, x = tile_draft()
    with pytest.raises(CompileError, match="no convolution gives it"):
        tiled(d, 4, d.same("tanh", "t", x), x, "g")


def test_a_shortcut_is_there_before_tiles_are_written_over_it() -> None:
    d, x = tile_draft()
    b = d.conv("b", x, 16)
    graph = place_branches(assign_layouts(tiled(d, 4, b, x, "g"), 16))
    order = [g.output for g in graph.groups]
    copy = next(name for name in order if name.startswith("x1@y"))
    assert order.index(copy) < order.index("b") and graph.parts[copy] == graph.parts["b"] == Part("y", 0)
    assert kinds(graph)[order.index(copy)] == "transform"


def test_graphs_without_gates_stay_as_they_are() -> None:
    d = Draft()
    graph = assign_layouts(d.graph(d.conv("a", d.input("x", 1, 8, 6, 6), 8)), 8)
    assert place_branches(graph) is graph
    assert all(g.guards == () and g.tiled is None for g in guard_branches(graph).groups)
    assert [*map(Group.__eq__, tile_branches(graph, by_rule).groups, graph.groups)] == [True] * len(graph.groups)
    assert np.all([v.layout == graph.values[n].layout for n, v in guard_branches(graph).values.items()])
