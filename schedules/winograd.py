"""Schedule of Winograd convolution: rows of tiles go through all transforms while they are in cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import (
    extent,
    inline_rounded,
    keep_in_registers,
    parallel,
    prefetch,
    split_peeled,
    work,
)


@dataclass(frozen=True)
class Config:
    """Tunables. `group_rows` rows of tiles are transformed together; in their product `oc_tile` channel blocks by
    `row_tile` by `column_tile` tiles are kept in registers.

    prefetch, linear_prefetch: fetch the weights of the next product meanwhile, as of `spatial_pack`; by_channels:
    threads share out the output channels of a group, so that each reads its part of the weights, instead of the groups.
    spread: the elements of a transformed tile, which are written one after the other, lie an odd number of cache lines
    apart, so that they do not compete for the same few places in the first cache.
    """

    group_rows: int = 1
    oc_tile: int = 2
    row_tile: int = 1
    column_tile: int = 14
    prefetch: bool = False
    by_channels: bool = False
    spread: bool = False
    linear_prefetch: bool = False


#: Bytes of a cache line.
_LINE = 64


def schedule(func: tirx.PrimFunc, m: int, config: Config) -> Schedule:
    """columns -> input -> product -> rows -> conv -> output, on (N, OC/b, OH, OW, b)."""
    sch = Schedule(func)
    in_pairs = str(func.params[1].ty.dtype) == "int16"
    columns, transformed, product = (sch.get_sblock(name) for name in ("columns", "input", "product"))
    rows, out = sch.get_sblock("rows"), sch.get_sblock("output")
    amount = work(sch, product)
    sch.compute_inline(sch.get_sblock("conv"))
    inline_rounded(sch, out)
    for block in (columns, rows):
        sch.set_scope(block, 0, "local")

    n, o, h, w, v = sch.get_loops(out)
    group, y, i = sch.split(h, [None, config.group_rows, m])
    x, j = sch.split(w, [None, m])
    oo, oi = split_peeled(sch, o, config.oc_tile)
    sch.reorder(n, group, oo, oi, y, x, i, j, v)
    reads = extent(sch, n) * extent(sch, group)
    if config.by_channels:
        outer = sch.fuse(n, group)
        parallel(sch, [oo], amount)
    else:
        outer = parallel(sch, [n, group], amount)
    sch.compute_at(rows, x, preserve_unit_loops=True)
    for block in (rows, out):
        keep_in_registers(sch, block)

    sch.compute_at(product, oo, preserve_unit_loops=True)
    po, e, f, py, px, pv, k, *q = sch.get_loops(product)[-8 if in_pairs else -7 :]
    yo, yi = split_peeled(sch, py, config.row_tile)
    xo, xi = split_peeled(sch, px, config.column_tile)
    sch.reorder(e, f, yo, xo, k, yi, xi, po, pv, *q)
    sums = sch.cache_write(product, 0, "local")
    sch.reverse_compute_at(sums, xo, preserve_unit_loops=True)

    sch.compute_at(transformed, outer, preserve_unit_loops=True)
    te_, tf, tc, ty, tx, tv = sch.get_loops(transformed)[-6:]
    sch.reorder(tc, ty, tx, te_, tf, tv)
    sch.compute_at(columns, tx, preserve_unit_loops=True)
    for block in (transformed, columns):
        keep_in_registers(sch, block)
    if config.spread:
        line = _LINE // (2 if in_pairs else 4)
        sch.storage_align(transformed, 0, 2, 2 * line, line)
    if config.by_channels:
        parallel(sch, [tc, ty], amount)

    if config.prefetch:
        weight = [int(e) for e in func.params[1].ty.shape]
        panel_bytes = math.prod(weight[2:]) * (2 if in_pairs else 4)
        prefetch(sch, product, k, 1, panel_bytes, weight[0] * weight[1], reads, config.linear_prefetch)
    for loop in (yi, xi, po):
        sch.unroll(loop)
    if not in_pairs:
        sch.vectorize(pv)
    keep_in_registers(sch, sch.decompose_reduction(product, k), 4)
    if in_pairs:
        sch.annotate(pv, "evo_dot", 1)
    keep_in_registers(sch, sums, 7)
    return sch
