"""Schedule of global pooling: one vector of channels accumulates over the image."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import extent, parallel, work


def schedule(func: tirx.PrimFunc) -> Schedule:
    """pool (N, C/b, b) over (H, W), then output (N, C, 1, 1)."""
    sch = Schedule(func)
    pool = sch.get_sblock("pool")
    amount = work(sch, pool)
    n, c, v, r, s = sch.get_loops(pool)
    if extent(sch, v) > 1:
        sch.reorder(n, c, r, s, v)
        sch.vectorize(v)
    parallel(sch, [n, c], amount)
    sch.decompose_reduction(pool, r)
    return sch
