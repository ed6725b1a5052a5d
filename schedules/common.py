"""What schedules share."""

from __future__ import annotations

import math

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

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
