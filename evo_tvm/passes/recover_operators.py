"""call_tir(maximum, x, c) => maximum(x, c); call_tir(pad, x) => nn.pad(x); the same for minimum.

TVM's ONNX importer lowers Clip and Pad to TIR at once, where no pass could see them. A call is recovered only when the
function that TOPI gives for the recovered operator is structurally equal to the one that is called, whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import tvm_ffi
from tvm import relax, te, tirx, topi
from tvm.ir import Call, Expr, GlobalVar, TensorLoad

from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass
from evo_tvm.passes._values import constant, dtype_of, shape_of

_OPERATORS = {"maximum": relax.op.maximum, "minimum": relax.op.minimum}


class _Recover(Rule[tuple[Expr | None]]):
    roots: ClassVar[tuple[str, ...]] = ("relax.call_tir",)

    def match(self, graph: Graph, value: Expr) -> tuple[Expr | None] | None:
        callee, operands = value.args[0], value.args[1]
        if not isinstance(callee, GlobalVar) or not isinstance(operands, relax.Tuple) or len(value.args) != 2:
            return None
        function, known = graph.module[callee], str(callee.name_hint).startswith((*_OPERATORS, "pad"))
        if not known or not isinstance(function, tirx.PrimFunc) or shape_of(value) is None:
            return None
        return (_recovered(value, list(operands.fields), function),)

    def check(self, graph: Graph, found: tuple[Expr | None]) -> str | None:
        return "the function is not what TOPI gives for the operator" if found[0] is None else None

    def rewrite(self, graph: Graph, found: tuple[Expr | None]) -> Expr:
        return found[0]


def _recovered(call: Call, operands: list[Expr], function: tirx.PrimFunc) -> Expr | None:
    """The operator that the function computes, if one of its possible readings is structurally equal to it."""
    data = [te.placeholder(shape_of(operand), dtype_of(operand), name=f"x{i}") for i, operand in enumerate(operands)]
    for output, operator in _readings(call, operands, function, data):
        wanted = te.create_prim_func([*data, output], index_dtype_override="int64")
        if tvm_ffi.structural_equal(*(f.without_attr("global_symbol") for f in (wanted, function))):
            return operator
    return None


def _readings(call: Call, operands: list[Expr], function: tirx.PrimFunc, data: list[Any]) -> Iterator[tuple[Any, Expr]]:
    """What the one store of the function looks like: outputs of TOPI over `data`, with the operator of each."""
    stores: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.BufferStore, stores.append))
    if len(stores) != 1:
        return
    value, indices = stores[0].value, stores[0].indices
    for name, operator in _OPERATORS.items():
        if isinstance(value, tirx.Max if name == "maximum" else tirx.Min):
            build = getattr(topi, name)
            if len(operands) == 2:
                yield build(*data), operator(*operands)
            elif isinstance(value.b, tirx.FloatImm | tirx.IntImm):
                bound = value.b.value
                yield build(data[0], bound), operator(operands[0], constant(bound, dtype_of(operands[0])))
    shape, inner = shape_of(call), shape_of(operands[0])
    if len(operands) == 1 and shape is not None and inner is not None:
        before = _offsets(value, indices)
        if before is not None and isinstance(value.args[2], tirx.FloatImm | tirx.IntImm):
            after = [full - size - first for full, size, first in zip(shape, inner, before, strict=True)]
            fill = float(value.args[2].value)
            widths = [width for pair in zip(before, after, strict=True) for width in pair]
            yield topi.nn.pad(data[0], before, after, fill), relax.op.nn.pad(operands[0], widths, "constant", fill)


def _offsets(value: Any, indices: Any) -> list[int] | None:
    """What `if_then_else(inside, x[i - before, ...], fill)` takes off each index."""
    if not (isinstance(value, Call) and str(value.op.name).endswith(".if_then_else")):
        return None
    load = value.args[1]
    if not isinstance(load, TensorLoad) or len(load.indices) != len(indices):
        return None
    offsets = [_offset(index, at) for index, at in zip(indices, load.indices, strict=True)]
    return None if None in offsets else offsets  # type: ignore[return-value]


def _offset(index: Any, at: Any) -> int | None:
    if at.same_as(index):
        return 0
    shifted = isinstance(at, tirx.Sub) and at.a.same_as(index) and isinstance(at.b, tirx.IntImm)
    return int(at.b) if shifted else None


recover_operators = rewriting_pass("recover_operators", lambda: [_Recover()])
