"""Which lines of the weights the loops ask for, and when."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T
from tvm.sym import Analyzer
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.insert_prefetch import ANNOTATION, LINEAR, insert_prefetch

LINE = 16  # floats


def nest(reads: int, panels: int, tiles: int, depth: int, panel: int, linear: bool) -> tirx.PrimFunc:
    """Loops that read `panels` panels of so many floats, each in `tiles` times `depth` steps, `reads` times over."""
    size, note = panels * panel, {LINEAR if linear else ANNOTATION: [0, panel * 4, panels, tiles * depth]}

    @T.prim_func(private=True)
    def func(weights: T.Buffer((size,), "float32"), out: T.Buffer((1,), "float32")):  # type: ignore[no-untyped-def]
        for _ in T.serial(reads):
            for _ in T.serial(panels):
                for _ in T.serial(tiles):
                    for k in T.serial(depth, annotations=note):
                        out[0] = out[0] + weights[k]

    lowered: tirx.PrimFunc = insert_prefetch(tvm.IRModule({"main": func}))["main"]
    return lowered


def asked(stmt: tirx.Stmt, known: dict[tvm.ir.Var, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """(counters of the loops around it, the float that it asks for) of each request, in order."""
    if isinstance(stmt, tir_stmt.SeqStmt):
        for part in stmt.seq:
            yield from asked(part, known)
    elif isinstance(stmt, tir_stmt.For):
        for count in range(int(stmt.extent)):
            yield from asked(stmt.body, {**known, stmt.loop_var: count})
    elif isinstance(stmt, tir_stmt.Evaluate):
        (place,) = stmt.value.args[0].args[0].indices
        analyzer = Analyzer()
        for var, count in known.items():
            analyzer.bind(var, tirx.const(count, "int32"))
        yield tuple(known.values()), int(analyzer.simplify(place))


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(
    ("reads", "panels", "tiles", "depth", "panel"),
    [
        (1, 3, 4, 8, 2 * LINE),  # fewer lines than runs of the innermost loop
        (1, 3, 5, 8, 3 * LINE),
        (2, 3, 4, 8, 4 * LINE),
        (1, 2, 3, 8, 12 * LINE),  # more than a line for such a run
        (1, 3, 2, 7, 5 * LINE),
        (2, 2, 1, 4, 8 * LINE),  # more than a line for a step
        (1, 3, 3, 5, 37),
    ],
)
def test_each_panel_is_asked_for_while_the_one_before_it_is_read(
    reads: int, panels: int, tiles: int, depth: int, panel: int, linear: bool
) -> None:
    seen: dict[tuple[int, int], set[int]] = {}
    for (read, number, *_), place in asked(nest(reads, panels, tiles, depth, panel, linear).body, {}):
        seen.setdefault((read, number), set()).add(place // LINE)
    lines = math.ceil(panel / LINE)
    for (_, number), found in seen.items():
        wanted = set(range((number + 1) * lines, (number + 2) * lines))
        assert wanted <= found
        assert max(found) < (number + 2) * lines + math.ceil(depth / LINE) + lines // tiles
        assert min(found) >= (number + 1) * lines
    assert len(seen) == reads * panels


def test_one_request_before_a_loop_that_needs_no_more() -> None:
    requests = [place for _, place in asked(nest(1, 2, 4, 8, 4 * LINE, True).body, {})]
    assert requests == [place * LINE for place in range(4, 12)]
    assert len(list(asked(nest(1, 2, 4, 8, 4 * LINE, False).body, {}))) == 8 * len(requests)


def test_the_innermost_loop_has_no_division() -> None:
    """More than a line for all of it: a request in each step, at a constant distance."""
    places = [place for _, place in asked(nest(1, 2, 3, 8, 12 * LINE, True).body, {})]
    runs = [places[first : first + 8] for first in range(0, len(places), 8)]
    steps = {after - before for run in runs for before, after in itertools.pairwise(run)}
    assert steps == {LINE // 2}
