"""Scheduled PrimFunc => object code with a plain C function in it.

TVM's own entry points (`MakePackedAPI`) unpack and check an array of tagged values on every call. The planned
`main` has checked everything once, so a kernel here is `int32_t evo_kernel_x(void* a, void* b, ...)`: the pointers of
its buffers in the order of the PrimFunc's parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import s_tir, tirx
from tvm.ir import IRModule, PointerType, StringImm, Var
from tvm.tirx import stmt as tir_stmt

from evo_tvm.executor.guard_tiles import guard_tiles
from evo_tvm.executor.insert_prefetch import insert_prefetch
from evo_tvm.executor.load_together import load_together, unroll_steps
from evo_tvm.executor.lower_dot import lower_dot
from evo_tvm.executor.lower_narrow import lower_narrow
from evo_tvm.executor.riscv_vectors import machine_fields, vectorize_loop
from evo_tvm.executor.round_to_even import round_to_even
from evo_tvm.executor.share_loads import share_loads, unroll_terms
from evo_tvm.executor.stack_buffers import hide_stack_buffers, restore_stack_buffers
from evo_tvm.kernels import vector_math

vector_math.register()


def _expose_pointers(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """f(A: Buffer, B: Buffer) => int32 f(a_ptr: handle, b_ptr: handle) { A = decl_buffer(a_ptr); ...; return 0 }"""
    zero, one = tirx.const(0, "int32"), tirx.const(1, "int32")
    pointers = [Var(f"{b.name}_ptr", PointerType(b.ty.dtype, "global")) for b in func.params]
    # The scope makes codegen emit the body as a function of its own, whose pointers are marked `noalias`.
    scope = StringImm(f"{func.attrs['global_symbol']}_compute_")
    body = tir_stmt.SeqStmt(
        [
            *(tir_stmt.DeclBuffer(b, data=p) for b, p in zip(func.params, pointers, strict=True)),
            tir_stmt.AttrStmt(zero, "compute_scope", scope, func.body),
            tir_stmt.Return(zero),
        ]
    )
    body = tir_stmt.AttrStmt("default", "device_type", one, body)  # workspace allocations ask for these two
    body = tir_stmt.AttrStmt("default", "device_id", zero, body)
    return tirx.PrimFunc(pointers, body, tvm.ir.PrimType("int32"), func.attrs)


@tvm.transform.module_pass(opt_level=0, name="ExposePointers")
def expose_pointers(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
    """Gives every PrimFunc of the module the plain C signature described above."""
    return IRModule({gv: _expose_pointers(f) for gv, f in mod.functions.items()}, attrs=mod.attrs)


def _lowering_passes() -> list[Callable[[], tvm.transform.Pass]]:
    """TVM's S-TIR lowering for a CPU, in its order, without what only accelerators need."""
    s, t = s_tir.transform, tirx.transform
    return [
        s.CanonicalizeLoop,
        s.LowerInitBlock,
        s.PlanAndUpdateBufferAllocationLocation,
        s.ConvertBlocksToOpaque,
        s.CompactBufferAllocation,
        s.LowerMatchBuffer,
        s.StmtSimplify,
        s.LowerOpaqueBlock,
        lambda: insert_prefetch,
        lambda: guard_tiles,
        t.FlattenBuffer,
        lambda: lower_dot,
        lambda: lower_narrow,
        t.BF16ComputeLegalize,
        lambda: t.NarrowDataType(32),
        s.LoopPartition,
        lambda: vectorize_loop,
        t.StorageRewrite,
        s.HoistIfThenElse,
        lambda: unroll_terms,
        lambda: unroll_steps,
        t.UnrollLoop,
        lambda: load_together,
        s.RenormalizeSplitPattern,
        t.StmtSimplify,
        lambda: share_loads,
        lambda: round_to_even,
        t.RemoveNoOp,
        s.RewriteUnsafeSelect,
        t.CommonSubexprElim,
        t.FP8ComputeLegalize,
        t.VerifyMemory,
        lambda: expose_pointers,
        t.FP8StorageLegalize,
        t.BF16StorageLegalize,
        lambda: hide_stack_buffers,
        t.LowerTVMBuiltin,
        lambda: restore_stack_buffers,
        t.LowerIntrin,
    ]


def lower(func: tirx.PrimFunc, name: str, target: tvm.target.Target) -> IRModule:
    """Lowers one scheduled PrimFunc to the TIR that LLVM takes, under the symbol `name`."""
    mod = IRModule({name: func.with_attr("global_symbol", name).with_attr("tirx.noalias", True)})
    mod = tirx.transform.BindTarget(target.with_host(target))(mod)
    with target:
        return tvm.transform.Sequential([make() for make in _lowering_passes()])(mod)


def build_object(func: tirx.PrimFunc, name: str, target: tvm.target.Target, path: str) -> None:
    """Writes `path`, an object file that defines `int32_t name(void*, ...)`."""
    mod, target = lower(func, name, target), _machine(func, target)
    tvm.get_global_func("target.build.llvm")(mod, target).write_to_file(path, "o")


def assembly(func: tirx.PrimFunc, name: str, target: tvm.target.Target) -> str:
    """The machine code of a kernel as text, to read."""
    mod, target = lower(func, name, target), _machine(func, target)
    return str(tvm.get_global_func("target.build.llvm")(mod, target).inspect_source("asm"))


def _machine(func: tirx.PrimFunc, target: tvm.target.Target) -> tvm.target.Target:
    """The target, with LLVM's SLP vectorizer off for kernels that multiply bytes: it makes vectors of the addresses of
    neighbouring pixels, takes them apart again, and has no registers left for sums."""
    changed = dict(machine_fields(target))
    if any(str(param.ty.dtype) in ("int8", "int16") for param in func.params):
        changed["cl-opt"] = [*changed.get("cl-opt", ()), "-vectorize-slp:bool=0"]
    if not changed:
        return target
    fields = {name: value for name, value in target.export().items() if name not in ("tag", "keys")}
    return tvm.target.Target({**fields, **changed})
