"""lrint(x) => fcvtns(x), on AArch64: to the nearest integer, half to even, in one instruction.

`lrint` rounds as the mode register says, for which LLVM takes two. Nobody changes that mode here.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.ir import Call, Expr, IRModule
from tvm.target.codegen import llvm_lookup_intrinsic_id

from evo_tvm.executor.rewrite_expressions import rewrite_in_statement
from evo_tvm.executor.rewrite_statements import rewrite_statements

#: What the instruction takes.
_WIDTHS = ("float32", "float32x2", "float32x4")


@tvm.transform.module_pass(opt_level=0, name="RoundToEven")
def round_to_even(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Runs after VectorizeLoop."""
    number, replaced = (llvm_lookup_intrinsic_id(name) for name in ("llvm.aarch64.neon.fcvtns", "llvm.lrint"))

    def rewrite(expr: Expr) -> Expr:
        if isinstance(expr, Call) and expr.op.name == "tirx.call_llvm_pure_intrin" and int(expr.args[0]) == replaced:
            if str(expr.args[1].ty.dtype) in _WIDTHS:
                return tirx.call_llvm_pure_intrin(str(expr.ty.dtype), number, expr.args[1])
        return expr

    def on(func: tirx.PrimFunc) -> tirx.PrimFunc:
        if not str(func.attrs["target"].attrs.get("mtriple", "")).startswith("aarch64"):
            return func
        return func.with_body(rewrite_statements(func.body, lambda stmt, _: rewrite_in_statement(stmt, rewrite)))

    return IRModule({gv: on(func) for gv, func in mod.functions.items()}, attrs=mod.attrs)
