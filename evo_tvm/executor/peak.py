"""Target => kernels that do nothing but multiply-adds: what profiles compare the others with."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import te
from tvm.s_tir import Schedule

from evo_tvm.executor.cache import Cache, digest
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.dot import TERMS
from evo_tvm.executor.kernel_key import REVISION
from evo_tvm.executor.lower_dot import ANNOTATION
from evo_tvm.schedules.common import keep_in_registers
from evo_tvm.target import Target

#: Steps of one call: long against the call itself, a few ten microseconds in all.
_DEPTH = 4096
#: Registers that are left for the operands and for the code generator.
_OTHER_REGISTERS = 4
#: Steps of an integer kernel that read different bytes, which are few enough for the first cache.
_PANEL = 16
#: Vectors of the right operand that a step multiplies with each of the left.
_COLUMNS = 2
#: Bytes that are multiplied and added up in one step.
_TERMS = TERMS["uint8"]


@dataclass(frozen=True)
class Peak:
    """The C function `symbol(a, b, c)` in the object file `code`, which does `operations` a call.

    dtype: "float32", or "int8" for unsigned times signed bytes, added up in int32. sizes: bytes of a, b and c, where c
    is the result. A multiply-add counts two.
    """

    symbol: str
    dtype: str
    sizes: tuple[int, int, int]
    operations: int
    code: bytes


def build_peak(target: Target, cache: Cache, dtype: str = "float32") -> Peak:
    """The kernel for `target`, from the cache where it has it. dtype: as that of a `Peak`."""
    rows, lanes = target.vector_registers - _OTHER_REGISTERS, target.lanes_f32
    if dtype == "float32":
        schedule, terms, left, right = schedule_peak, 1, 4 * lanes, 4 * lanes
    else:
        schedule, terms = schedule_integer_peak, _TERMS
        left, right = _PANEL * rows // _COLUMNS * _TERMS, _PANEL * _COLUMNS * lanes * _TERMS
    key = digest("peak", dtype, repr(target), str(tvm.__version__), REVISION)
    symbol = f"evo_peak_{key[:16]}"
    code = cache.get("kernel", key)
    if code is None:
        with tempfile.TemporaryDirectory(prefix="evo_tvm_peak_") as folder:
            path = Path(folder) / "peak.o"
            build_object(schedule(rows, lanes, _DEPTH).mod["main"], symbol, target.tvm(), str(path))
            code = path.read_bytes()
        cache.put("kernel", key, code)
    return Peak(symbol, dtype, (left, right, 4 * rows * lanes), 2 * rows * lanes * _DEPTH * terms, code)


def schedule_peak(rows: int, lanes: int, depth: int) -> Schedule:
    """c[i, v] = sum over k < depth of a[v] * b[v], float32; a, b: `lanes` elements; c: `rows` x `lanes`.

    Every sum has a register of its own, so that no multiply-add waits for the one before it. TVM writes them as
    LLVM's fmuladd, which neither moves them out of the loop nor folds equal ones.
    """
    a, b = te.placeholder((lanes,), "float32", "a"), te.placeholder((lanes,), "float32", "b")
    k = te.reduce_axis((0, depth), "k")
    c = te.compute((rows, lanes), lambda i, v: te.sum(a[v] * b[v], axis=k), name="c")
    sch = Schedule(te.create_prim_func([a, b, c]))
    block = sch.get_sblock("c")
    write = sch.cache_write(block, 0, "local")
    i, v, step = sch.get_loops(block)
    sch.reorder(step, i, v)
    keep_in_registers(sch, block, 2)
    keep_in_registers(sch, write, 2)
    keep_in_registers(sch, sch.decompose_reduction(block, step), 2)
    return sch


def schedule_integer_peak(rows: int, lanes: int, depth: int) -> Schedule:
    """c[i, j, v] = sum over r, k, q of a[k, i, q] * b[k, j, v, q], where r * k counts to `depth` and q to 4.

    a: uint8 (16, rows / 2, 4); b: int8 (16, 2, lanes, 4); c: int32 (rows / 2, 2, lanes). `rows` is even, 16 divides
    `depth`. Every sum has a register of its own. Operands lie in the first cache: products of what is in registers all
    the time would be moved out of the loop, where multiplying and adding are two instructions.
    """
    a = te.placeholder((_PANEL, rows // _COLUMNS, _TERMS), "uint8", "a")
    b = te.placeholder((_PANEL, _COLUMNS, lanes, _TERMS), "int8", "b")
    axes = [te.reduce_axis((0, e), n) for e, n in ((depth // _PANEL, "r"), (_PANEL, "k"), (_TERMS, "q"))]
    _, k, q = axes
    c = te.compute(
        (rows // _COLUMNS, _COLUMNS, lanes),
        lambda i, j, v: te.sum(a[k, i, q].astype("int32") * b[k, j, v, q].astype("int32"), axis=axes),
        name="c",
    )
    sch = Schedule(te.create_prim_func([a, b, c]))
    block = sch.get_sblock("c")
    write = sch.cache_write(block, 0, "local")
    i, j, v, outer, step, term = sch.get_loops(block)
    sch.reorder(outer, step, i, j, v, term)
    for loop in (i, j):
        sch.unroll(loop)
    keep_in_registers(sch, write)
    keep_in_registers(sch, sch.decompose_reduction(block, outer))
    sch.annotate(v, ANNOTATION, 1)
    return sch
