"""Schedule of depthwise convolution and pooling: a strip of output pixels of one channel block in registers."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import dots, extent, finish_tile, keep_in_registers, parallel, work


@dataclass(frozen=True)
class Config:
    """Tunables: `oh_tile` rows by `ow_tile` columns of output, one vector each, are kept in registers."""

    oh_tile: int = 1
    ow_tile: int = 7


def schedule(func: tirx.PrimFunc, stage: str, config: Config) -> Schedule:
    """`stage` ("depthwise" or "pool") -> output, on (N, C/b, OH, OW, b)."""
    sch = Schedule(func)
    reduce, out = sch.get_sblock(stage), sch.get_sblock("output")
    for block in sch.get_producers(out):
        if sch.get(block).name_hint == "average":
            sch.compute_inline(block)
    amount = work(sch, reduce)
    n, c, i, j, v = sch.get_loops(out)
    width = extent(sch, j)
    io, ii = sch.split(i, [None, config.oh_tile])
    jo, ji = sch.split(j, [None, config.ow_tile])
    sch.reorder(n, c, io, jo, ii, ji, v)
    parallel(sch, [n, c, io], amount)
    finish_tile(sch, out, jo, 3, whole=extent(sch, jo) * config.ow_tile == width)
    sch.compute_at(reduce, jo, preserve_unit_loops=True)
    four = dots(sch)
    ri, rj, rv, r, s, *q = sch.get_loops(reduce)[-6 if four else -5 :]
    sch.reorder(r, s, ri, rj, rv, *q)
    for loop in (r, s, ri, rj):
        sch.unroll(loop)
    if not four:
        sch.vectorize(rv)
    keep_in_registers(sch, sch.decompose_reduction(reduce, r))
    if four:  # the loop that starts the sums must not have it
        sch.annotate(rv, "evo_dot", extent(sch, rv))
    return sch
