"""Scalar expressions of the elementwise operators: what can be fused behind any kernel, in any layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Expr as PrimExpr

Expression = Callable[..., PrimExpr]


def _f(value: float) -> PrimExpr:
    return tirx.const(value, "float32")


def _blend(a: PrimExpr, b: PrimExpr, *, left: float, right: float, start: float) -> PrimExpr:
    """a * left + (b * right + start), of integers."""
    return _real(a) * _f(left) + (_real(b) * _f(right) + _f(start))


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


def rounded(x: PrimExpr, *, scale: float, zero_point: int, dtype: str) -> PrimExpr:
    """round(x / scale) + zero_point, half to even, as int32: at most the largest of `dtype`, but not yet at least the
    smallest.

    The bound comes before rounding, since numbers beyond 32 bits have no integer. It also keeps the product from being
    fused with what follows: it is rounded on its own, as in other engines.
    """
    y = x if scale == 1 else x / _f(scale)
    whole = tirx.call_llvm_pure_intrin("int32", "llvm.lrint", tirx.min(y, _f(int(np.iinfo(dtype).max) - zero_point)))
    return whole if zero_point == 0 else whole + tirx.const(zero_point, "int32")


def narrowed(x: PrimExpr, dtype: str) -> PrimExpr:
    """What `rounded` gave, as bytes."""
    return tirx.max(x, tirx.const(int(np.iinfo(dtype).min), "int32")).astype(dtype)


def _quantize(x: PrimExpr, *, scale: float, zero_point: int, dtype: str) -> PrimExpr:
    """round(x / scale) + zero_point, cut off at the bounds of `dtype`."""
    return narrowed(rounded(x, scale=scale, zero_point=zero_point, dtype=dtype), dtype)


def _dequantize(q: PrimExpr, *, scale: float, zero_point: int) -> PrimExpr:
    """(q - zero_point) * scale; q are integers, or a mean of them."""
    number = _real(q)
    return (number if zero_point == 0 else number - _f(zero_point)) * _f(scale)


def _real(q: PrimExpr) -> PrimExpr:
    """The number as float32; one that was made a byte here is taken as it was before."""
    return (q.value if isinstance(q, tirx.Cast) else q).astype("float32")


#: operator -> its value from the values of its operands and its attributes, all float32 where it does not say otherwise
EXPRESSIONS: Mapping[str, Expression] = {
    "abs": tirx.abs,
    "add": lambda a, b: a + b,
    "blend": _blend,
    "clip": _clip,
    "dequantize": _dequantize,
    "divide": lambda a, b: a / b,
    "erf": tirx.erf,
    "exp": tirx.exp,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "keep": lambda x, mask, *, channels: tirx.Select(mask != _f(0), x, _f(0)),
    "leaky_relu": _leaky_relu,
    "log": tirx.log,
    "maximum": tirx.max,
    "minimum": tirx.min,
    "multiply": lambda a, b: a * b,
    "negative": lambda a: -a,
    "prelu": _prelu,
    "quantize": _quantize,
    "relu": lambda a: tirx.max(a, _f(0)),
    "rescale": lambda sums, scale: sums.astype("float32") * scale,
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
