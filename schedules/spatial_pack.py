"""Schedule of the direct convolution: a register tile of output pixels by blocks of output channels."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from evo_tvm.schedules.common import extent, parallel, work

_PEEL = "pragma_loop_partition_hint"


@dataclass(frozen=True)
class Config:
    """Tunables. The register tile holds `oc_tile * oh_tile * ow_tile` vectors of output.

    oc_tile: blocks of output channels, oh_tile, ow_tile: output rows and columns in the tile;
    rows_outer: the loop over rows lies outside the loop over output channels, which keeps input in cache, not weights;
    weights_once: a chunk of weights is used for the whole image before the next is read, with the sums put aside in
    memory: for small images, whose weights are many times the cache. It needs a convolution with partial sums.
    """

    oc_tile: int = 1
    oh_tile: int = 1
    ow_tile: int = 14
    rows_outer: bool = False
    weights_once: bool = False


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """[partial ->] conv -> output (epilogue) on (N, OC/b, OH, OW, b), tiled alike."""
    sch = Schedule(func)
    conv, out = sch.get_sblock("conv"), sch.get_sblock("output")
    producers = [b for b in sch.get_producers(conv) if sch.get(b).name_hint == "partial"]
    # "local" is LLVM's alloca, which becomes registers; a "global" buffer of over 1 KB would be heap memory.
    for stage in (conv, *producers):
        sch.set_scope(stage, 0, "local")
    if config.weights_once and producers:
        _chunks_outside(sch, config, producers[0], conv, out)
    else:
        _tiles_outside(sch, config, producers, conv, out)
    return sch


def _tiles_outside(
    sch: Schedule, config: Config, producers: list[SBlockRV], conv: SBlockRV, out: SBlockRV
) -> None:
    """For each tile the whole reduction, then the epilogue: sums and partial sums never leave the registers."""
    amount = work(sch, producers[0] if producers else conv)
    n, o, i, j, v = sch.get_loops(out)
    oo, oi = sch.split(o, [None, config.oc_tile])
    (io, ii), (jo, ji) = _split(sch, i, config.oh_tile), _split(sch, j, config.ow_tile)
    outer = [n, io, oo] if config.rows_outer else [n, oo, io]
    sch.reorder(*outer, jo, oi, ii, ji, v)
    if _is_peeled(sch, io):
        outer.remove(io)
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


def _chunks_outside(sch: Schedule, config: Config, partial: SBlockRV, conv: SBlockRV, out: SBlockRV) -> None:
    """For each block of channels and each chunk of the reduction all tiles; the sums of an image lie in L1."""
    n, o, _, _, v = sch.get_loops(out)
    oo, _ = sch.split(o, [None, config.oc_tile])
    outer = parallel(sch, [n, oo], work(sch, partial))
    sch.compute_at(conv, outer, preserve_unit_loops=True)
    sch.vectorize(v)
    co, i, j, lanes, k = sch.get_loops(conv)[-5:]
    (io, ii), (jo, ji) = _split(sch, i, config.oh_tile), _split(sch, j, config.ow_tile)
    sch.reorder(k, io, jo, co, ii, ji, lanes)
    _sum_chunk(sch, partial, jo)
    _keep_in_registers(sch, conv)
    sch.vectorize(sch.get_loops(sch.decompose_reduction(conv, k))[-1])


def _split(sch: Schedule, loop: LoopRV, tile: int) -> list[LoopRV]:
    """Tiles of the loop. Where they do not divide it, the last gets code of its own, and the others no guards."""
    divides = extent(sch, loop) % tile == 0
    outer, inner = sch.split(loop, [None, tile])
    if not divides:
        sch.annotate(outer, _PEEL, 1)
    return [outer, inner]


def _is_peeled(sch: Schedule, loop: LoopRV) -> bool:
    return _PEEL in sch.get(loop).annotations


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
