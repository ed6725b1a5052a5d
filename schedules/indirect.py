"""Schedule of the indirect convolution: tile by tile of output channels by pixels, the whole depth in one go."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import (
    extent,
    is_peeled,
    keep_in_registers,
    largest_divisor,
    local_sums,
    parallel,
    pixels_as_one_axis,
    split_peeled,
)


@dataclass(frozen=True)
class Config:
    """Tunables: `oc_tile` blocks of output channels by `pixel_tile` pixels are kept in registers.

    Each pixel of the tile takes a pointer: more than some seven do not fit x86's general registers. The pointers are
    worked out once for `unroll` channels.
    """

    oc_tile: int = 4
    pixel_tile: int = 6
    unroll: int = 16


def schedule(func: tirx.PrimFunc, config: Config) -> Schedule:
    """[partial ->] gemm -> conv -> output on (N, OC/b, OH, OW, b)."""
    sch = pixels_as_one_axis(func)
    gemm, out = sch.get_sblock("gemm"), sch.get_sblock("output")
    partial, amount = local_sums(sch, gemm)

    n, o, p, v = sch.get_loops(out)
    (oo, oi), (po, pi) = split_peeled(sch, o, config.oc_tile), split_peeled(sch, p, config.pixel_tile)
    outer = [loop for loop in (n, oo) if not is_peeled(sch, loop)]
    sch.reorder(*outer, *([oo] if is_peeled(sch, oo) else []), po, oi, pi, v)
    parallel(sch, outer, amount)
    sch.compute_at(gemm, po, preserve_unit_loops=True)
    keep_in_registers(sch, out)
    if partial is not None:
        to, tp, tv, t = sch.get_loops(gemm)[-4:]
        sch.reorder(t, tp, to, tv)
        sch.compute_at(partial, t, preserve_unit_loops=True)
        to, tp, unit, tv, co, ci = sch.get_loops(partial)[-6:]
        cio, cii = sch.split(ci, [None, largest_divisor(extent(sch, ci), config.unroll)])
        sch.reorder(co, cio, cii, unit, tp, to, tv)
        sch.unroll(cii)
        keep_in_registers(sch, partial)
        keep_in_registers(sch, sch.decompose_reduction(partial, co))
    else:
        to, tp, tv, t, co, ci = sch.get_loops(gemm)[-6:]
        cio, cii = sch.split(ci, [None, largest_divisor(extent(sch, ci), config.unroll)])
        sch.reorder(t, co, cio, cii, tp, to, tv)
        sch.unroll(cii)
    keep_in_registers(sch, gemm)
    keep_in_registers(sch, sch.decompose_reduction(gemm, t))
    return sch
