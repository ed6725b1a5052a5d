"""Schedule of the direct convolution: a register tile of output pixels by blocks of output channels.

Around the register tile the loops follow Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication"
(2008): a panel of weights, `depth_chunk` steps of input channels by `oc_tile` blocks of output channels, stays in the
first cache while the tiles of the image pass by. Weights lie in the order in which they are read, and each step fetches
its share of the next panel (`insert_prefetch`), so that reading weights from memory overlaps with the arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from evo_tvm.schedules.common import (
    dots,
    extent,
    finish_tile,
    inline_rounded,
    is_peeled,
    keep_in_registers,
    local_sums,
    parallel,
    prefetch,
    split_peeled,
)


@dataclass(frozen=True)
class Config:
    """Tunables. The register tile holds `oc_tile * oh_tile * ow_tile` vectors of output.

    oc_tile: blocks of output channels, oh_tile, ow_tile: output rows and columns in the tile;
    group_rows: output rows that all output channels work on before the next rows begin (a divisor of the rows; 0: all);
    depth_chunk: steps of input channels whose sum is put aside (a divisor of a group's; 0: all);
    depth_outer: the loop over chunks lies outside that over output channels: for inputs larger than the second cache;
    prefetch: fetch the next panel of weights into the second cache meanwhile; linear_prefetch: at addresses that grow
    by as much in each step, see `evo_tvm.executor.insert_prefetch`. Kernels in logs from before it are without.
    """

    oc_tile: int = 1
    oh_tile: int = 1
    ow_tile: int = 14
    group_rows: int = 0
    depth_chunk: int = 0
    depth_outer: bool = False
    prefetch: bool = False
    linear_prefetch: bool = False


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """[partial ->] conv -> output (epilogue) on (N, OC/b, OH, OW, b); the weights are parameter 1."""
    sch = Schedule(func)
    conv, out = sch.get_sblock("conv"), sch.get_sblock("output")
    partial, amount = local_sums(sch, conv)
    n, o, i, j, v = sch.get_loops(out)
    rows, i = sch.split(i, [None, config.group_rows or extent(sch, i)])
    oo, oi = split_peeled(sch, o, config.oc_tile)
    reads = extent(sch, n) * extent(sch, rows) if config.group_rows else 1
    outer = [n, rows, oo] if config.group_rows else [oo, n, rows]
    peeled = [loop for loop in outer if is_peeled(sch, loop)]
    outer = [loop for loop in outer if not is_peeled(sch, loop)]
    loops = _Loops(outer, peeled, i, j, oi, v, amount, reads)
    if partial is None:
        _sums_in_registers(sch, conv, out, loops, config)
    else:
        _sums_put_aside(sch, partial, conv, out, loops, config)
    return sch


@dataclass(frozen=True)
class _Loops:
    """Loops of the output: the outer ones, those of them that are peeled, and the tile's.

    amount: multiply-adds of the kernel; reads: how often it reads all weights.
    """

    outer: list[LoopRV]
    peeled: list[LoopRV]
    i: LoopRV
    j: LoopRV
    oi: LoopRV
    v: LoopRV
    amount: int
    reads: int


def _sums_in_registers(sch: Schedule, conv: SBlockRV, out: SBlockRV, loops: _Loops, config: Config) -> None:
    """For each tile the whole reduction, then the epilogue: sums never leave the registers."""
    (io, ii), (jo, ji) = split_peeled(sch, loops.i, config.oh_tile), split_peeled(sch, loops.j, config.ow_tile)
    tile = [jo, loops.oi, ii, ji, loops.v]
    if config.group_rows:
        sch.reorder(*loops.outer, *loops.peeled, io, *tile)
        parallel(sch, loops.outer, loops.amount)
    elif is_peeled(sch, io):
        sch.reorder(*loops.peeled, *loops.outer, io, *tile)
        parallel(sch, loops.outer, loops.amount)
    else:
        sch.reorder(*loops.peeled, *loops.outer, io, *tile)
        parallel(sch, [*loops.outer, io], loops.amount)
    finish_tile(sch, out, jo, 4, whole=not is_peeled(sch, jo))
    sch.compute_at(conv, jo, preserve_unit_loops=True)
    depth = 9 if dots(sch) else 8
    _reduce(sch, conv, sch.get_loops(conv)[-depth:], 4, config, loops.reads)


def _sums_put_aside(
    sch: Schedule, partial: SBlockRV, conv: SBlockRV, out: SBlockRV, loops: _Loops, config: Config
) -> None:
    """For each chunk of the depth all tiles, added up in a buffer that stays in cache; then the epilogue."""
    inline_rounded(sch, out)
    outer, peeled = loops.outer, loops.peeled
    if config.depth_outer:  # the loop over channels comes to lie inside that over chunks
        channels = peeled or [outer[-1] if config.group_rows else outer[0]]
        outer, peeled = [loop for loop in outer if loop is not channels[0]], []
        sch.reorder(*outer, *channels, loops.oi, loops.i, loops.j, loops.v)
    else:
        sch.reorder(*outer, *peeled, loops.oi, loops.i, loops.j, loops.v)
    fused = parallel(sch, outer, loops.amount)
    sch.compute_at(conv, peeled[-1] if peeled else fused, preserve_unit_loops=True)
    sch.vectorize(loops.v)
    _, c, y, x, lanes, k = sch.get_loops(conv)[-6:]
    co, ci = split_peeled(sch, c, config.oc_tile)
    (yo, yi), (xo, xi) = split_peeled(sch, y, config.oh_tile), split_peeled(sch, x, config.ow_tile)
    sch.reorder(k, co, yo, xo, ci, yi, xi, lanes)
    sch.compute_at(partial, xo, preserve_unit_loops=True)
    depth = 10 if dots(sch) else 9
    o, r, s, _, lanes, *reduction = sch.get_loops(partial)[-depth:]
    _reduce(sch, partial, [o, r, s, lanes, *reduction], 5, config, loops.reads)
    keep_in_registers(sch, conv, 4)
    keep_in_registers(sch, sch.decompose_reduction(conv, k), 4)


def _reduce(sch: Schedule, block: SBlockRV, loops: list[LoopRV], start_loops: int, config: Config, reads: int) -> None:
    """The reduction outside the tile, pixels outside channels: a pixel is read once, used for all, then dead.

    start_loops: of the tile, where sums begin.
    """
    o, i, j, lanes, co, r, s, ci, *four = loops
    sch.reorder(co, r, s, ci, i, j, o, lanes, *four)
    for loop in (i, j, o):
        sch.unroll(loop)
    if config.prefetch:
        _prefetch_weights(sch, block, ci, reads, config.linear_prefetch)
    if not four:
        sch.vectorize(lanes)
    keep_in_registers(sch, sch.decompose_reduction(block, co), start_loops)
    if four:  # the loop that starts the sums must not have it
        sch.annotate(lanes, "evo_dot", 1)


def _prefetch_weights(sch: Schedule, block: SBlockRV, at: LoopRV, reads: int, linear: bool) -> None:
    """Each step of loop `at`, the innermost of the reduction, fetches its share of the next panel of weights."""
    weight = [int(e) for e in sch.mod["main"].params[1].ty.shape]
    panel_bytes = math.prod(weight[2:]) * (1 if dots(sch) else 4)
    prefetch(sch, block, at, 1, panel_bytes, weight[0] * weight[1], reads, linear)
