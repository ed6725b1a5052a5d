"""loop annotated "evo_prefetch" => the same loop, whose every step also asks for some cache lines of a later tile.

A kernel that reads its weights once from memory waits for them while it works on its first tile, and leaves memory idle
during the others. Here each step of the reduction fetches its share of what the next tiles need into the second cache,
so that memory and arithmetic overlap. Hardware prefetchers do not see that far: their streams end with each page.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import tirx
from tvm.ir import IRModule, Var
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_statements import rewrite_statements, with_body

#: The annotation: [parameter's number, bytes of a panel of it, panels, steps of the loop nest that work on a panel].
ANNOTATION = "evo_prefetch"
_LINE_BYTES = 64
_READ, _SECOND_CACHE, _DATA = 0, 2, 1


@tvm.transform.module_pass(opt_level=0, name="InsertPrefetch")
def insert_prefetch(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after LowerOpaqueBlock, when the loops are plain and parameters still have their shapes."""
    return IRModule({gv: _insert(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _insert(func: tirx.PrimFunc) -> tirx.PrimFunc:
    def rewrite(stmt: tirx.Stmt, loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.For) or ANNOTATION not in stmt.annotations:
            return stmt
        parameter, panel_bytes, panels, steps = (int(e) for e in stmt.annotations[ANNOTATION])
        fetches = _fetches(func.params[parameter], panel_bytes, panels, steps, (*loops, stmt))
        return with_body(stmt, tir_stmt.SeqStmt([*fetches, stmt.body]))

    return func.with_body(rewrite_statements(func.body, rewrite))


def _fetches(buffer: Var, panel_bytes: int, panels: int, steps: int, nest: Sequence[tir_stmt.For]) -> list[tirx.Stmt]:
    """This step's share of the panel after the present one; the steps of all loops of the nest count on."""
    step, total = tirx.const(0, "int32"), 1
    for loop in nest:
        step, total = step * loop.extent + (loop.loop_var - loop.min), total * int(loop.extent)
    if total > steps * panels:  # the panels are read again
        step = tirx.floormod(step, steps * panels)
    lines = -(-panel_bytes // _LINE_BYTES)
    first = tirx.floordiv(step * lines, steps) + lines
    origin = [0] * (len(buffer.ty.shape) - 1)
    line = _LINE_BYTES * 8 // tvm.DataType(str(buffer.ty.dtype)).bits  # in elements
    places = [[*origin, (first + i) * line] for i in range(-(-lines // steps))]
    return [
        tir_stmt.Evaluate(
            tirx.call_intrin(
                "void", "tirx.prefetch", tirx.address_of(tirx.BufferLoad(buffer, at)), _READ, _SECOND_CACHE, _DATA
            )
        )
        for at in places
    ]
