"""Schedule of the fused depthwise and pointwise convolution: band by band of rows."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from evo_tvm.schedules.common import (
    extent,
    is_peeled,
    keep_in_registers,
    local_sums,
    parallel,
    split_peeled,
    work,
)


@dataclass(frozen=True)
class Config:
    """Tunables. `rows` rows of the hidden tensor, all channels, are computed together and should fit the second cache;
    threads share out the bands if `rows` divides OH, else whole images.

    strip: pixels of a row that the depthwise convolution keeps in registers; oc_tile, oh_tile, ow_tile: blocks of
    output channels (those that the weights are packed for), rows and columns that the pointwise one does.
    """

    rows: int = 4
    strip: int = 7
    oc_tile: int = 2
    oh_tile: int = 1
    ow_tile: int = 14


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """depthwise -> hidden -> [partial ->] conv -> output on (N, OC/b, OH, OW, b)."""
    sch = Schedule(func)
    depthwise, hidden, conv, out = (sch.get_sblock(name) for name in ("depthwise", "hidden", "conv", "output"))
    sch.set_scope(depthwise, 0, "local")
    partial, amount = local_sums(sch, conv)
    amount += work(sch, depthwise)

    n, o, i, j, v = sch.get_loops(out)
    band, rest = split_peeled(sch, i, min(config.rows, extent(sch, i)))
    oo, oi = split_peeled(sch, o, config.oc_tile)
    io, ii = split_peeled(sch, rest, min(config.oh_tile, extent(sch, rest)))
    jo, ji = split_peeled(sch, j, config.ow_tile)
    sch.reorder(n, band, oo, io, jo, oi, ii, ji, v)
    peeled = is_peeled(sch, band)
    shared = parallel(sch, [n] if peeled else [n, band], amount)
    sch.compute_at(conv, jo, preserve_unit_loops=True)
    keep_in_registers(sch, out, 4)
    if partial is not None:
        *tile, first = sch.get_loops(conv)[-5:]
        sch.reorder(first, *tile)
        sch.compute_at(partial, first, preserve_unit_loops=True)
        to, ti, tj, unit, tv, co, ci = sch.get_loops(partial)[-7:]
        sch.reorder(co, ci, unit, ti, tj, to, tv)
        keep_in_registers(sch, partial, 4)
        keep_in_registers(sch, sch.decompose_reduction(partial, co), 4)
    else:
        to, ti, tj, tv, first, ci = sch.get_loops(conv)[-6:]
        sch.reorder(first, ci, ti, tj, to, tv)
    keep_in_registers(sch, conv, 4)
    keep_in_registers(sch, sch.decompose_reduction(conv, first), 4)
    _depthwise_rows(sch, depthwise, hidden, band if peeled else shared, config.strip)
    return sch


def _depthwise_rows(sch: Schedule, depthwise: SBlockRV, hidden: SBlockRV, at: LoopRV, strip: int) -> None:
    """A band of the hidden tensor, strip by strip of a row in registers."""
    sch.compute_at(hidden, at, preserve_unit_loops=True)
    jo, _ = split_peeled(sch, sch.get_loops(hidden)[-2], strip)
    sch.compute_at(depthwise, jo, preserve_unit_loops=True)
    tj, tv, r, s = sch.get_loops(depthwise)[-4:]
    sch.reorder(r, s, tj, tv)
    for loop in (r, s):
        sch.unroll(loop)
    keep_in_registers(sch, hidden, 2)
    keep_in_registers(sch, depthwise, 2)
    keep_in_registers(sch, sch.decompose_reduction(depthwise, r), 2)
