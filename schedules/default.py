"""Schedule of any TIR function: producers inlined, every loop nest in vectors and shared out to threads."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV, ScheduleError

from evo_tvm.schedules.common import extent, largest_divisor, parallel, work

#: Functions of many instructions.
_COSTLY = ("erf", "exp", "log", "pow", "sigmoid", "tanh")
_SPATIAL, _REDUCE = 0, 2  # tirx.IterVar.DataPar, CommReduce


def schedule(func: tirx.PrimFunc, lanes: int) -> Schedule:
    """Never fails: a block that a primitive refuses keeps its serial loops."""
    sch = Schedule(func)
    for block in _blocks(sch)[:-1]:
        if not _kinds(sch, block).count(_REDUCE) and not _worth_keeping(sch, block):
            _try(sch, lambda b=block: sch.compute_inline(b))
    for name in [sch.get(b).name_hint for b in _blocks(sch)]:
        sch = _on_copy(sch, name, lanes)
    return sch


def _worth_keeping(sch: Schedule, block: SBlockRV) -> bool:
    """Whether several blocks read what takes longer to compute than to load."""
    body = str(sch.get(block).body)
    return len(sch.get_consumers(block)) > 1 and any(f"T.{name}(" in body for name in _COSTLY)


def _blocks(sch: Schedule) -> list[SBlockRV]:
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def _kinds(sch: Schedule, block: SBlockRV) -> list[int]:
    return [int(v.iter_type) for v in sch.get(block).iter_vars]


def _try(sch: Schedule, change) -> bool:  # type: ignore[no-untyped-def]
    try:
        change()
    except ScheduleError:
        return False
    return True


def _on_copy(sch: Schedule, name: str, lanes: int) -> Schedule:
    """`sch` with the block scheduled, or as it was if a primitive refuses half-way."""
    for rule in (_vectorize, _share_out):
        copy = sch.copy()
        try:
            rule(copy, copy.get_sblock(name), lanes)
        except ScheduleError:
            continue
        return copy
    return sch


def _share_out(sch: Schedule, block: SBlockRV, _lanes: int) -> None:
    """Only the outermost spatial loop, in parallel."""
    loops = sch.get_loops(block)
    if loops and _kinds(sch, block)[:1] == [_SPATIAL]:
        parallel(sch, loops[:1], work(sch, block))


def _vectorize(sch: Schedule, block: SBlockRV, lanes: int) -> None:
    loops, kinds, amount = sch.get_loops(block), _kinds(sch, block), work(sch, block)
    if len(loops) != len(kinds) or not loops:
        return _share_out(sch, block, lanes)
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _SPATIAL]
    reduce = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCE]
    if not spatial or len(spatial) + len(reduce) != len(loops):
        return None
    if reduce:
        return _vectorize_reduction(sch, block, spatial, reduce, amount, lanes)
    if len(spatial) > 1 and extent(sch, spatial[-1]) < lanes:
        spatial = [sch.fuse(*spatial)]
    *outer, inner = spatial
    rest, vector = sch.split(inner, [None, largest_divisor(extent(sch, inner), lanes)])
    sch.vectorize(vector)
    parallel(sch, [*outer, rest], amount)
    return None


def _vectorize_reduction(  # type: ignore[no-untyped-def]
    sch: Schedule, block: SBlockRV, spatial, reduce, amount: int, lanes: int
) -> None:
    """Output elements side by side in a vector, the reduction outside them."""
    *outer, inner = spatial
    width = largest_divisor(extent(sch, inner), 2 * lanes)
    rest, vector = sch.split(inner, [None, width])
    sch.reorder(*outer, rest, *reduce, vector)
    parallel(sch, [*outer, rest], amount)
    if width > 1:
        sch.vectorize(vector)
    sch.decompose_reduction(block, reduce[0])
    init = sch.get_sblock(f"{sch.get(block).name_hint.removesuffix('_update')}_init")
    if width > 1:
        sch.vectorize(sch.get_loops(init)[-1])
