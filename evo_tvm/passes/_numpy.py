"""Relax operators as numpy functions: `EVALUATORS[name](call, operands) -> array`.

Only operators whose numpy counterpart gives the same values are here. Remainders (truncated or floored) and `round`
(whose halves depend on the target) are not, nor are those in `FLOAT_ONLY` for integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.ir import Call

from evo_tvm.passes._values import Array, dtype_of, shape_of

Evaluator = Callable[[Call, list[Any]], Array]


def _elementwise(function: Callable[..., Any]) -> Evaluator:
    return lambda call, args: np.asarray(function(*args))


def _to_output_shape(call: Call, args: list[Any]) -> Array:
    return np.asarray(args[0]).reshape(_shape(call))


def _reduction(function: Callable[..., Any]) -> Evaluator:
    def evaluate(call: Call, args: list[Any]) -> Array:
        axis = None if call.attrs.axis is None else tuple(int(a) for a in call.attrs.axis)
        return np.asarray(function(args[0], axis=axis, keepdims=bool(call.attrs.keepdims)))

    return evaluate


def _shape(call: Call) -> tuple[int, ...]:
    shape = shape_of(call)
    assert shape is not None
    return shape


def _transpose(call: Call, args: list[Any]) -> Array:
    axes = call.attrs.axes
    return np.transpose(args[0], None if axes is None else [int(a) for a in axes])


def _slice(call: Call, args: list[Any]) -> Array:
    """ONNX and Relax agree with Python on bounds, but for an end below zero that Python would take from the back."""
    data = args[0]
    axes, begins, ends = ([int(v) for v in arg] for arg in args[1:4])
    strides = [int(v) for v in args[4]] if len(args) > 4 else [1] * len(axes)
    index = [slice(None)] * data.ndim
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        extent = data.shape[axis]
        index[axis] = slice(begin, None if stride < 0 and end < -extent else end, stride)
    return np.asarray(data[tuple(index)])


def _take(call: Call, args: list[Any]) -> Array:
    axis = call.attrs.axis
    return np.asarray(np.take(args[0], args[1], None if axis is None else int(axis), mode="wrap"))


def _pad(call: Call, args: list[Any]) -> Array:
    widths = np.reshape([int(width) for width in call.attrs.pad_width], (-1, 2))
    if call.attrs.pad_mode == "constant":
        return np.asarray(np.pad(args[0], widths, constant_values=call.attrs.pad_value))
    modes: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    return np.asarray(np.pad(args[0], widths, modes[call.attrs.pad_mode]))


def _clip(call: Call, args: list[Any]) -> Array:
    return np.clip(args[0], *(np.array(bound.value, dtype_of(call)) for bound in args[1:]))


def _arange(call: Call, args: list[Any]) -> Array:
    return np.arange(*(bound.value for bound in args), dtype=dtype_of(call))


#: Operators that numpy and Relax define differently on integers.
FLOAT_ONLY = frozenset({"relax.divide", "relax.power", "relax.mean"})

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
    "divide": np.divide,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "logical_not": np.logical_not,
    "where": np.where,
    "abs": np.abs,
    "negative": np.negative,
    "sign": np.sign,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "nn.relu": lambda x: np.maximum(x, np.zeros((), x.dtype)),
}

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
}

EVALUATORS: dict[str, Evaluator] = {
    **{f"relax.{name}": _elementwise(function) for name, function in _ELEMENTWISE.items()},
    **{f"relax.{name}": _reduction(function) for name, function in _REDUCTIONS.items()},
    **{f"relax.{name}": _to_output_shape for name in ("reshape", "squeeze", "expand_dims", "flatten")},
    "relax.nn.batch_flatten": _to_output_shape,
    "relax.broadcast_to": lambda call, args: np.broadcast_to(args[0], _shape(call)),
    "relax.permute_dims": _transpose,
    "relax.astype": lambda call, args: args[0].astype(dtype_of(call)),
    "relax.concat": lambda call, args: np.concatenate(args[0], axis=int(call.attrs.axis)),
    "relax.stack": lambda call, args: np.stack(args[0], axis=int(call.attrs.axis)),
    "relax.strided_slice": _slice,
    "relax.take": _take,
    "relax.tile": lambda call, args: np.tile(args[0], [int(r) for r in call.attrs.repeats]),
    "relax.repeat": lambda call, args: np.repeat(
        args[0], int(call.attrs.repeats), None if call.attrs.axis is None else int(call.attrs.axis)
    ),
    "relax.nn.pad": _pad,
    "relax.clip": _clip,
    "relax.full": lambda call, args: np.full(_shape(call), args[1]),
    "relax.zeros": lambda call, args: np.zeros(_shape(call), dtype_of(call)),
    "relax.ones": lambda call, args: np.ones(_shape(call), dtype_of(call)),
    "relax.zeros_like": lambda call, args: np.zeros(_shape(call), dtype_of(call)),
    "relax.ones_like": lambda call, args: np.ones(_shape(call), dtype_of(call)),
    "relax.arange": _arange,
    "relax.shape_to_tensor": lambda call, args: np.array([int(dim) for dim in args[0]], "int64"),
}
