"""f(constants) => constant.

TVM's own FoldConstant compiles each call (24 s on DenseNet-121); this evaluates in numpy, where the operator has an
exact counterpart there. Quantized weights are left as `dequantize(constant)`, the form that integer kernels look for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import relax, tirx
from tvm.ir import Call, Expr

from evo_tvm.passes._numpy import EVALUATORS, FLOAT_ONLY
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import (
    Array,
    array_of,
    bytes_of,
    constant,
    dtype_of,
    in_numpy,
    is_constant,
    is_float,
    shape_of,
)

#: A constant larger than this many bytes is not made out of smaller ones.
MAX_GROWTH_BYTES = 64 << 20


@dataclass(frozen=True)
class _Found:
    call: Call
    evaluate: Callable[[Call, list[Any]], Array]


class _Fold(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = tuple(EVALUATORS)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        args = list(value.args)
        if not all(_is_known(arg) for arg in args) or shape_of(value) is None or not in_numpy(dtype_of(value)):
            return None
        return _Found(value, EVALUATORS[operator_name(value)])

    def check(self, graph: Graph, found: _Found) -> str | None:
        shape = shape_of(found.call)
        assert shape is not None
        if operator_name(found.call) in FLOAT_ONLY and not is_float(dtype_of(found.call)):
            return "numpy and Relax define it differently on integers"
        size = bytes_of(shape, dtype_of(found.call))
        if size > MAX_GROWTH_BYTES and size > sum(_bytes(arg) for arg in found.call.args):
            return f"the constant would grow to {size >> 20} MiB (at most {MAX_GROWTH_BYTES >> 20})"
        return None

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        with np.errstate(all="ignore"):
            result = np.asarray(found.evaluate(found.call, [_value(arg) for arg in found.call.args]))
        shape = shape_of(found.call)
        assert result.shape == shape, f"{operator_name(found.call)} gave {result.shape}, Relax says {shape}"
        return constant(result, dtype_of(found.call))


def _is_known(expr: Expr) -> bool:
    if isinstance(expr, relax.Tuple):
        return all(_is_known(field) for field in expr.fields)
    if isinstance(expr, relax.ShapeExpr):
        return all(isinstance(dim, tirx.IntImm) for dim in expr)
    return is_constant(expr) or isinstance(expr, tirx.IntImm | tirx.FloatImm)


def _bytes(expr: Expr) -> int:
    if isinstance(expr, relax.Tuple):
        return sum(_bytes(field) for field in expr.fields)
    shape = shape_of(expr) if is_constant(expr) else None
    return 0 if shape is None else bytes_of(shape, dtype_of(expr))


def _value(expr: Expr) -> Any:
    """Constants as arrays, tuples as lists; shapes and numbers as they are."""
    if isinstance(expr, relax.Tuple):
        return [_value(field) for field in expr.fields]
    return array_of(expr) if is_constant(expr) else expr


fold_constants = rewriting_pass("fold_constants", lambda: [_Fold()])
