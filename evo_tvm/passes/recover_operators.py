"""call_tir(maximum, x, c) => maximum(x, c); call_tir(pad, x) => nn.pad(x); the same for minimum.

TVM's ONNX importer lowers Clip and Pad to TIR at once, where no pass could see them. A call is recovered only when the
function that TOPI gives for the recovered operator is structurally equal to the one that is called, whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
import tvm_ffi
from tvm import relax, te, tirx, topi
from tvm.ir import Call, Expr, GlobalVar

from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass
from evo_tvm.passes._values import constant, dtype_of, shape_of

_OPERATORS = {"maximum": relax.op.maximum, "minimum": relax.op.minimum}


@dataclass(frozen=True)
class _Found:
    call: Call
    operands: list[Expr]
    function: tirx.PrimFunc


class _Recover(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.call_tir",)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        callee, operands = value.args[0], value.args[1]
        if not isinstance(callee, GlobalVar) or not isinstance(operands, relax.Tuple) or len(value.args) != 2:
            return None
        function = graph.module[callee]
        known = isinstance(function, tirx.PrimFunc) and str(callee.name_hint).startswith((*_OPERATORS, "pad"))
        return _Found(value, list(operands.fields), function) if known and shape_of(value) is not None else None

    def check(self, graph: Graph, found: _Found) -> str | None:
        return None if _recovered(found) is not None else "the function is not what TOPI gives for the operator"

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        recovered = _recovered(found)
        assert recovered is not None
        return recovered


def _recovered(found: _Found) -> Expr | None:
    """The operator that the function computes, if one of its possible readings is structurally equal to it."""
    placeholders = [_placeholder(operand, place) for place, operand in enumerate(found.operands)]
    for output, operator in _readings(found, placeholders):
        function = te.create_prim_func([*placeholders, output], index_dtype_override="int64")
        if tvm_ffi.structural_equal(*(f.without_attr("global_symbol") for f in (function, found.function))):
            return operator
    return None


def _readings(found: _Found, data: list[Any]) -> Iterator[tuple[Any, Expr]]:
    store = _store(found.function)
    if store is None:
        return
    operands, value = found.operands, store.value
    for name, operator in _OPERATORS.items():
        if isinstance(value, tirx.Max if name == "maximum" else tirx.Min):
            build = getattr(topi, name)
            if len(operands) == 2:
                yield build(*data), operator(*operands)
            elif isinstance(value.b, tirx.FloatImm | tirx.IntImm):
                bound = value.b.value
                yield build(data[0], bound), operator(operands[0], constant(bound, dtype_of(operands[0])))
    shape, inner = shape_of(found.call), shape_of(operands[0])
    if len(operands) == 1 and shape is not None and inner is not None:
        before = _offsets(value, store.indices)
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
    if not isinstance(load, tirx.BufferLoad) or len(load.indices) != len(indices):
        return None
    analyzer = tvm.arith.Analyzer()
    offsets = [analyzer.simplify(i - at) for i, at in zip(indices, load.indices, strict=True)]
    return [int(o) for o in offsets] if all(isinstance(o, tirx.IntImm) for o in offsets) else None


def _store(function: tirx.PrimFunc) -> Any:
    """The one store of a function, None where it has more."""
    stores: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.BufferStore, stores.append))
    return stores[0] if len(stores) == 1 else None


def _placeholder(operand: Expr, place: int) -> Any:
    return te.placeholder(shape_of(operand), dtype_of(operand), name=f"x{place}")


recover_operators = rewriting_pass("recover_operators", lambda: [_Recover()])
