"""Scalar expressions of the elementwise operators: what can be fused behind any kernel, in any layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tvm import tirx
from tvm.ir import Expr as PrimExpr

Expression = Callable[..., PrimExpr]


def _f(value: float) -> PrimExpr:
    return tirx.const(value, "float32")


def _clip(x: PrimExpr, *, min: float, max: float) -> PrimExpr:
    return tirx.min(tirx.max(x, _f(min)), _f(max))


def _leaky_relu(x: PrimExpr, *, alpha: float) -> PrimExpr:
    return tirx.Select(x > 0, x, x * _f(alpha))


def _prelu(x: PrimExpr, slope: PrimExpr) -> PrimExpr:
    return tirx.Select(x > 0, x, x * slope)


def _sigmoid(x: PrimExpr) -> PrimExpr:
    return _f(1) / (_f(1) + tirx.exp(-x))


def _hard_sigmoid(x: PrimExpr, *, alpha: float, beta: float) -> PrimExpr:
    return _clip(x * _f(alpha) + _f(beta), min=0.0, max=1.0)


def _gelu(x: PrimExpr) -> PrimExpr:
    return x * _f(0.5) * (_f(1) + tirx.erf(x * _f(0.7071067811865476)))


def _gelu_tanh(x: PrimExpr) -> PrimExpr:
    return x * _f(0.5) * (_f(1) + tirx.tanh(x * _f(0.7978845608028654) * (_f(1) + _f(0.044715) * x * x)))


#: operator -> its value from the values of its operands and its attributes, all float32
EXPRESSIONS: Mapping[str, Expression] = {
    "abs": tirx.abs,
    "add": lambda a, b: a + b,
    "clip": _clip,
    "divide": lambda a, b: a / b,
    "erf": tirx.erf,
    "exp": tirx.exp,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "leaky_relu": _leaky_relu,
    "log": tirx.log,
    "maximum": tirx.max,
    "minimum": tirx.min,
    "multiply": lambda a, b: a * b,
    "negative": lambda a: -a,
    "prelu": _prelu,
    "relu": lambda a: tirx.max(a, _f(0)),
    "rsqrt": lambda a: _f(1) / tirx.sqrt(a),
    "sigmoid": _sigmoid,
    "silu": lambda a: a * _sigmoid(a),
    "sqrt": tirx.sqrt,
    "square": lambda a: a * a,
    "subtract": lambda a, b: a - b,
    "tanh": tirx.tanh,
}

#: Operators that give finite numbers for finite numbers, whatever their constants are. Behind the others the lanes of
#: channels that only pad a block are set to zero: 0/0 or log(0) there would reach the next layer as NaN times zero.
FINITE = frozenset(EXPRESSIONS) - {"divide", "exp", "log", "rsqrt", "sqrt"}


def apply(kind: str, operands: list[PrimExpr], attrs: Mapping[str, Any]) -> PrimExpr:
    """The value of elementwise operator `kind`."""
    return EXPRESSIONS[kind](*operands, **attrs)
