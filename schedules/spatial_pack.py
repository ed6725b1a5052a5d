"""Schedule of the direct convolution: a register tile of output pixels by blocks of output channels."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from evo_tvm.schedules.common import is_peeled, parallel, split_peeled, work


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
    """[partial ->] conv -> output (epilogue) on (N, OC/b, OH, OW, b), tiled alike.

    For each tile the whole reduction, then the epilogue: sums and partial sums never leave the registers.
    """
    sch = Schedule(func)
    conv, out = sch.get_sblock("conv"), sch.get_sblock("output")
    producers = [b for b in sch.get_producers(conv) if sch.get(b).name_hint == "partial"]
    # "local" is LLVM's alloca, which becomes registers; a "global" buffer of over 1 KB would be heap memory.
    for stage in (conv, *producers):
        sch.set_scope(stage, 0, "local")
    amount = work(sch, producers[0] if producers else conv)
    n, o, i, j, v = sch.get_loops(out)
    oo, oi = split_peeled(sch, o, config.oc_tile)
    (io, ii), (jo, ji) = split_peeled(sch, i, config.oh_tile), split_peeled(sch, j, config.ow_tile)
    outer = [n, io, oo] if config.rows_outer else [n, oo, io]
    peeled = [loop for loop in outer if is_peeled(sch, loop)]
    outer = [loop for loop in outer if not is_peeled(sch, loop)]
    sch.reorder(*outer, *peeled, jo, oi, ii, ji, v)
    parallel(sch, outer, amount)
    sch.compute_at(conv, jo, preserve_unit_loops=True)
    _keep_in_registers(sch, out)
    if producers:
        *tile, k = sch.get_loops(conv)[-5:]
        sch.reorder(k, *tile)
        _sum_chunk(sch, producers[0], k)
        _keep_in_registers(sch, conv)
        _keep_in_registers(sch, sch.decompose_reduction(conv, k))
    else:
        first = _order_reduction(sch, sch.get_loops(conv)[-8:])
        _keep_in_registers(sch, conv)
        _keep_in_registers(sch, sch.decompose_reduction(conv, first))
    return sch


def _sum_chunk(sch: Schedule, partial: SBlockRV, at: LoopRV) -> None:
    """Computes the tile's sum over one chunk of input channels inside loop `at`."""
    sch.compute_at(partial, at, preserve_unit_loops=True)
    o, i, j, _, lanes, *reduction = sch.get_loops(partial)[-9:]
    first = _order_reduction(sch, [o, i, j, lanes, *reduction])
    _keep_in_registers(sch, partial)
    _keep_in_registers(sch, sch.decompose_reduction(partial, first), 1)


def _order_reduction(sch: Schedule, loops: list[LoopRV]) -> LoopRV:
    """The reduction outside the tile, pixels outside channels: a pixel is read once, used for all, then dead."""
    o, i, j, lanes, co, r, s, ci = loops
    sch.reorder(co, r, s, ci, i, j, o, lanes)
    return co


def _keep_in_registers(sch: Schedule, block: SBlockRV, extra: int = 0) -> None:
    """Unrolls the tile's loops (`extra` unit loops among them) and vectorizes its lanes."""
    *tile, lanes = sch.get_loops(block)[-4 - extra :]
    for loop in tile:
        sch.unroll(loop)
    sch.vectorize(lanes)
