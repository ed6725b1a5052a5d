"""Broadcasts of neighbouring numbers => broadcasts of the lanes of one vector load, on AArch64.

    sums[0] += broadcast(A[i]) * W[0:4]             sums[0] += broadcast(lane 0 of A[i : i + 4]) * W[0:4]
    sums[1] += broadcast(A[i + 1]) * W[4:8]    =>   sums[1] += broadcast(lane 1 of A[i : i + 4]) * W[4:8]

There the instructions that multiply and add up take one operand as a lane of a vector ("by element"), so that one load
serves four of them, where each broadcast from memory is a load and an addition of its address.

`unroll_terms` makes neighbours first: a reduction along the innermost axis of A takes four terms a step. Numbers are
float32, or four bytes as an int32, whose bits may be flipped by a constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import tvm
from tvm import tirx
from tvm.ir import Call, Expr, IRModule, TensorLoad, Var
from tvm.sym import Analyzer
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_expressions import rewrite_expression, rewrite_in_statement
from evo_tvm.executor.rewrite_statements import Rewrite, rewrite_statements, statements_in

#: Numbers of 32 bits in a vector register, and so terms of a step.
_LANES = 4


@tvm.transform.module_pass(opt_level=0, name="UnrollTerms")
def unroll_terms(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs before UnrollLoop, when vectors are made: a loop over terms of a broadcast operand, with no other loop in it
    but those that will be unrolled, takes four at a time, which will be unrolled, too. Loops of one step go."""
    return _on_aarch64(mod, _unroll)


@tvm.transform.module_pass(opt_level=0, name="ShareLoads")
def share_loads(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after loops are unrolled, when the places of neighbours differ by constants."""
    return _on_aarch64(mod, _share)


def _on_aarch64(mod: IRModule, rewrite: Rewrite) -> IRModule:
    def on(func: tirx.PrimFunc) -> tirx.PrimFunc:
        triple = str(func.attrs["target"].attrs.get("mtriple", ""))
        return func.with_body(rewrite_statements(func.body, rewrite)) if triple.startswith("aarch64") else func

    return IRModule({gv: on(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


@dataclass(frozen=True)
class _Number:
    """32 bits of a buffer at `place`, `width` elements each, in the bits of `flipped` turned over (0: none)."""

    buffer: Var
    place: Expr
    width: int
    flipped: int


def _number(expr: Expr) -> _Number | None:
    """What a broadcast has as its value, if it is one: A[i], or reinterpret(A[i : i + 4]), or that ^ constant."""
    flipped = 0
    if isinstance(expr, tirx.BitwiseXor):
        expr, flipped = expr.a, int(expr.b)
    if isinstance(expr, TensorLoad) and str(expr.ty.dtype) == "float32":
        return _Number(expr.source, expr.indices[0], 1, flipped)
    if isinstance(expr, Call) and expr.op.name == "tirx.reinterpret" and str(expr.ty.dtype) == "int32":
        (load,) = expr.args
        if isinstance(load, TensorLoad) and isinstance(load.indices[0], tirx.Ramp):
            return _Number(load.source, load.indices[0].base, _LANES, flipped)
    return None


# ---- Four terms a step ----


def _unroll(loop: tirx.Stmt, _loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
    if not isinstance(loop, tir_stmt.For) or loop.kind != tirx.ForKind.SERIAL:
        return loop
    if not isinstance(loop.extent, tirx.IntImm):
        return loop
    extent, k = int(loop.extent), loop.loop_var
    if extent == 1:
        return _at(loop, loop.min)
    if not _is_of_terms(loop):
        return loop
    if extent <= _LANES:
        return tir_stmt.For(k, loop.min, loop.extent, tirx.ForKind.UNROLLED, loop.body)
    zero, four = tirx.const(0, "int32"), tirx.const(_LANES, "int32")
    outer, inner = Var(f"{k.name}_four", k.ty), Var(f"{k.name}_term", k.ty)
    terms = tir_stmt.For(inner, zero, four, tirx.ForKind.UNROLLED, _at(loop, loop.min + outer * four + inner))
    return tir_stmt.For(outer, zero, tirx.const(extent // _LANES, "int32"), loop.kind, terms)


def _at(loop: tir_stmt.For, value: Expr) -> tirx.Stmt:
    """A step of the loop."""
    return rewrite_statements(loop.body, lambda stmt, _: rewrite_in_statement(stmt, partial(_or, loop.loop_var, value)))


def _or(var: Var, value: Expr, expr: Expr) -> Expr:
    return value if isinstance(expr, Var) and expr.same_as(var) else expr


def _is_of_terms(loop: tir_stmt.For) -> bool:
    """Whether neighbouring steps broadcast neighbouring numbers, and all loops in it will be unrolled."""
    if int(loop.extent) > _LANES and int(loop.extent) % _LANES:
        return False
    inside = statements_in(loop.body)
    if any(isinstance(s, tir_stmt.For) and s.kind != tirx.ForKind.UNROLLED for s in inside):
        return False
    k, analyzer = loop.loop_var, Analyzer()
    for stmt in inside:
        for number in _broadcasts(stmt):
            here, there = (rewrite_expression(number.place, partial(_or, k, at)) for at in _two(loop))
            difference = analyzer.simplify(there - here)
            return isinstance(difference, tirx.IntImm) and int(difference) == number.width
    return False


def _two(loop: tir_stmt.For) -> tuple[Expr, Expr]:
    return loop.min, loop.min + 1


def _broadcasts(stmt: tirx.Stmt) -> Iterator[_Number]:
    if not isinstance(stmt, tir_stmt.BufferStore):
        return
    found: list[_Number] = []

    def visit(expr: Expr) -> Expr:
        number = _number(expr.value) if isinstance(expr, tirx.Broadcast) else None
        if number is not None:
            found.append(number)
        return expr

    rewrite_expression(stmt.value, visit)
    yield from found


# ---- One load for neighbours ----


@dataclass
class _Family:
    """Numbers of one buffer whose places differ from that of `first` by constants, in numbers."""

    first: _Number
    offsets: set[int] = field(default_factory=set)

    def starts(self) -> dict[int, int]:
        """Offset -> where the vector starts that it is a lane of; no vector reaches beyond the numbers that are there.

        One that would be alone in its vector is left out.
        """
        found: dict[int, int] = {}
        left, last = sorted(self.offsets), max(self.offsets)
        while left and last - min(self.offsets) >= _LANES - 1:
            start = min(left[0], last - _LANES + 1)
            together = [offset for offset in left if offset < start + _LANES]
            if len(together) > 1:
                found.update(dict.fromkeys(together, start))
            left = left[len(together) :]
        return found


def _share(stmt: tirx.Stmt, _loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
    if not isinstance(stmt, tir_stmt.SeqStmt):
        return stmt
    stores = [s for s in stmt.seq if isinstance(s, tir_stmt.BufferStore)]
    families = _Families()
    for number in (n for store in stores for n in _broadcasts(store)):
        if not any(number.buffer.same_as(store.buffer) for store in stores):
            families.add(number)
    starts = [family.starts() for family in families.all]

    def shared(expr: Expr) -> Expr:
        number = _number(expr.value) if isinstance(expr, tirx.Broadcast) else None
        place = families.find(number) if number is not None else None
        if place is None or place[1] not in starts[place[0]]:
            return expr
        family, offset = place
        start = starts[family][offset]
        return _broadcast(families.all[family].first, start, offset - start, int(expr.lanes))

    if not any(starts):
        return stmt
    return tir_stmt.SeqStmt(
        [rewrite_in_statement(s, shared) if isinstance(s, tir_stmt.BufferStore) else s for s in stmt.seq]
    )


class _Families:
    """Numbers by family, in the order in which they were found."""

    def __init__(self) -> None:
        self.all: list[_Family] = []
        self._analyzer = Analyzer()

    def add(self, number: _Number) -> None:
        place = self.find(number)
        if place is None:
            self.all.append(_Family(number, {0}))
        else:
            self.all[place[0]].offsets.add(place[1])

    def find(self, number: _Number) -> tuple[int, int] | None:
        """The number's family and its offset there."""
        for i, family in enumerate(self.all):
            first = family.first
            if number.buffer.same_as(first.buffer) and (number.width, number.flipped) == (first.width, first.flipped):
                difference = self._analyzer.simplify(number.place - first.place)
                if isinstance(difference, tirx.IntImm) and int(difference) % number.width == 0:
                    return i, int(difference) // number.width
        return None


def _broadcast(first: _Number, start: int, lane: int, lanes: int) -> Expr:
    """Lane `lane` of the vector that starts `start` numbers behind the first one, in all of `lanes` lanes.

    As a shuffle: a lane that is taken out and broadcast again becomes a load of its own in LLVM's hands.
    """
    base = first.place + tirx.const(start * first.width, "int32")
    vector: Expr = tirx.BufferLoad(first.buffer, [tirx.Ramp(base, 1, _LANES * first.width)])
    if first.width > 1:
        vector = tirx.reinterpret(f"int32x{_LANES}", vector)
    if first.flipped:
        vector = vector ^ tirx.Broadcast(tirx.const(first.flipped, "int32"), _LANES)
    return tirx.Shuffle([vector], [tirx.const(lane, "int32")] * lanes)
