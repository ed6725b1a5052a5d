"""Schedule of the direct convolution: a register tile of output pixels by blocks of output channels."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import parallel, work


@dataclass(frozen=True)
class Config:
    """Tunables. The register tile holds `oc_tile * oh_tile * ow_tile` vectors of output.

    oc_tile: blocks of output channels, oh_tile, ow_tile: output rows and columns in the tile;
    rows_outer: the loop over rows lies outside the loop over output channels, which keeps input in cache, not weights.
    """

    oc_tile: int = 1
    oh_tile: int = 1
    ow_tile: int = 14
    rows_outer: bool = False


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """conv -> output (epilogue) on (N, OC/b, OH, OW, b), both tiled; the tile of `conv` lives in registers."""
    sch = Schedule(func)
    conv, out = sch.get_sblock("conv"), sch.get_sblock("output")
    amount = work(sch, conv)
    n, o, i, j, v = sch.get_loops(out)
    oo, oi = sch.split(o, [None, config.oc_tile])
    io, ii = sch.split(i, [None, config.oh_tile])
    jo, ji = sch.split(j, [None, config.ow_tile])
    outer = [n, io, oo] if config.rows_outer else [n, oo, io]
    sch.reorder(*outer, jo, oi, ii, ji, v)
    parallel(sch, outer, amount)
    sch.compute_at(conv, jo, preserve_unit_loops=True)
    ci_o, ci_i, ci_j, ci_v, co, r, s, ci = sch.get_loops(conv)[-8:]
    sch.reorder(co, r, s, ci, ci_o, ci_i, ci_j, ci_v)
    for loop in (ci_o, ci_i, ci_j):
        sch.unroll(loop)
    sch.vectorize(ci_v)
    init = sch.decompose_reduction(conv, co)
    for block in (init, out):
        *_, o_, i_, j_, v_ = sch.get_loops(block)
        for loop in (o_, i_, j_):
            sch.unroll(loop)
        sch.vectorize(v_)
    return sch
