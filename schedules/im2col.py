"""Schedule of im2col and GEMM: columns of a block of pixels, then tile by tile of pixels by output channels."""

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
    pixels_as_one_axis,
    split_peeled,
)


@dataclass(frozen=True)
class Config:
    """Tunables. The columns of `tiles` register tiles of pixels are in the second cache at once.

    oc_tile, pixel_tile: blocks of output channels and pixels in a register tile.
    """

    oc_tile: int = 2
    pixel_tile: int = 14
    tiles: int = 8


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """columns -> [partial ->] gemm -> conv -> output on (N, OC/b, OH, OW, b)."""
    sch = pixels_as_one_axis(func)
    columns, gemm, out = (sch.get_sblock(name) for name in ("columns", "gemm", "output"))
    row = int(sch.get(columns).annotations["row"])
    sch.unannotate(columns, "row")
    partial, amount = local_sums(sch, gemm)

    n, o, pixels, v = sch.get_loops(out)
    oo, oi = split_peeled(sch, o, config.oc_tile)
    block_, rest = split_peeled(sch, pixels, min(config.pixel_tile * config.tiles, extent(sch, pixels)))
    po, pi = split_peeled(sch, rest, config.pixel_tile)
    sch.reorder(n, block_, oo, po, oi, pi, v)
    peeled = is_peeled(sch, block_)
    shared = parallel(sch, [n] if peeled else [n, block_], amount)
    sch.compute_at(gemm, po, preserve_unit_loops=True)
    keep_in_registers(sch, out)
    to, tp, tv, first = sch.get_loops(gemm)[-4:]
    sch.reorder(first, tp, to, tv)
    if partial is not None:
        sch.compute_at(partial, first, preserve_unit_loops=True)
        to, tp, unit, tv, k = sch.get_loops(partial)[-5:]
        sch.reorder(k, unit, tp, to, tv)
        keep_in_registers(sch, partial)
        keep_in_registers(sch, sch.decompose_reduction(partial, k))
    keep_in_registers(sch, gemm)
    keep_in_registers(sch, sch.decompose_reduction(gemm, first))
    _copy(sch, columns, block_ if peeled else shared, row)
    return sch


def _copy(sch: Schedule, columns: SBlockRV, at: LoopRV, row: int) -> None:
    """The columns of the block of pixels: runs of `row` elements in vectors."""
    sch.compute_at(columns, at, preserve_unit_loops=True)
    k = sch.get_loops(columns)[-1]
    _, run = sch.split(k, [None, row])
    if extent(sch, run) > 1:
        sch.vectorize(run)
