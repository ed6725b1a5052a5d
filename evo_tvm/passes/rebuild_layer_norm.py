"""d / sqrt(mean(d * d) + eps) => layer_norm(x, 1, 0), where d = x - mean(x); layer_norm(x, g, b) * c => with g*c, b*c.

And `layer_norm(x, g, b) + c => layer_norm(x, g, b + c)`, so that scale and shift end inside it. Ba, Kiros and Hinton,
"Layer Normalization" (2016). Powers are for `simplify_powers` to write as products first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._products import shifted
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import (
    Array,
    array_of,
    constant,
    dtype_of,
    is_constant,
    same_type,
    scalar_of,
    shape_of,
    values_of,
)

_LAYER_NORM = "relax.nn.layer_norm"


@dataclass(frozen=True)
class _Norm:
    data: Expr
    axes: tuple[int, ...]
    epsilon: float


class _Rebuild(Rule[_Norm]):
    roots: ClassVar[tuple[str, ...]] = ("relax.divide", "relax.multiply")

    def match(self, graph: Graph, value: Expr) -> _Norm | None:
        if dtype_of(value) != "float32" or shape_of(value) is None:
            return None
        pairs = (value.args, list(value.args)[::-1]) if operator_name(value) == "relax.multiply" else (value.args,)
        for centred, other in pairs:
            difference = graph.producer(centred, "relax.subtract")
            root = None if difference is None else _deviation(graph, value, other)
            parts = None if root is None else shifted(graph, root.args[0])
            if difference is None or parts is None:
                continue
            data, axes = difference.args[0], _axes(graph.producer(parts[0], "relax.mean"))
            if (
                axes is not None
                and _is_variance(graph, parts[0], data, axes)
                and _is_centred(graph, centred, data, axes)
            ):
                return _Norm(data, axes, parts[1])
        return None

    def rewrite(self, graph: Graph, found: _Norm) -> Expr:
        shape = shape_of(found.data)
        assert shape is not None
        sizes = [shape[axis] for axis in found.axes]
        scale, shift = constant(np.ones(sizes, "float32")), constant(np.zeros(sizes, "float32"))
        return relax.op.nn.layer_norm(found.data, scale, shift, list(found.axes), found.epsilon)


def _deviation(graph: Graph, root: Call, other: Expr) -> Call | None:
    """The call of sqrt or rsqrt that the root divides by: `d / sqrt(v)`, `d * rsqrt(v)` or `d * (1 / sqrt(v))`."""
    if operator_name(root) == "relax.divide":
        return graph.producer(other, "relax.sqrt")
    quotient = graph.producer(other, "relax.divide")
    if quotient is not None:
        return graph.producer(quotient.args[1], "relax.sqrt") if scalar_of(quotient.args[0]) == 1 else None
    return graph.producer(other, "relax.rsqrt")


def _axes(mean: Call | None) -> tuple[int, ...] | None:
    """The axes that a mean keeps with size one, in order."""
    if mean is None or not mean.attrs.keepdims or mean.attrs.axis is None:
        return None
    return tuple(sorted(int(axis) % int(mean.args[0].ty.ndim) for axis in mean.attrs.axis))


def _is_centred(graph: Graph, expr: Expr, data: Expr, axes: tuple[int, ...]) -> bool:
    """`data - mean(data)`."""
    call = graph.producer(expr, "relax.subtract")
    mean = None if call is None else graph.producer(call.args[1], "relax.mean")
    if call is None or mean is None or not call.args[0].same_as(data):
        return False
    return bool(mean.args[0].same_as(data)) and _axes(mean) == axes


def _is_variance(graph: Graph, expr: Expr, data: Expr, axes: tuple[int, ...]) -> bool:
    """`mean((data - mean(data)) * (data - mean(data)))`."""
    mean = graph.producer(expr, "relax.mean")
    square = None if mean is None else graph.producer(mean.args[0], "relax.multiply")
    if square is None or not square.args[0].same_as(square.args[1]):
        return False
    return _is_centred(graph, square.args[0], data, axes)


@dataclass(frozen=True)
class _Scaled:
    call: Call
    norm: Call
    values: Array | None  # the constant, one for each element of gamma


class _Absorb(Rule[_Scaled]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply", "relax.add")

    def match(self, graph: Graph, value: Expr) -> _Scaled | None:
        norm = graph.producer(value.args[0], _LAYER_NORM)
        if norm is None or not all(is_constant(arg) for arg in (value.args[1], *norm.args[1:])):
            return None
        axes = [int(axis) % int(norm.ty.ndim) for axis in norm.attrs.axes]
        return _Scaled(value, norm, _spread(value, axes)) if same_type(value, norm) and axes == sorted(axes) else None

    def check(self, graph: Graph, found: _Scaled) -> str | None:
        if found.values is None:
            return "the constant differs along an axis that is not normalized"
        return None if graph.only_use(found.call.args[0]) else "the normalized value is used elsewhere too"

    def rewrite(self, graph: Graph, found: _Scaled) -> Expr:
        data, gamma, beta = found.norm.args
        scale, shift = values_of(gamma).astype(np.float64), values_of(beta).astype(np.float64)
        assert found.values is not None
        if operator_name(found.call) == "relax.multiply":
            scale, shift = scale * found.values, shift * found.values
        else:
            shift = shift + found.values
        attrs, dtype = found.norm.attrs, dtype_of(found.call)
        axes = [int(axis) for axis in attrs.axes]
        return relax.op.nn.layer_norm(data, constant(scale, dtype), constant(shift, dtype), axes, attrs.epsilon)


def _spread(call: Call, axes: list[int]) -> Array | None:
    """The constant operand over the normalized axes alone; None where it differs along another one."""
    array, shape = array_of(call.args[1]), shape_of(call)
    if array is None or shape is None or array.ndim > len(shape):
        return None
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if any(size != 1 for place, size in enumerate(full.shape) if place not in axes):
        return None
    return np.broadcast_to(full.reshape([full.shape[axis] for axis in axes]), [shape[axis] for axis in axes])


rebuild_layer_norm = rewriting_pass("rebuild_layer_norm", lambda: [_Rebuild(), _Absorb()])
