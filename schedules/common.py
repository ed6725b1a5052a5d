"""What schedules share."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.s_tir.transform import StmtSimplify

#: Below this many elements or multiply-adds a kernel is not worth waking a second thread for (a few microseconds).
PARALLEL_WORK = 65536


def extent(sch: Schedule, loop: LoopRV) -> int:
    """The loop's trip count."""
    return int(sch.get(loop).extent)


def work(sch: Schedule, block: SBlockRV) -> int:
    """How many times the block's body runs."""
    return math.prod(extent(sch, loop) for loop in sch.get_loops(block))


def parallel(sch: Schedule, loops: list[LoopRV], amount: int) -> LoopRV:
    """Fuses the loops, outermost first, and shares them out to threads if there is enough to do."""
    fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    if amount >= PARALLEL_WORK and extent(sch, fused) > 1:
        sch.parallel(fused)
    return fused


def largest_divisor(value: int, limit: int) -> int:
    """The largest divisor of `value` that is at most `limit`."""
    return next(d for d in range(min(value, limit), 0, -1) if value % d == 0)


_PEEL = "pragma_loop_partition_hint"


def split_peeled(sch: Schedule, loop: LoopRV, tile: int) -> list[LoopRV]:
    """Tiles of the loop. Where they do not divide it, the last gets code of its own, and the others no guards."""
    divides = extent(sch, loop) % tile == 0
    outer, inner = sch.split(loop, [None, tile])
    if not divides:
        sch.annotate(outer, _PEEL, 1)
    return [outer, inner]


def is_peeled(sch: Schedule, loop: LoopRV) -> bool:
    """Whether `split_peeled` made this loop, with a tile that does not divide."""
    return _PEEL in sch.get(loop).annotations


def keep_in_registers(sch: Schedule, block: SBlockRV, loops: int = 3) -> None:
    """Unrolls the block's innermost `loops` loops but the last, which is vectorized."""
    *tile, lanes = sch.get_loops(block)[-loops:]
    for loop in tile:
        sch.unroll(loop)
    sch.vectorize(lanes)


def producer(sch: Schedule, block: SBlockRV, name: str) -> SBlockRV | None:
    """The block of this name whose result `block` reads; None where there is none."""
    return next((maker for maker in sch.get_producers(block) if sch.get(maker).name_hint == name), None)


def local_sums(sch: Schedule, block: SBlockRV) -> tuple[SBlockRV | None, int]:
    """Puts the block's sums, and those that "partial" puts aside for it, into registers: (that block, if there is one;
    multiply-adds)."""
    partial = producer(sch, block, "partial")
    for sums in (block, partial):
        if sums is not None:
            sch.set_scope(sums, 0, "local")
    return partial, work(sch, partial or block)


def dots(sch: Schedule) -> bool:
    """Whether there are weights, parameter 1, and they are bytes in fours: the reduction's last axis."""
    params = sch.mod["main"].params
    return len(params) > 2 and str(params[1].ty.dtype) == "int8"


def finish_tile(sch: Schedule, out: SBlockRV, at: LoopRV, loops: int, whole: bool) -> None:
    """The end of a kernel whose result has a tile of `loops` loops below `at`, in registers. Where "rounded" comes
    before it, bytes are made of all pixels of a row of the tile at once, if no tile is cut off (`whole`)."""
    rounded = producer(sch, out, "rounded")
    if rounded is None:
        keep_in_registers(sch, out, loops)
        return
    if not whole:
        sch.compute_inline(rounded)
        keep_in_registers(sch, out, loops)
        return
    sch.set_scope(rounded, 0, "local")
    sch.compute_at(rounded, at, preserve_unit_loops=True)
    keep_in_registers(sch, rounded, loops)
    *tile, pixels, lanes = sch.get_loops(out)[-loops:]
    for loop in tile:
        sch.unroll(loop)
    vector = extent(sch, lanes)
    sch.annotate(sch.fuse(pixels, lanes), "evo_narrow", vector)


def inline_rounded(sch: Schedule, out: SBlockRV) -> None:
    """Without a tile of several vectors there is nothing to make bytes of at once."""
    rounded = producer(sch, out, "rounded")
    if rounded is not None:
        sch.compute_inline(rounded)


def end_at_condition(sch: Schedule, loop: LoopRV) -> None:
    """Makes a condition marked "likely" on this loop's counter the loop's end, where the rest would do nothing."""
    sch.annotate(loop, _PEEL, 1)


def pixels_as_one_axis(func: tirx.PrimFunc) -> Schedule:
    """A schedule in which "output" (N, OC/b, OH, OW, b) loops over (N, OC/b, OH * OW, b), the stage "conv" inlined."""
    sch = Schedule(func)
    sch.compute_inline(sch.get_sblock("conv"))
    width = extent(sch, sch.get_loops(sch.get_sblock("output"))[3])
    sch.transform_block_layout("output", lambda n, o, i, j, v: [n, o, i * width + j, v])
    return Schedule(StmtSimplify()(sch.mod))  # p // width * width + p % width => p, which compute_at needs to see


def prefetch(
    sch: Schedule,
    block: SBlockRV,
    at: LoopRV,
    parameter: int,
    panel_bytes: int,
    panels: int,
    reads: int,
    linear: bool,
) -> None:
    """Each step of loop `at` around `block` fetches its share of the panel after the one that it works on.

    The kernel reads all of `parameter`, `panels` times `panel_bytes`, front to back, `reads` times over.
    linear: addresses grow by as much in each step of the loop; else each is worked out by itself.
    """
    loops = sch.get_loops(block)
    place = next(i for i, loop in enumerate(loops) if sch.get(loop).same_as(sch.get(at)))
    steps = math.prod(extent(sch, loop) for loop in loops[: place + 1])
    name = "evo_linear_prefetch" if linear else "evo_prefetch"
    sch.annotate(at, name, [parameter, panel_bytes, panels, max(1, steps // (panels * reads))])
