"""Schedule of what normalizes rows: all stages of a row while it is in the first cache."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import extent, parallel, split_peeled, work

#: Passes over a row, about: what one element is worth in work.
_PASSES = 8


def schedule(func: tirx.PrimFunc, lanes: int) -> Schedule:
    """Stages over (*rows[, vectors][, lanes]) -> output (*rows, length)."""
    sch = Schedule(func)
    sch.compute_inline(sch.get_sblock("normal"))
    *makers, out = sch.get_child_blocks(sch.get_sblock("root"))
    amount = _PASSES * work(sch, out)
    *rows, j = sch.get_loops(out)
    row = parallel(sch, rows, amount) if rows else sch.add_unit_loop(j)
    rank = max(len(rows), 1)
    if extent(sch, j) > lanes:
        _, j = split_peeled(sch, j, lanes)
    sch.vectorize(j)
    for block in reversed(makers):
        sch.set_scope(block, 0, "local")
        sch.compute_at(block, row, preserve_unit_loops=True)
        inner = sch.get_loops(block)[1 + (rank if rows else 0) :]
        if sch.get(block).name_hint.endswith("_lanes"):
            v, k = inner
            sch.reorder(k, v)
            sch.vectorize(v)
            sch.vectorize(sch.get_loops(sch.decompose_reduction(block, k))[-1])
        elif inner:
            sch.vectorize(inner[-1])
    return sch
