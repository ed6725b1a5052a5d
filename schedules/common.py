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
