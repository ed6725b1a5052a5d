"""Schedule of the dense kernel: rows by panels of output channels in registers, the whole depth in one go."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import extent, largest_divisor, parallel, work


@dataclass(frozen=True)
class Config:
    """Tunables: `row_tile` rows by `panel_tile` panels are kept in registers; the depth is unrolled by `unroll`."""

    row_tile: int = 6
    panel_tile: int = 4
    unroll: int = 4


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """dense (M, N/b, b) over K, then output (M, N)."""
    sch = Schedule(func)
    dense, out = sch.get_sblock("dense"), sch.get_sblock("output")
    amount = work(sch, dense)
    i, o, v, k = sch.get_loops(dense)
    io, ii = sch.split(i, [None, largest_divisor(extent(sch, i), config.row_tile)])
    oo, oi = sch.split(o, [None, largest_divisor(extent(sch, o), config.panel_tile)])
    ko, ki = sch.split(k, [None, largest_divisor(extent(sch, k), config.unroll)])
    sch.reorder(oo, io, ko, ki, ii, oi, v)
    parallel(sch, [oo, io], amount)
    tile = sch.cache_write(dense, 0, "global")  # the accumulators: small enough to become registers
    sch.reverse_compute_at(tile, sch.get_loops(dense)[0], preserve_unit_loops=True)
    for loop in (ki, ii, oi):
        sch.unroll(loop)
    sch.vectorize(v)
    init = sch.decompose_reduction(dense, ko)
    for block in (init, tile):
        *_, i_, o_, v_ = sch.get_loops(block)
        sch.unroll(i_)
        sch.unroll(o_)
        sch.vectorize(v_)
    _vectorize_row(sch, out)
    return sch


def _vectorize_row(sch: Schedule, out) -> None:  # type: ignore[no-untyped-def]
    _, j = sch.get_loops(out)
    width = extent(sch, j)
    lanes = largest_divisor(width, 16)
    if lanes > 1:
        _, inner = sch.split(j, [None, lanes])
        sch.vectorize(inner)
