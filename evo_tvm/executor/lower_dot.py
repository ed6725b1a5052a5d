"""loop annotated "evo_dot": C[v] += sum_q A[..] * B[v, q], u8 times s8 or s16 times s16 => instructions for it.

A stands there as it is, or less 128 (`evo_tvm.kernels.signed_bytes`). The annotation says where it has its terms: 1,
A[q] for all v; more, A[q * annotation + v], which are transposed first.

Each instruction set has a file of its own; others multiply in 32 bits. All give the exact sum: two's complement makes
the order of the additions irrelevant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import tvm
from tvm import tirx
from tvm.ir import Call, IRModule
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor import dot_arm, dot_riscv, dot_x86
from evo_tvm.executor.dot import Dot, in_vectors, plain_product
from evo_tvm.executor.rewrite_statements import rewrite_statements

#: The annotation of the loop over v, around that over q, which are the four terms of a step.
ANNOTATION = "evo_dot"

#: The first part of a triple -> (step, features under LLVM's names) -> the statement that computes it.
_EMIT: Mapping[str, Callable[[Dot, Set[str]], tirx.Stmt]] = {
    "x86_64": dot_x86.emit,
    "aarch64": dot_arm.emit,
    "riscv64": dot_riscv.emit,
}


@tvm.transform.module_pass(opt_level=0, name="LowerDot")
def lower_dot(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after FlattenBuffer, when a place is one number."""
    return IRModule({gv: _lower(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _lower(func: tirx.PrimFunc) -> tirx.PrimFunc:
    target = func.attrs["target"].attrs
    features = {str(f)[1:] for f in target.get("mattr", ()) if str(f).startswith("+")}
    emit = _EMIT.get(str(target.get("mtriple", "")).split("-")[0], _emit_plain)

    def rewrite(stmt: tirx.Stmt, loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.For) or ANNOTATION not in stmt.annotations:
            return stmt
        guard = stmt.body.body if isinstance(stmt.body.body, tir_stmt.IfThenElse) else None  # of a tile that is cut off
        store = guard.then_case if guard is not None else stmt.body.body
        steps = emit(_read(store, int(stmt.extent), int(stmt.annotations[ANNOTATION])), features)
        body = steps if guard is None else tir_stmt.IfThenElse(guard.condition, steps, None)
        return _once(stmt, _once(stmt.body, body))

    return func.with_body(rewrite_statements(func.body, rewrite))


def _emit_plain(dot: Dot, features: Set[str]) -> tirx.Stmt:
    return in_vectors(dot, (4,), plain_product)


def _read(store: tir_stmt.BufferStore, count: int, apart: int) -> Dot:
    """The parts of C[..] = C[..] + int32(A[..]) * int32(B[..]), at the places of the first step."""
    product = store.value.b
    left, right = product.a.value, product.b.value
    signed = isinstance(left, Call)
    if signed:  # reinterpret(A ^ 128)
        left = left.args[0].a
    c, a, b = (access.indices[0] for access in (store, left, right))
    return Dot(store.buffer, left.source, right.source, c, a, b, count, apart, signed)


def _once(loop: tir_stmt.For, body: tirx.Stmt) -> tirx.Stmt:
    """The loop, run once: its counter, which places depend on, is zero."""
    return tir_stmt.For(loop.loop_var, tirx.const(0, "int32"), tirx.const(1, "int32"), tirx.ForKind.SERIAL, body)
