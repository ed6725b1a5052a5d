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
    """partial (M, N/b, chunks, b) inside dense (M, N/b, b), tile by tile; then output (M, N)."""
    sch = Schedule(func)
    partial, dense, out = sch.get_sblock("partial"), sch.get_sblock("dense"), sch.get_sblock("output")
    amount = work(sch, partial)
    i, o, v, ko = sch.get_loops(dense)
    io, ii = sch.split(i, [None, largest_divisor(extent(sch, i), config.row_tile)])
    oo, oi = sch.split(o, [None, largest_divisor(extent(sch, o), config.panel_tile)])
    sch.reorder(oo, io, ko, ii, oi, v)
    parallel(sch, [oo, io], amount)
    sch.compute_at(partial, ko, preserve_unit_loops=True)
    pi, po, _, pv, ki = sch.get_loops(partial)[-5:]
    k_outer, k_inner = sch.split(ki, [None, largest_divisor(extent(sch, ki), config.unroll)])
    sch.reorder(k_outer, k_inner, pi, po, pv)
    for loop in (k_inner, pi, po, ii, oi):
        sch.unroll(loop)
    sch.vectorize(pv)
    sch.vectorize(v)
    inits = [sch.decompose_reduction(partial, k_outer), sch.decompose_reduction(dense, ko)]
    for block, spatial in zip(inits, (4, 3), strict=True):
        *unrolled, lanes = sch.get_loops(block)[-spatial:]
        for loop in unrolled:
            sch.unroll(loop)
        sch.vectorize(lanes)
    _vectorize_row(sch, out)
    return sch


def _vectorize_row(sch: Schedule, out) -> None:  # type: ignore[no-untyped-def]
    _, j = sch.get_loops(out)
    width = extent(sch, j)
    lanes = largest_divisor(width, 16)
    if lanes > 1:
        _, inner = sch.split(j, [None, lanes])
        sch.vectorize(inner)
