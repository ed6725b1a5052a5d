"""loop annotated "evo_narrow": Y[x] = uint8(T[x]), int32 to bytes with saturation => the target's instructions for it.

    AVX-512     two vpackssdw and one vpackuswb make one vector of four, one vpermd puts it in order: four shuffles and
                one store, where four vpmovusdb take eight and four
    AArch64     sqxtn, and sqxtun of two together: four vectors make one, six instructions for them and one store
    others      cut off at 0 and 255, vector by vector

T lies in registers: neighbouring pixels, whose channels are one vector each.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import tirx
from tvm.ir import Expr, IRModule
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_statements import rewrite_statements

#: int32 lanes of a vector on AArch64.
_ARM_LANES = 4
#: The annotation: lanes of an int32 vector.
ANNOTATION = "evo_narrow"


@tvm.transform.module_pass(opt_level=0, name="LowerNarrow")
def lower_narrow(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after FlattenBuffer, when a place is one number."""
    return IRModule({gv: _lower(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)


def _lower(func: tirx.PrimFunc) -> tirx.PrimFunc:
    target = func.attrs["target"].attrs
    x86 = "+avx512bw" in {str(f) for f in target.get("mattr", ())}
    arm = str(target.get("mtriple", "")).startswith("aarch64")

    def rewrite(stmt: tirx.Stmt, loops: tuple[tir_stmt.For, ...]) -> tirx.Stmt:
        if not isinstance(stmt, tir_stmt.For) or ANNOTATION not in stmt.annotations:
            return stmt
        lanes = int(stmt.annotations[ANNOTATION])
        guard = stmt.body if isinstance(stmt.body, tir_stmt.IfThenElse) else None  # of a tile whose last row is cut off
        store = stmt.body if guard is None else guard.then_case
        if arm and lanes == _ARM_LANES:
            steps = _emit(store, int(stmt.extent), lanes, (4, 2), _extracted)
        else:
            steps = _emit(store, int(stmt.extent), lanes, (4,) if x86 and lanes == 16 else (), _packed)
        body: tirx.Stmt = steps[0] if len(steps) == 1 else tir_stmt.SeqStmt(steps)
        if guard is not None:
            body = tir_stmt.IfThenElse(guard.condition, body, None)
        once = tirx.const(0, "int32"), tirx.const(1, "int32")  # the counter, which places depend on, is zero
        return tir_stmt.For(stmt.loop_var, *once, tirx.ForKind.SERIAL, body)

    return func.with_body(rewrite_statements(func.body, rewrite))


def _emit(
    store: tir_stmt.BufferStore,
    count: int,
    lanes: int,
    together: tuple[int, ...],
    make: Callable[[list[Expr]], Expr],
) -> list[tirx.Stmt]:
    """The bytes of `count` numbers: what `make` makes of the first number of vectors in `together` that is there, of
    those that are left one by one."""
    source = _source(store.value)
    steps: list[tirx.Stmt] = []
    first = 0
    while first < count:
        vectors = next((some for some in together if first + some * lanes <= count), 1)
        parts = [
            tirx.BufferLoad(source.source, [tirx.Ramp(source.indices[0] + first + i * lanes, 1, lanes)])
            for i in range(vectors)
        ]
        value = make(parts) if vectors > 1 else _cut_off(parts[0], lanes)
        steps.append(
            tir_stmt.BufferStore(store.buffer, value, [tirx.Ramp(store.indices[0] + first, 1, lanes * vectors)])
        )
        first += lanes * vectors
    return steps


def _source(value: Expr) -> Expr:
    """The load in uint8(max(T[x], 0))."""
    return value.value.a


def _packed(parts: list[Expr]) -> Expr:
    words, bytes_ = (llvm_lookup_intrinsic_id(f"llvm.x86.avx512.{name}.512") for name in ("packssdw", "packuswb"))
    pairs = [tirx.call_llvm_pure_intrin("int16x32", words, parts[i], parts[i + 1]) for i in (0, 2)]
    mixed = tirx.reinterpret("int32x16", tirx.call_llvm_pure_intrin("int8x64", bytes_, *pairs))
    order = [tirx.const(4 * lane + part, "int32") for part in range(4) for lane in range(4)]
    return tirx.reinterpret("uint8x64", tirx.Shuffle([mixed], order))


def _extracted(parts: list[Expr]) -> Expr:
    """Two or four vectors as bytes: first with saturation to 16 bits, then without sign."""
    words, bytes_ = (llvm_lookup_intrinsic_id(f"llvm.aarch64.neon.{name}") for name in ("sqxtn", "sqxtun"))
    halves = [tirx.call_llvm_pure_intrin("int16x4", words, part) for part in parts]
    pairs = [_joined(halves[i : i + 2], 8) for i in range(0, len(parts), 2)]
    made = [tirx.reinterpret("uint8x8", tirx.call_llvm_pure_intrin("int8x8", bytes_, pair)) for pair in pairs]
    return made[0] if len(made) == 1 else _joined(made, 16)


def _joined(vectors: list[Expr], lanes: int) -> Expr:
    return tirx.Shuffle(vectors, [tirx.const(i, "int32") for i in range(lanes)])


def _cut_off(part: Expr, lanes: int) -> Expr:
    low, high = (tirx.Broadcast(tirx.const(bound, "int32"), lanes) for bound in (0, 255))
    return tirx.max(tirx.min(part, high), low).astype(f"uint8x{lanes}")
