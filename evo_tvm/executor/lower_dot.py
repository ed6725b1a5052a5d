"""loop annotated "evo_dot": C[v] += sum_q A[..] * B[v, q], u8 times s8 => the target's instructions for it.

The annotation says where A has its terms: 1, A[q] for all v; more, A[q * annotation + v], which are transposed first.

    AVX-512 VNNI, AVX-VNNI      vpdpbusd: four products and their sum with the accumulator, in one
    SSE2, AVX2, AVX-512         vpmaddwd on bytes widened to 16 bits, twice. The shorter way, vpmaddubsw, adds pairs of
                                products in 16 bits and saturates: 255 * 127 * 2 does not fit, so it is not taken.
    others                      products in 32 bits

All give the exact sum. Two's complement makes the order of the additions irrelevant.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, IRModule, Var
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_statements import rewrite_statements

#: x86's instruction that multiplies 16 bits and adds up pairs of products, by the int32 lanes of its result.
_PAIRS = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd", 4: "llvm.x86.sse2.pmadd.wd"}

#: The annotation of the loop over v, around that over q, which are the four terms of a step.
ANNOTATION = "evo_dot"
TERMS = 4


@dataclass(frozen=True)
class _Dot:
    """C[c + v] += sum_q A[..] * B[b + TERMS * v + q] for v < count; A[a + q], or A[a + apart * q + v] if apart > 1."""

    sums: Var
    left: Var
    right: Var
    c: Expr
    a: Expr
    b: Expr
    count: int
    apart: int

    def load_sums(self, first: int, lanes: int) -> Expr:
        return tirx.BufferLoad(self.sums, [tirx.Ramp(self.c + first, 1, lanes)])

    def store_sums(self, first: int, lanes: int, value: Expr) -> tirx.Stmt:
        return tir_stmt.BufferStore(self.sums, value, [tirx.Ramp(self.c + first, 1, lanes)])

    def load_left(self, first: int, lanes: int) -> Expr:
        """Four bytes of A for each lane, as int32."""
        if self.apart == 1:
            four = tirx.BufferLoad(self.left, [tirx.Ramp(self.a, 1, TERMS)])
            return tirx.Broadcast(tirx.reinterpret("int32", four), lanes)
        if self.apart == lanes:
            terms = [tirx.BufferLoad(self.left, [tirx.Ramp(self.a, 1, TERMS * lanes)])]
        else:
            terms = [tirx.BufferLoad(self.left, [tirx.Ramp(self.left_at(first, q), 1, lanes)]) for q in range(TERMS)]
        order = [q * lanes + v for v in range(lanes) for q in range(TERMS)]
        return tirx.reinterpret(f"int32x{lanes}", tirx.Shuffle(terms, [tirx.const(i, "int32") for i in order]))

    def left_at(self, first: int, q: int) -> Expr:
        """The place of term q of lane `first`."""
        return self.a + (q if self.apart == 1 else q * self.apart + first)

    def load_right(self, first: int, lanes: int) -> Expr:
        return tirx.BufferLoad(self.right, [tirx.Ramp(self.b + TERMS * first, 1, TERMS * lanes)])


@tvm.transform.module_pass(opt_level=0, name="LowerDot")
def lower_dot(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after FlattenBuffer, when a place is one number."""
    return IRModule({gv: _lower(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _lower(func: tirx.PrimFunc) -> tirx.PrimFunc:
    target = func.attrs["target"].attrs
    features = {str(f)[1:] for f in target.get("mattr", ()) if str(f).startswith("+")}
    if str(target.get("mtriple", "")).startswith("x86_64"):
        features.add("sse2")

    def rewrite(stmt: tirx.Stmt, loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.For) or ANNOTATION not in stmt.annotations:
            return stmt
        guard = stmt.body.body if isinstance(stmt.body.body, tir_stmt.IfThenElse) else None  # of a tile that is cut off
        store = guard.then_case if guard is not None else stmt.body.body
        steps = _emit(_read(store, int(stmt.extent), int(stmt.annotations[ANNOTATION])), features)
        body = steps if guard is None else tir_stmt.IfThenElse(guard.condition, steps, None)
        return _once(stmt, _once(stmt.body, body))

    return func.with_body(rewrite_statements(func.body, rewrite))


def _read(store: tir_stmt.BufferStore, count: int, apart: int) -> _Dot:
    """The parts of C[..] = C[..] + int32(A[..]) * int32(B[..]), at the places of the first step."""
    product = store.value.b
    left, right = product.a.value, product.b.value
    c, a, b = (access.indices[0] for access in (store, left, right))
    return _Dot(store.buffer, left.source, right.source, c, a, b, count, apart)


def _once(loop: tir_stmt.For, body: tirx.Stmt) -> tirx.Stmt:
    """The loop, run once: its counter, which places depend on, is zero."""
    return tir_stmt.For(loop.loop_var, tirx.const(0, "int32"), tirx.const(1, "int32"), tirx.ForKind.SERIAL, body)


def _emit(dot: _Dot, features: set[str]) -> tirx.Stmt:
    widths = [w for w, wanted in ((16, "avx512bw"), (8, "avx2"), (4, "")) if not wanted or wanted in features]
    lanes = next((w for w in widths if dot.count % w == 0), dot.count)
    steps = []
    for first in range(0, dot.count, lanes):
        sums = dot.load_sums(first, lanes)
        instruction = _vpdpbusd(features, lanes)
        if instruction:
            value = _dot_product(instruction, sums, dot, first, lanes)
        elif "sse2" in features and lanes in _PAIRS:
            value = _widened(sums, dot, first, lanes)
        else:
            value = _plain(sums, dot, first, lanes)
        steps.append(dot.store_sums(first, lanes, value))
    return steps[0] if len(steps) == 1 else tir_stmt.SeqStmt(steps)


def _vpdpbusd(features: set[str], lanes: int) -> str | None:
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    if lanes == 16:
        return name if "avx512vnni" in features else None
    return name if "avxvnni" in features or {"avx512vnni", "avx512vl"} <= features else None


def _dot_product(instruction: str, sums: Expr, dot: _Dot, first: int, lanes: int) -> Expr:
    number = llvm_lookup_intrinsic_id(instruction)
    left = tirx.reinterpret(f"int8x{TERMS * lanes}", dot.load_left(first, lanes))
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, sums, left, dot.load_right(first, lanes))


def _widened(sums: Expr, dot: _Dot, first: int, lanes: int) -> Expr:
    """Bytes 0, 2 and 1, 3 of each four as 16 bits: those of A by a mask and a shift, those of B by shifts."""
    number = llvm_lookup_intrinsic_id(_PAIRS[lanes])
    words = f"int16x{2 * lanes}"
    left = tirx.reinterpret(f"uint16x{2 * lanes}", dot.load_left(first, lanes))
    right = tirx.reinterpret(words, dot.load_right(first, lanes))

    def of(value: int, dtype: str) -> Expr:
        return tirx.Broadcast(tirx.const(value, dtype), 2 * lanes)

    even = tirx.reinterpret(words, left & of(255, "uint16")), (right << of(8, "int16")) >> of(8, "int16")
    odd = tirx.reinterpret(words, left >> of(8, "uint16")), right >> of(8, "int16")
    for pair in (even, odd):
        sums = sums + tirx.call_llvm_pure_intrin(f"int32x{lanes}", number, *pair)
    return sums


def _plain(sums: Expr, dot: _Dot, first: int, lanes: int) -> Expr:
    for q in range(TERMS):
        place = dot.left_at(first, q)
        if dot.apart == 1:
            left = tirx.Broadcast(tirx.BufferLoad(dot.left, [place]).astype("int32"), lanes)
        else:
            left = tirx.BufferLoad(dot.left, [tirx.Ramp(place, 1, lanes)]).astype(f"int32x{lanes}")
        right = tirx.BufferLoad(dot.right, [tirx.Ramp(dot.b + TERMS * first + q, TERMS, lanes)])
        sums = sums + left * right.astype(f"int32x{lanes}")
    return sums
