"""Target => a kernel that does nothing but multiply-adds in registers: what profiles compare the others with."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from evo_tvm.executor.cache import Cache, digest
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.kernel_key import REVISION
from evo_tvm.target import Target

#: Steps of one call: long against the call itself, a few ten microseconds in all.
_DEPTH = 4096
#: Registers that are left for the operands and for the code generator.
_OTHER_REGISTERS = 4


@dataclass(frozen=True)
class Peak:
    """The C function `symbol(a, b, c)` in the object file `code`: c[i, v] = sum over k < depth of a[v] * b[v].

    float32; a, b: `lanes` elements; c: `rows` x `lanes`. Two floating-point operations a multiply-add.
    """

    symbol: str
    rows: int
    lanes: int
    depth: int
    code: bytes

    @property
    def flops(self) -> int:
        """Floating-point operations of one call."""
        return 2 * self.rows * self.lanes * self.depth


def build_peak(target: Target, cache: Cache) -> Peak:
    """The kernel for `target`, from the cache where it has it."""
    rows, lanes = target.vector_registers - _OTHER_REGISTERS, target.lanes_f32
    key = digest("peak", repr(target), str(tvm.__version__), REVISION)
    symbol = f"evo_peak_{key[:16]}"
    code = cache.get("kernel", key)
    if code is None:
        with tempfile.TemporaryDirectory(prefix="evo_tvm_peak_") as folder:
            path = Path(folder) / "peak.o"
            build_object(schedule_peak(rows, lanes, _DEPTH).mod["main"], symbol, target.tvm(), str(path))
            code = path.read_bytes()
        cache.put("kernel", key, code)
    return Peak(symbol, rows, lanes, _DEPTH, code)


def schedule_peak(rows: int, lanes: int, depth: int) -> Schedule:
    """Every sum has a register of its own, so that no multiply-add waits for the one before it. TVM writes them as
    LLVM's fmuladd, which neither moves them out of the loop nor folds equal ones."""
    a, b = te.placeholder((lanes,), "float32", "a"), te.placeholder((lanes,), "float32", "b")
    k = te.reduce_axis((0, depth), "k")
    c = te.compute((rows, lanes), lambda i, v: te.sum(a[v] * b[v], axis=k), name="c")
    sch = Schedule(te.create_prim_func([a, b, c]))
    block = sch.get_sblock("c")
    write = sch.cache_write(block, 0, "local")
    *_, step = sch.get_loops(block)
    sch.reorder(step, *sch.get_loops(block)[:2])
    _in_registers(sch, block)
    _in_registers(sch, write)
    _in_registers(sch, sch.decompose_reduction(block, step))
    return sch


def _in_registers(sch: Schedule, block: SBlockRV) -> None:
    i, v = sch.get_loops(block)[-2:]
    sch.unroll(i)
    sch.vectorize(v)
