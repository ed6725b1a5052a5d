"""Schedule of matrix products: a register tile of rows by panels of columns.

A tile of panels stays in the first cache while the rows pass by (Goto & van de Geijn, "Anatomy of High-Performance
Matrix Multiplication", 2008). Constant weights lie in the order in which they are read; the right operand of a product
of two activations is brought into that order tile by tile, in a buffer that stays in cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from evo_tvm.schedules.common import (
    dots,
    extent,
    is_peeled,
    keep_in_registers,
    local_sums,
    parallel,
    producer,
    split_peeled,
)

#: Tiles of panels that keep the threads of an edge CPU busy; with fewer, tiles of rows are shared out.
_ENOUGH_TILES = 4


@dataclass(frozen=True)
class Config:
    """Tunables: `row_tile` rows by `panel_tile` panels are kept in registers.

    depth_chunk: terms whose sum is put aside (a divisor of the depth; 0: all).
    """

    row_tile: int = 14
    panel_tile: int = 2
    depth_chunk: int = 0


def schedule(func: tirx.PrimFunc, config: Config, lanes: int) -> Schedule:
    """[packed ->] [partial ->] product (*batch, M, N/b, b) -> output (*batch, M, N), tile by tile.

    Of bytes, in fours: [whole ->] product -> output.
    """
    sch = Schedule(func)
    product, out = sch.get_sblock("product"), sch.get_sblock("output")
    partial, amount = local_sums(sch, product)
    packed = producer(sch, partial or product, "packed")
    *batch, i, j = sch.get_loops(out)
    (io, ii), (jo, ji) = split_peeled(sch, i, config.row_tile), split_peeled(sch, j, config.panel_tile * lanes)
    oi, v = sch.split(ji, [None, lanes])
    rows_first = packed is None and extent(sch, jo) < _ENOUGH_TILES and extent(sch, io) > extent(sch, jo)
    outer, inner = (io, jo) if rows_first else (jo, io)
    sch.reorder(*batch, outer, inner, oi, ii, v)
    panels = jo
    if is_peeled(sch, outer) and batch:
        parallel(sch, batch, amount)
    else:
        fused = parallel(sch, [*batch, outer], amount)
        panels = panels if rows_first else fused
    place = jo if rows_first else io
    sch.compute_at(product, place, preserve_unit_loops=True)
    keep_in_registers(sch, out)
    if dots(sch):
        _dot(sch, product)
        return sch
    *_, a, b, lane, k = sch.get_loops(product)
    sch.reorder(k, a, b, lane)
    if partial is not None:
        _put_sums_aside(sch, partial, k)
    if packed is not None:
        sch.compute_at(packed, panels, preserve_unit_loops=True)
        keep_in_registers(sch, packed, 2)
    keep_in_registers(sch, product)
    keep_in_registers(sch, sch.decompose_reduction(product, k))
    return sch


def _dot(sch: Schedule, product: SBlockRV) -> None:
    """Sums of a tile in registers, four terms a step."""
    *_, a, b, lane, k, four = sch.get_loops(product)
    sch.reorder(k, a, b, lane, four)
    for loop in (a, b):
        sch.unroll(loop)
    keep_in_registers(sch, sch.decompose_reduction(product, k))
    sch.annotate(lane, "evo_dot", 1)
    whole = producer(sch, product, "whole")
    if whole is not None:
        sch.vectorize(sch.split(sch.get_loops(whole)[-1], [None, 4])[1])


def _put_sums_aside(sch: Schedule, partial: SBlockRV, at: LoopRV) -> None:
    """A tile's sum over each chunk of the depth, in registers."""
    sch.compute_at(partial, at, preserve_unit_loops=True)
    *_, a, b, chunk, lane, k = sch.get_loops(partial)
    sch.reorder(k, a, b, chunk, lane)
    keep_in_registers(sch, partial, 4)
    keep_in_registers(sch, sch.decompose_reduction(partial, k), 4)
