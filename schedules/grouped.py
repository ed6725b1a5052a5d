"""Schedules of grouped convolution: windowed like the direct convolution, lanewise like the depthwise one."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import (
    end_at_condition,
    extent,
    is_peeled,
    keep_in_registers,
    largest_divisor,
    parallel,
    split_peeled,
    work,
)

#: Copies of single elements in a row from which LLVM makes shuffles. Of fewer it makes a loop of gathers and scatters,
#: which takes three times as long; of many more it takes seconds to compile.
_COPIES = 64
#: Channels of a group that are copied in one go: 8 for each of 16 lanes are 128 copies.
_CHANNELS = 8


@dataclass(frozen=True)
class Config:
    """Tunables. Windowed: `oh_tile` rows by `ow_tile` columns of one block of output channels are kept in registers.

    Lanewise: that many again, and `rows` rows of output share one copy of their input channels in lanes.
    """

    oh_tile: int = 1
    ow_tile: int = 14
    rows: int = 8


def schedule_windowed(func: tirx.PrimFunc, config: Config) -> Schedule:
    """conv -> output on (N, OC/b, OH, OW, b). Blocks touch groups of their own, so a tile has one block."""
    sch = Schedule(func)
    conv, out = sch.get_sblock("conv"), sch.get_sblock("output")
    sch.set_scope(conv, 0, "local")
    amount = work(sch, conv)
    n, o, i, j, v = sch.get_loops(out)
    (io, ii), (jo, ji) = split_peeled(sch, i, config.oh_tile), split_peeled(sch, j, config.ow_tile)
    peeled = is_peeled(sch, io)
    sch.reorder(n, o, io, jo, ii, ji, v)
    parallel(sch, [n, o] if peeled else [n, o, io], amount)
    sch.compute_at(conv, jo, preserve_unit_loops=True)
    ti, tj, tv, co, r, s, ci = sch.get_loops(conv)[-7:]
    sch.reorder(co, r, s, ci, ti, tj, tv)
    end_at_condition(sch, co)
    for block in (conv, out):
        keep_in_registers(sch, block)
    keep_in_registers(sch, sch.decompose_reduction(conv, co))
    return sch


def schedule_lanewise(func: tirx.PrimFunc, config: Config) -> Schedule:
    """lanes -> conv -> output on (N, OC/b, OH, OW, b)."""
    sch = Schedule(func)
    lanes, conv, out = (sch.get_sblock(name) for name in ("lanes", "conv", "output"))
    sch.set_scope(conv, 0, "local")
    amount = work(sch, conv)
    n, o, i, j, v = sch.get_loops(out)
    band, rest = split_peeled(sch, i, min(config.rows, extent(sch, i)))
    io, ii = split_peeled(sch, rest, min(config.oh_tile, extent(sch, rest)))
    jo, ji = split_peeled(sch, j, config.ow_tile)
    outer = [n, o] if is_peeled(sch, band) else [n, o, band]
    inner = [band] if is_peeled(sch, band) else []
    sch.reorder(*outer, *inner, io, jo, ii, ji, v)
    shared = parallel(sch, outer, amount)
    sch.compute_at(conv, jo, preserve_unit_loops=True)
    sch.compute_at(lanes, inner[0] if inner else shared, preserve_unit_loops=True)
    channel, y, x, lane = sch.get_loops(lanes)[-4:]
    channel, some = sch.split(channel, [None, largest_divisor(extent(sch, channel), _CHANNELS)])
    pixels = -(-_COPIES // (extent(sch, some) * extent(sch, lane)))
    xo, xi = split_peeled(sch, x, min(pixels, extent(sch, x)))
    sch.reorder(y, channel, xo, xi, some, lane)
    for loop in (xi, some, lane):
        sch.unroll(loop)
    ti, tj, tv, k, r, s = sch.get_loops(conv)[-6:]
    sch.reorder(k, r, s, ti, tj, tv)
    for loop in (r, s):
        sch.unroll(loop)
    for block in (conv, out):
        keep_in_registers(sch, block)
    keep_in_registers(sch, sch.decompose_reduction(conv, k))
    return sch
