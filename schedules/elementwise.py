"""Schedule of a lone elementwise stage, in any layout."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule

from evo_tvm.schedules.common import extent, largest_divisor, parallel, work


def schedule(func: tirx.PrimFunc, lanes: int) -> Schedule:
    """output: the innermost loop in vectors (of up to four registers), the outer ones shared out."""
    sch = Schedule(func)
    out = sch.get_sblock("output")
    amount = work(sch, out)
    *outer, inner = sch.get_loops(out)
    width = extent(sch, inner)
    if width == 1 and outer:  # plain from blocked: vectors along the image's row
        *outer, inner = outer
        width = extent(sch, inner)
    vector = largest_divisor(width, 4 * lanes)
    if vector >= lanes or vector == width:
        rest, inner = sch.split(inner, [None, vector])
        outer = [*outer, rest]
        sch.vectorize(inner)
    else:  # a width like a prime: whole vectors, then a guarded tail
        rest, tail = sch.split(inner, [None, lanes])
        outer = [*outer, rest]
        sch.vectorize(tail)
    parallel(sch, outer, amount)
    return sch
