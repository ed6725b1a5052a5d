"""Schedule of transposed convolution: the direct convolution's, for one phase of the stride after the other."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.s_tir.transform import StmtSimplify

from evo_tvm.schedules.common import (
    end_at_condition,
    extent,
    is_peeled,
    keep_in_registers,
    parallel,
    split_peeled,
    work,
)


@dataclass(frozen=True)
class Config:
    """Tunables: `oc_tile` blocks of output channels by `oh_tile` by `ow_tile` pixels of one phase are in registers."""

    oc_tile: int = 2
    oh_tile: int = 1
    ow_tile: int = 14


def schedule(func: tirx.PrimFunc, stride: tuple[int, int], config: Config) -> Schedule:
    """[partial ->] phases -> conv -> output on (N, OC/b, OH, OW, b). A phase's pixels lie `stride` apart.

    Where the stride divides OH and OW, a tile goes from registers through the epilogue to its place. Otherwise phases
    have different sizes: the image of `oc_tile` blocks is computed in phases first, and then put together.
    """
    sch = Schedule(func)
    sch.compute_inline(sch.get_sblock("conv"))
    _, _, i, j, _ = sch.get_loops(sch.get_sblock("output"))
    if extent(sch, i) % stride[0] or extent(sch, j) % stride[1]:
        return _phases_first(sch, config)
    return _phase_by_phase(sch, stride, config)


def _phase_by_phase(sch: Schedule, stride: tuple[int, int], config: Config) -> Schedule:
    sh, sw = stride
    sch.transform_block_layout("output", lambda n, o, i, j, v: [n, o, i // sh, i % sh, j // sw, j % sw, v])
    sch = Schedule(StmtSimplify()(sch.mod))  # (y*s + phase) % s => phase, which compute_at needs to see
    phases, out = sch.get_sblock("phases"), sch.get_sblock("output")
    sch.set_scope(phases, 0, "local")
    amount = work(sch, phases)
    n, o, i, row_phase, j, column_phase, v = sch.get_loops(out)
    oo, oi = split_peeled(sch, o, config.oc_tile)
    (io, ii), (jo, ji) = split_peeled(sch, i, config.oh_tile), split_peeled(sch, j, config.ow_tile)
    outer = [n, row_phase, column_phase, oo, io]
    sch.reorder(*outer, jo, oi, ii, ji, v)
    peeled = next((k for k, loop in enumerate(outer) if is_peeled(sch, loop)), len(outer))
    parallel(sch, outer[:peeled], amount)
    sch.compute_at(phases, jo, preserve_unit_loops=True)
    keep_in_registers(sch, out, 4)
    to, _, _, ti, tj, tv, *reduction = sch.get_loops(phases)[-_phase_loops(sch, phases) :]
    _fill_tile(sch, phases, [ti, tj, to, tv], reduction)
    return sch


def _phases_first(sch: Schedule, config: Config) -> Schedule:
    phases, out = sch.get_sblock("phases"), sch.get_sblock("output")
    amount = work(sch, phases)
    n, o, _, _, v = sch.get_loops(out)
    oo, _ = split_peeled(sch, o, config.oc_tile)
    sch.vectorize(v)
    sch.compute_at(phases, oo, preserve_unit_loops=True)
    to, p, q, i, j, tv, *reduction = sch.get_loops(phases)[-_phase_loops(sch, phases) :]
    (io, ti), (jo, tj) = split_peeled(sch, i, config.oh_tile), split_peeled(sch, j, config.ow_tile)
    sch.reorder(p, q, io, jo, *reduction, ti, tj, to, tv)
    sums = sch.cache_write(phases, 0, "local")
    sch.reverse_compute_at(sums, jo, preserve_unit_loops=True)
    parallel(sch, [n] if is_peeled(sch, oo) else [n, oo], amount)
    keep_in_registers(sch, sums, 6)
    _fill_tile(sch, phases, [ti, tj, to, tv], reduction)
    return sch


def _phase_loops(sch: Schedule, phases: SBlockRV) -> int:
    """Loops of the block itself: blocks of channels, two phases, rows, columns, lanes, and the reduction's."""
    return len(sch.get(phases).iter_vars) - 1


def _fill_tile(sch: Schedule, phases: SBlockRV, tile: list[LoopRV], reduction: list[LoopRV]) -> None:
    """The sum for a tile in registers: over taps and channels, or over parts that are such sums."""
    if len(reduction) == 4:
        first = _order(sch, reduction, tile)
        keep_in_registers(sch, phases, 4)
        keep_in_registers(sch, sch.decompose_reduction(phases, first), 4)
        return
    sch.reorder(*reduction, *tile)
    partial = sch.get_sblock("partial")
    sch.set_scope(partial, 0, "local")
    sch.compute_at(partial, reduction[0], preserve_unit_loops=True)
    to, _, _, ti, tj, _, tv, *terms = sch.get_loops(partial)[-11:]
    first = _order(sch, terms, [ti, tj, to, tv])
    for block in (partial, phases):
        keep_in_registers(sch, block, 4)
    keep_in_registers(sch, sch.decompose_reduction(partial, first), 4)
    keep_in_registers(sch, sch.decompose_reduction(phases, reduction[0]), 4)


def _order(sch: Schedule, reduction: list[LoopRV], tile: list[LoopRV]) -> LoopRV:
    """Weights in the order in which they lie; the taps end where the phase has no more. The outermost loop."""
    co, t, u, ci = reduction
    sch.reorder(co, t, u, ci, *tile)
    end_at_condition(sch, t)
    end_at_condition(sch, u)
    return co
