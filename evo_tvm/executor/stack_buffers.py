"""Buffers of scope "local" => the stack, where LLVM turns them into registers.

TVM's LowerTVMBuiltin takes every buffer over 1 KB from a heap workspace, a register tile too; LLVM then stores the sums
of a loop to memory at its end, and at each step when anything in the loop might read memory, such as a prefetch.
"""

from __future__ import annotations

import math

import tvm
from tvm import tirx
from tvm.ir import IRModule
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.rewrite_statements import rewrite_statements

#: A larger buffer stays on the heap: a thread's stack is small.
LIMIT_BYTES = 32 << 10
_MARK = "evo_stack_buffer"


@tvm.transform.module_pass(opt_level=0, name="HideStackBuffers")
def hide_stack_buffers(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """AllocBuffer(b) => DeclBuffer(b, evo_stack_buffer()), which LowerTVMBuiltin passes by."""
    return _rewrite_all(mod, _hide)


@tvm.transform.module_pass(opt_level=0, name="RestoreStackBuffers")
def restore_stack_buffers(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """DeclBuffer(b, evo_stack_buffer()) => AllocBuffer(b), which the code generator puts on the stack."""
    return _rewrite_all(mod, _restore)


def _rewrite_all(mod: IRModule, rewrite) -> IRModule:  # type: ignore[no-untyped-def]
    functions = {
        gv: f.with_body(rewrite_statements(f.body, lambda stmt, _: rewrite(stmt))) for gv, f in mod.functions.items()
    }
    return IRModule(functions, attrs=mod.attrs)


def _hide(stmt: tirx.Stmt) -> tirx.Stmt:
    if not isinstance(stmt, tir_stmt.AllocBuffer):
        return stmt
    ty = stmt.buffer.ty
    extents = [int(e.value) for e in ty.shape if hasattr(e, "value")]
    if str(ty.storage_scope) != "local" or len(extents) < len(ty.shape):
        return stmt
    dtype = tvm.DataType(str(ty.dtype))
    if math.prod(extents) * dtype.bits * dtype.lanes // 8 > LIMIT_BYTES:
        return stmt
    return tir_stmt.DeclBuffer(stmt.buffer, data=tirx.call_extern("handle", _MARK))


def _restore(stmt: tirx.Stmt) -> tirx.Stmt:
    if isinstance(stmt, tir_stmt.DeclBuffer) and _MARK in str(stmt.data):
        return tir_stmt.AllocBuffer(stmt.buffer)
    return stmt
