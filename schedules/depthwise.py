"""Schedule of depthwise convolution and pooling: a strip of output pixels of one channel block in registers."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import keep_in_registers, parallel, work


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
    io, ii = sch.split(i, [None, config.oh_tile])
    jo, ji = sch.split(j, [None, config.ow_tile])
    sch.reorder(n, c, io, jo, ii, ji, v)
    parallel(sch, [n, c, io], amount)
    sch.compute_at(reduce, jo, preserve_unit_loops=True)
    ri, rj, rv, r, s = sch.get_loops(reduce)[-5:]
    sch.reorder(r, s, ri, rj, rv)
    for loop in (r, s):
        sch.unroll(loop)
    for block in (reduce, out):
        keep_in_registers(sch, block)
    keep_in_registers(sch, sch.decompose_reduction(reduce, r))
    return sch
