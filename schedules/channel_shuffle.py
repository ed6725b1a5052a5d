"""Schedule of the channel shuffle: one lane of a block after the other, since each comes from another block."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import extent, largest_divisor, parallel, work


def schedule(func: tirx.PrimFunc) -> Schedule:
    """output (N, C/b, H, W, b)."""
    sch = Schedule(func)
    out = sch.get_sblock("output")
    amount = work(sch, out)
    n, c, i, j, v = sch.get_loops(out)
    rest, pixels = sch.split(j, [None, largest_divisor(extent(sch, j), 8)])
    sch.reorder(n, c, i, v, rest, pixels)
    sch.unroll(pixels)
    parallel(sch, [n, c], amount)
    return sch
