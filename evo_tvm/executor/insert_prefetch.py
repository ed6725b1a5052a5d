"""loop annotated "evo_prefetch" => the same loop, whose every step also asks for some cache lines of a later tile; one
request stands before the loop, where that is enough.

A kernel that reads its weights once from memory waits for them while it works on its first tile, and leaves memory idle
during the others. Here each step of the reduction fetches its share of what the next tiles need into the second cache,
so that memory and arithmetic overlap. Hardware prefetchers do not see that far: their streams end with each page.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr, IRModule, Var
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_statements import rewrite_statements, with_body

#: The annotations, of addresses that are linear in the innermost loop, and of others: [parameter's number, bytes of a
#: panel of it, panels, steps of the loop nest that work on a panel].
LINEAR, ANNOTATION = "evo_linear_prefetch", "evo_prefetch"
_LINE_BYTES = 64
_READ, _SECOND_CACHE, _DATA = 0, 2, 1


@tvm.transform.module_pass(opt_level=0, name="InsertPrefetch")
def insert_prefetch(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after LowerOpaqueBlock, when the loops are plain and parameters still have their shapes."""
    return IRModule({gv: _insert(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _insert(func: tirx.PrimFunc) -> tirx.PrimFunc:
    def rewrite(stmt: tirx.Stmt, loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.For) or not (ANNOTATION in stmt.annotations or LINEAR in stmt.annotations):
            return stmt
        linear = LINEAR in stmt.annotations
        parameter, panel_bytes, panels, steps = (int(e) for e in stmt.annotations[LINEAR if linear else ANNOTATION])
        buffer, lines, runs = func.params[parameter], -(-panel_bytes // _LINE_BYTES), steps // int(stmt.extent)
        if not linear:
            fetches = _fetches(buffer, lines, panels, steps, (*loops, stmt))
        elif lines <= runs:  # at most a line for all of the innermost loop
            return tir_stmt.SeqStmt([*_fetches(buffer, lines, panels, runs, loops), stmt])
        else:
            fetches = _fetches(buffer, lines, panels, steps, loops, stmt)
        return with_body(stmt, tir_stmt.SeqStmt([*fetches, stmt.body]))

    return func.with_body(rewrite_statements(func.body, rewrite))


def _fetches(
    buffer: Var,
    lines: int,
    panels: int,
    steps: int,
    nest: Sequence[tir_stmt.For],
    inner: tir_stmt.For | None = None,
) -> list[tirx.Stmt]:
    """A step's share of the panel after the present one; the steps of all loops of the nest count on.

    inner: the innermost loop, where its steps follow each other at a constant distance, for one division for all of
    them: one in each step takes longer than the multiply-adds of a small register tile. The distance is rounded up to
    elements, so that its last steps may ask for what the next ones ask for again.
    """
    origin = [0] * (len(buffer.ty.shape) - 1)
    line = _LINE_BYTES * 8 // tvm.DataType(str(buffer.ty.dtype)).bits  # in elements
    each = -(-lines // steps)
    runs = steps if inner is None else max(1, steps // int(inner.extent))
    first = tirx.floordiv(_step(nest, panels * runs) * lines, runs) + lines
    distance = each * line if lines > steps else -(-lines * line // steps)
    beyond = 0 if inner is None else (inner.loop_var - inner.min) * distance
    places = [[*origin, (first + i) * line + beyond] for i in range(each)]
    return [
        tir_stmt.Evaluate(
            tirx.call_intrin(
                "void", "tirx.prefetch", tirx.address_of(tirx.BufferLoad(buffer, at)), _READ, _SECOND_CACHE, _DATA
            )
        )
        for at in places
    ]


def _step(nest: Sequence[tir_stmt.For], once: int) -> Expr:
    """How many steps of the loops came before, since all panels were begun last; once: those of reading all panels."""
    step, total = tirx.const(0, "int32"), 1
    for loop in nest:
        step, total = step * loop.extent + (loop.loop_var - loop.min), total * int(loop.extent)
    return tirx.floormod(step, once) if total > once else step
