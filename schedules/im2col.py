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
    parallel,
    pixels_as_one_axis,
    split_peeled,
    work,
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
    partial = [b for b in sch.get_producers(gemm) if sch.get(b).name_hint == "partial"]
    for block in (gemm, *partial):
        sch.set_scope(block, 0, "local")
    amount = work(sch, partial[0] if partial else gemm)

    n, o, pixels, v = sch.get_loops(out)
    oo, oi = split_peeled(sch, o, config.oc_tile)
    block_, rest = split_peeled(sch, pixels, min(config.pixel_tile * config.tiles, extent(sch, pixels)))
    po, pi = split_peeled(sch, rest, config.pixel_tile)
    sch.reorder(n, block_, oo, po, oi, pi, v)
    peeled = is_peeled(sch, block_)
    shared = parallel(sch, [n] if peeled else [n, block_], amount)
    sch.compute_at(gemm, po, preserve_unit_loops=True)
    keep_in_registers(sch, out)
    if partial:
        to, tp, tv, ko = sch.get_loops(gemm)[-4:]
        sch.reorder(ko, tp, to, tv)
        sch.compute_at(partial[0], ko, preserve_unit_loops=True)
        to, tp, unit, tv, ki = sch.get_loops(partial[0])[-5:]
        _copy(sch, columns, block_ if peeled else shared, row)
        sch.reorder(ki, unit, tp, to, tv)
        keep_in_registers(sch, partial[0])
        keep_in_registers(sch, gemm)
        keep_in_registers(sch, sch.decompose_reduction(partial[0], ki))
        keep_in_registers(sch, sch.decompose_reduction(gemm, ko))
    else:
        to, tp, tv, ki = sch.get_loops(gemm)[-4:]
        _copy(sch, columns, block_ if peeled else shared, row)
        sch.reorder(ki, tp, to, tv)
        keep_in_registers(sch, gemm)
        keep_in_registers(sch, sch.decompose_reduction(gemm, ki))
    return sch


def _copy(sch: Schedule, columns: SBlockRV, at: LoopRV, row: int) -> None:
    """The columns of the block of pixels: runs of `row` elements in vectors."""
    sch.compute_at(columns, at, preserve_unit_loops=True)
    k = sch.get_loops(columns)[-1]
    _, run = sch.split(k, [None, row])
    if extent(sch, run) > 1:
        sch.vectorize(run)
