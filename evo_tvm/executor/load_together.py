"""Multiply-adds of one straight piece of code, C += a * W[k], C' += b * W[k + 1], ... => several W loaded at once.

A RISC-V vector load takes its address from a register, without an offset: one more instruction for each load. But one
load fills up to four registers in a row (eight would leave too few for the rest), and weights lie in the order in which
they are read. So vectors that are first used one after the other, and lie one after the other, are loaded together.

`unroll_steps` makes such pieces longer: several steps of a reduction share the addition of addresses and the branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, IRModule, TensorLoad, Var
from tvm.sym import Analyzer
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_expressions import rewrite_in_statement
from evo_tvm.executor.rewrite_statements import rewrite_statements, statements_in
from evo_tvm.executor.riscv_vectors import register_bits

#: Registers that one instruction loads at most.
_MOST = 4
#: Steps of a reduction in a piece at most.
_STEPS = 8
#: The annotation of a loop over them.
_MARK = "evo_steps"


@tvm.transform.module_pass(opt_level=0, name="UnrollSteps")
def unroll_steps(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs before UnrollLoop, when vectors are made."""
    return IRModule({gv: _unrolled(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _unrolled(func: tirx.PrimFunc) -> tirx.PrimFunc:
    bits = register_bits(func.attrs["target"])
    return func.with_body(rewrite_statements(func.body, lambda stmt, _: _unroll(stmt, bits))) if bits else func


def _unroll(loop: tirx.Stmt, bits: int) -> tirx.Stmt:
    """Unrolls a loop over steps with nothing but multiply-adds in it, or splits it before."""
    if (
        not isinstance(loop, tir_stmt.For)
        or loop.kind != tirx.ForKind.SERIAL
        or not isinstance(loop.extent, tirx.IntImm)
    ):
        return loop
    if int(loop.extent) == 1:  # LLVM would take the sums in it apart
        return tir_stmt.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.UNROLLED, loop.body)
    inside = statements_in(loop.body)
    loops = [stmt for stmt in inside if isinstance(stmt, tir_stmt.For)]
    sums = any(_weights(stmt, bits, frozenset()) is not None for stmt in inside)
    extent, k = int(loop.extent), loop.loop_var
    steps = next(n for n in range(min(extent, _STEPS), 0, -1) if extent % n == 0)
    if (
        not sums
        or steps == 1
        or any(inner.kind != tirx.ForKind.UNROLLED or _MARK in inner.annotations for inner in loops)
    ):
        return loop
    kind, mark = tirx.ForKind.UNROLLED, {_MARK: 1}  # the loops around it stay
    if steps == extent:
        return tir_stmt.For(k, loop.min, loop.extent, kind, loop.body, annotations=mark)
    outer, inner = Var(f"{k.name}_outer", k.ty), Var(f"{k.name}_step", k.ty)
    place = loop.min + outer * tirx.const(steps, "int32") + inner
    body = rewrite_statements(
        loop.body, lambda stmt, _: rewrite_in_statement(stmt, lambda e: place if _is(e, k) else e)
    )
    zero = tirx.const(0, "int32")
    unrolled = tir_stmt.For(inner, zero, tirx.const(steps, "int32"), kind, body, annotations=mark)
    return tir_stmt.For(outer, zero, tirx.const(extent // steps, "int32"), loop.kind, unrolled)


def _is(expr: Expr, var: Var) -> bool:
    return isinstance(expr, Var) and bool(expr.same_as(var))


@tvm.transform.module_pass(opt_level=0, name="LoadTogether")
def load_together(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after UnrollLoop, when the steps of a register tile are statements."""
    return IRModule({gv: _rewrite(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _rewrite(func: tirx.PrimFunc) -> tirx.PrimFunc:
    bits = register_bits(func.attrs["target"])
    if not bits:
        return func
    written: set[int] = set()

    def see(stmt: tirx.Stmt, _loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if isinstance(stmt, tir_stmt.BufferStore):
            written.add(hash(stmt.buffer))
        return stmt

    rewrite_statements(func.body, see)

    def join(stmt: tirx.Stmt, _loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.SeqStmt):
            return stmt
        statements: list[tirx.Stmt] = []
        for piece in _straight(stmt.seq):
            statements += _join(piece, bits, written)
        return tir_stmt.SeqStmt(statements)

    return func.with_body(rewrite_statements(func.body, join))


def _straight(statements: Sequence[tirx.Stmt]) -> Iterator[list[tirx.Stmt]]:
    """Runs of stores, and whatever else there is one by one."""
    piece: list[tirx.Stmt] = []
    for stmt in statements:
        if isinstance(stmt, tir_stmt.BufferStore):
            piece.append(stmt)
            continue
        yield piece
        yield [stmt]
        piece = []
    yield piece


@dataclass(frozen=True)
class _Load:
    """A vector that is read: `place` elements after the first one of its buffer in this piece."""

    load: TensorLoad
    place: int
    lanes: int

    def follows(self, other: _Load) -> bool:
        same = self.load.source.same_as(other.load.source) and self.lanes == other.lanes
        return same and self.place == other.place + self.lanes


def _join(piece: list[tirx.Stmt], bits: int, written: Set[int]) -> list[tirx.Stmt]:
    loads = _places([_weights(stmt, bits, written) for stmt in piece])
    together: list[list[_Load]] = []  # in the order of first use, those side by side in one list
    names: dict[tuple[int, int], tuple[int, int]] = {}  # of buffer and place: which list, which of it
    repeated = False
    for load in loads:
        if load is None:
            continue
        key = (hash(load.load.source), load.place)
        if key in names:
            repeated = True
            continue
        if together and not repeated and load.follows(together[-1][-1]) and len(together[-1]) < _MOST:
            together[-1].append(load)
        else:
            together.append([load])
        names[key] = (len(together) - 1, len(together[-1]) - 1)
        repeated = False
    together = [group[: 1 << (len(group).bit_length() - 1)] for group in together]  # registers in powers of two
    return list(_with_groups(piece, loads, together, names))


def _with_groups(
    piece: list[tirx.Stmt],
    loads: list[_Load | None],
    together: list[list[_Load]],
    names: dict[tuple[int, int], tuple[int, int]],
) -> Iterator[tirx.Stmt]:
    bound: dict[int, Var] = {}
    for stmt, load in zip(piece, loads, strict=True):
        if load is None:
            yield stmt
            continue
        group, number = names[hash(load.load.source), load.place]
        first, count = together[group][0], len(together[group])
        if count == 1 or number >= count:
            yield stmt
            continue
        if group not in bound:
            value = tirx.BufferLoad(first.load.source, [tirx.Ramp(first.load.indices[0].base, 1, count * first.lanes)])
            bound[group] = Var(f"together{group}", value.ty)
            yield tir_stmt.Bind(bound[group], value)
        order = [tirx.const(number * load.lanes + lane, "int32") for lane in range(load.lanes)]
        product = stmt.value.b
        value = stmt.value.a + product.a * tirx.Shuffle([bound[group]], order)
        yield tir_stmt.BufferStore(stmt.buffer, value, stmt.indices)


def _weights(stmt: tirx.Stmt, bits: int, written: Set[int]) -> TensorLoad | None:
    """W[k] of C = C + a * W[k], where it is one whole register of what the function does not write."""
    value = stmt.value if isinstance(stmt, tir_stmt.BufferStore) else None
    if not (isinstance(value, tirx.Add) and isinstance(value.b, tirx.Mul)):
        return None
    load = value.b.b
    if not isinstance(load, TensorLoad) or hash(load.source) in written:
        return None
    place, dtype = load.indices[-1], tvm.DataType(str(load.ty.dtype))
    if len(load.indices) > 1 or not isinstance(place, tirx.Ramp) or int(place.stride) != 1:
        return None
    return load if dtype.bits * int(place.lanes) == bits else None


def _places(loads: list[TensorLoad | None]) -> list[_Load | None]:
    """None where the distance to the first place of the same buffer is not a number."""
    analyzer = Analyzer()
    firsts: dict[int, Expr] = {}
    found: list[_Load | None] = []
    for load in loads:
        if load is None:
            found.append(None)
            continue
        base = load.indices[0].base
        distance = analyzer.simplify(base - firsts.setdefault(hash(load.source), base))
        known = isinstance(distance, tirx.IntImm)
        found.append(_Load(load, int(distance), int(load.indices[0].lanes)) if known else None)
    return found
