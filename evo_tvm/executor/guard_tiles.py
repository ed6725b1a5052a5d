"""f(x) under a mask of channels => each tile of channels is computed where its mask is not all zero, else set.

    for o: { conv[o] = ...; out[o] = select(mask[o] != 0, relu(conv[o]), 0) }
      =>  for o: if (mask[o] != 0) { conv[o] = ...; out[o] = ... } else { out[o] = 0 }

The condition stands at the outermost loop that has one tile of channels inside, so that a whole tile costs one look.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, IRModule, TensorLoad, Var
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_statements import rewrite_statements, with_body

#: A function's attribute: [number of the parameter that is the mask, lanes of a block, blocks in a tile, channels that
#: share a decision].
ATTRIBUTE = "evo_mask"


@tvm.transform.module_pass(opt_level=0, name="GuardTiles")
def guard_tiles(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after LowerOpaqueBlock, when the loops are plain and parameters still have their shapes."""
    return IRModule({gv: _guard(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _guard(func: tirx.PrimFunc) -> tirx.PrimFunc:
    if func.attrs is None or ATTRIBUTE not in func.attrs:
        return func
    number, lanes, tile, channels = (int(e) for e in func.attrs[ATTRIBUTE])
    mask = func.params[number]
    place = _place_of(func.body, mask)
    if place is None:
        return func
    loops, index = place
    used = _variables(index)
    at = next((i for i in range(len(loops)) if _extent(loops[i + 1 :], used) <= tile * lanes), None)
    if at is None:
        return func

    def rewrite(stmt: tirx.Stmt, around: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.For) or not stmt.loop_var.same_as(loops[at].loop_var):
            return stmt
        inner = [loop for loop in loops[at + 1 :] if _holds(used, loop.loop_var)]
        condition = _any(mask, index, inner, lanes, channels)
        return with_body(stmt, tir_stmt.IfThenElse(condition, stmt.body, _set(stmt.body, mask)))

    return func.with_body(rewrite_statements(func.body, rewrite))


def _place_of(body: tirx.Stmt, mask: Var) -> tuple[tuple[tir_stmt.For, ...], Expr] | None:
    """The loops around the store that reads the mask, and where it reads it; None where there is not one such store."""
    found: list[tuple[tuple[tir_stmt.For, ...], Sequence[Expr]]] = []

    def look(stmt: tirx.Stmt, loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if isinstance(stmt, tir_stmt.BufferStore):
            found.extend((loops, load.indices) for load in _loads(stmt.value, mask))
        return stmt

    rewrite_statements(body, look)
    if not found or any(loops != found[0][0] for loops, _ in found):
        return None
    loops, indices = found[0]
    at: Expr = tirx.const(0, "int32")
    for place, extent in zip(indices, mask.ty.shape, strict=True):
        at = at * extent + place
    return loops, at


def _loads(value: Expr, mask: Var) -> list[TensorLoad]:
    found: list[TensorLoad] = []

    def visit(load: TensorLoad, visitor: tvm_ffi.StructuralVisitor) -> None:
        if load.source.same_as(mask):
            found.append(load)
        visitor.default_visit(load)

    tvm_ffi.structural_visit(value, [(TensorLoad, visit)])
    return found


def _variables(value: Expr) -> list[Var]:
    found: list[Var] = []
    tvm_ffi.structural_visit(value, [(Var, lambda var, _visitor: found.append(var))])
    return found


def _holds(variables: Sequence[Var], var: Var) -> bool:
    return any(var.same_as(other) for other in variables)


def _extent(loops: Sequence[tir_stmt.For], used: Sequence[Var]) -> int:
    """How many channels the loops go through."""
    return math.prod(int(loop.extent) for loop in loops if _holds(used, loop.loop_var))


def _any(mask: Var, index: Expr, inner: Sequence[tir_stmt.For], lanes: int, channels: int) -> Expr:
    """Whether the mask is on anywhere in the tile; channels that share a decision are asked once."""
    extents = [range(int(loop.extent)) for loop in inner]
    if channels % math.prod(map(len, extents)) == 0:
        extents = [range(1) for _ in inner]
    elif channels % lanes == 0:
        extents[-1] = range(1)
    shape = [int(e) for e in mask.ty.shape]
    terms = []
    for values in itertools.product(*extents):
        at = _substituted(index, [loop.loop_var for loop in inner], values)
        place = [at // math.prod(shape[i + 1 :]) % extent for i, extent in enumerate(shape)]
        terms.append(tirx.BufferLoad(mask, place) != tirx.const(0, "float32"))
    condition = terms[0]
    for term in terms[1:]:
        condition = tirx.Or(condition, term)
    return condition


def _substituted(value: Expr, variables: Sequence[Var], numbers: Sequence[int]) -> Expr:
    def put(var: Var, _mutator: tvm_ffi.StructuralMutator) -> Expr:
        for other, number in zip(variables, numbers, strict=True):
            if var.same_as(other):
                return tirx.const(number, "int32")
        return var

    return tvm_ffi.structural_mutate(value, [(Var, put)])


def _set(body: tirx.Stmt, mask: Var) -> tirx.Stmt:
    """What is left of the body where the mask is zero: only the store that reads it, of what it keeps then."""

    def simplify(select: tirx.Select, mutator: tvm_ffi.StructuralMutator) -> Expr:
        if _loads(select.condition, mask):
            return select.false_value
        return mutator.default_mutate(select)

    def reduce(stmt: tirx.Stmt) -> tirx.Stmt | None:
        if isinstance(stmt, tir_stmt.SeqStmt):
            kept = [left for part in stmt.seq if (left := reduce(part)) is not None]
            return kept[0] if len(kept) == 1 else tir_stmt.SeqStmt(kept) if kept else None
        if isinstance(stmt, tir_stmt.For):
            inner = reduce(stmt.body)
            if inner is None:
                return None
            return _renamed(stmt, inner)
        if isinstance(stmt, tir_stmt.AttrStmt):
            inner = reduce(stmt.body)
            return None if inner is None else tir_stmt.AttrStmt(stmt.node, stmt.attr_key, stmt.value, inner)
        if isinstance(stmt, tir_stmt.IfThenElse):
            inner = reduce(stmt.then_case)
            return None if inner is None else tir_stmt.IfThenElse(stmt.condition, inner, None)
        if isinstance(stmt, tir_stmt.BufferStore) and _loads(stmt.value, mask):
            value = tvm_ffi.structural_mutate(stmt.value, [(tirx.Select, simplify)])
            return tir_stmt.BufferStore(stmt.buffer, value, stmt.indices)
        return None

    left = reduce(body)
    assert left is not None
    return left


def _renamed(loop: tir_stmt.For, body: tirx.Stmt) -> tir_stmt.For:
    """The loop around another body, counting with a variable of its own."""
    var = Var(loop.loop_var.name, loop.loop_var.ty)

    def put(old: Var, _mutator: tvm_ffi.StructuralMutator) -> Expr:
        return var if old.same_as(loop.loop_var) else old

    body = tvm_ffi.structural_mutate(body, [(Var, put)])
    return tir_stmt.For(var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, loop.annotations, loop.step)
