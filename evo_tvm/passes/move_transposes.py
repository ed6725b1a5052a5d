"""f(transpose(x)) => transpose(f(x)); transpose(f(x), to NCHW) => f(transpose(x)); 1x1 convolutions where they meet.

Transposes go down past elementwise operators, reductions, padding and concatenation, but those from NHWC to NCHW go up,
until two of them cancel. Past a matrix product of the channels they go too, which is then a 1x1 convolution:
`matmul(transpose(x, [0, 2, 3, 1]), w) => transpose(conv2d(x, w), [0, 2, 3, 1])`, and the other way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._elementwise import BINARY, UNARY, operand_and_constant, rebuilt, single
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import Array, constant, dtype_of, shape_of, values_of
from evo_tvm.passes.cancel_pairs import Transposes, transpose_axes
from evo_tvm.passes.move_reshapes import RULES as RESHAPE_RULES

_TRANSPOSE = "relax.permute_dims"
_REDUCTIONS = {
    "relax.mean": relax.op.mean,
    "relax.sum": relax.op.sum,
    "relax.max": relax.op.max,
    "relax.min": relax.op.min,
}
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def _sinking(graph: Graph, expr: Expr) -> Call | None:
    """The transpose that computes `expr` for its one reader, where it is one that goes down."""
    call = single(graph, expr, _TRANSPOSE)
    return None if call is None or tuple(transpose_axes(call)) == _TO_NCHW else call


def _inverse(axes: list[int]) -> list[int]:
    return [axes.index(axis) for axis in range(len(axes))]


@dataclass(frozen=True)
class _Operands:
    """`call` on `data`, the operands before they were transposed by `axes`; `array` is its constant operand."""

    call: Call
    data: list[Expr]
    axes: list[int]
    array: Array | None = None


class _BelowElementwise(Rule[_Operands]):
    roots: ClassVar[tuple[str, ...]] = (*UNARY, *BINARY)

    def match(self, graph: Graph, value: Expr) -> _Operands | None:
        pair = [_sinking(graph, arg) for arg in value.args]
        found = None if pair[0] is None else operand_and_constant(value)
        if pair[0] is not None and found is not None:
            return _Operands(value, [pair[0].args[0]], transpose_axes(pair[0]), found[1])
        if len(pair) != 2 or pair[0] is None or pair[1] is None or pair[0].ty.ndim != pair[1].ty.ndim:
            return None
        axes = transpose_axes(pair[0])
        return _Operands(value, [pair[0].args[0], pair[1].args[0]], axes) if transpose_axes(pair[1]) == axes else None

    def rewrite(self, graph: Graph, found: _Operands) -> Expr:
        args = list(found.data)
        if found.array is not None:
            args.append(constant(found.array.transpose(_inverse(found.axes))))
        return relax.op.permute_dims(graph.emit(rebuilt(found.call, args), graph.root_name), found.axes)


class _BelowConcat(Rule[_Operands]):
    roots: ClassVar[tuple[str, ...]] = ("relax.concat",)

    def match(self, graph: Graph, value: Expr) -> _Operands | None:
        fields = list(value.args[0].fields) if isinstance(value.args[0], relax.Tuple) else []
        inner = [call for field in fields if (call := _sinking(graph, field)) is not None]
        if not inner or len(inner) < len(fields) or any(transpose_axes(c) != transpose_axes(inner[0]) for c in inner):
            return None
        return _Operands(value, [call.args[0] for call in inner], transpose_axes(inner[0]))

    def rewrite(self, graph: Graph, found: _Operands) -> Expr:
        axis = found.axes[int(found.call.attrs.axis) % len(found.axes)]
        return relax.op.permute_dims(graph.emit(relax.op.concat(found.data, axis), graph.root_name), found.axes)


class _BelowPad(Rule[_Operands]):
    roots: ClassVar[tuple[str, ...]] = ("relax.nn.pad",)

    def match(self, graph: Graph, value: Expr) -> _Operands | None:
        inner = _sinking(graph, value.args[0])
        return None if inner is None else _Operands(value, [inner.args[0]], transpose_axes(inner))

    def rewrite(self, graph: Graph, found: _Operands) -> Expr:
        attrs = found.call.attrs
        widths = np.reshape([int(width) for width in attrs.pad_width], (-1, 2))[_inverse(found.axes)]
        pad = relax.op.nn.pad(found.data[0], widths.reshape(-1).tolist(), attrs.pad_mode, attrs.pad_value)
        return relax.op.permute_dims(graph.emit(pad, graph.root_name), found.axes)


class _BelowReduction(Rule[_Operands]):
    """Where the axes that are left come out in order, no transpose is left at all."""

    roots: ClassVar[tuple[str, ...]] = tuple(_REDUCTIONS)

    def match(self, graph: Graph, value: Expr) -> _Operands | None:
        inner = single(graph, value.args[0], _TRANSPOSE)
        if inner is None or value.attrs.axis is None:
            return None
        return _Operands(value, [inner.args[0]], transpose_axes(inner))

    def rewrite(self, graph: Graph, found: _Operands) -> Expr:
        attrs, rank = found.call.attrs, len(found.axes)
        reduced = {found.axes[int(axis) % rank] for axis in attrs.axis}
        result = _REDUCTIONS[operator_name(found.call)](found.data[0], sorted(reduced), bool(attrs.keepdims))
        left = [axis for axis in found.axes if attrs.keepdims or axis not in reduced]
        order = [sorted(left).index(axis) for axis in left]
        return result if order == sorted(order) else relax.op.permute_dims(graph.emit(result, graph.root_name), order)


class _AboveElementwise(Rule[_Operands]):
    roots: ClassVar[tuple[str, ...]] = (_TRANSPOSE,)

    def match(self, graph: Graph, value: Expr) -> _Operands | None:
        call = single(graph, value.args[0], *UNARY, *BINARY)
        if call is None or tuple(transpose_axes(value)) != _TO_NCHW or _size_above(graph, call) > _size(call):
            return None
        found = operand_and_constant(call)
        return None if found is None else _Operands(call, [found[0]], list(_TO_NCHW), found[1])

    def rewrite(self, graph: Graph, found: _Operands) -> Expr:
        args: list[Expr] = [_raised(graph, found.data[0])]
        if found.array is not None:
            args.append(constant(found.array.transpose(found.axes)))
        return rebuilt(found.call, args)


def _raised(graph: Graph, data: Expr) -> Expr:
    """The transpose above what it went past, under the name of the value that now comes out transposed."""
    return graph.emit(relax.op.permute_dims(data, list(_TO_NCHW)), str(data.name))


def _size(expr: Expr) -> int:
    return math.prod(shape_of(expr) or ())


def _size_above(graph: Graph, call: Call) -> int:
    """Elements of what a transpose that goes up from `call` would come to stand behind; 0: it meets another one."""
    found = operand_and_constant(call)
    data = found[0] if found is not None else call.args[0] if _channels_product(call) is not None else None
    if data is None:
        return _size(call)
    above = single(graph, data)
    if above is None:
        return _size(data)
    return 0 if operator_name(above) == _TRANSPOSE else _size_above(graph, above)


def _channels_product(call: Call) -> Array | None:
    """The weight of a matrix product of the last of four axes by a constant float32 matrix."""
    if operator_name(call) != "relax.matmul" or not isinstance(call.args[1], GenericConst):
        return None
    if int(call.args[0].ty.ndim) != 4 or int(call.args[1].ty.ndim) != 2 or shape_of(call) is None:
        return None
    return values_of(call.args[1]) if dtype_of(call) == dtype_of(call.args[1]) == "float32" else None


@dataclass(frozen=True)
class _Product:
    data: Expr  # NCHW below, NHWC above
    weight: Array  # (input channels, output channels)


def _convolution(data: Expr, weight: Array) -> Call:
    return relax.op.nn.conv2d(data, constant(weight.T[:, :, None, None]))


class _BelowProduct(Rule[_Product]):
    """Only where the transpose does not become larger."""

    roots: ClassVar[tuple[str, ...]] = ("relax.matmul",)

    def match(self, graph: Graph, value: Expr) -> _Product | None:
        weight, inner = _channels_product(value), single(graph, value.args[0], _TRANSPOSE)
        if weight is None or inner is None or tuple(transpose_axes(inner)) != _TO_NHWC:
            return None
        return _Product(inner.args[0], weight) if weight.shape[1] <= weight.shape[0] else None

    def rewrite(self, graph: Graph, found: _Product) -> Expr:
        return relax.op.permute_dims(
            graph.emit(_convolution(found.data, found.weight), graph.root_name), list(_TO_NHWC)
        )


class _AboveProduct(Rule[_Product]):
    roots: ClassVar[tuple[str, ...]] = (_TRANSPOSE,)

    def match(self, graph: Graph, value: Expr) -> _Product | None:
        call = single(graph, value.args[0], "relax.matmul")
        weight = None if call is None else _channels_product(call)
        if call is None or weight is None or tuple(transpose_axes(value)) != _TO_NCHW:
            return None
        return _Product(call.args[0], weight) if _size_above(graph, call) <= _size(call) else None

    def rewrite(self, graph: Graph, found: _Product) -> Expr:
        return _convolution(_raised(graph, found.data), found.weight)


move_transposes = rewriting_pass(
    "move_transposes",
    lambda: [
        Transposes(),
        _BelowElementwise(),
        _BelowConcat(),
        _BelowPad(),
        _BelowReduction(),
        _BelowProduct(),
        _AboveElementwise(),
        _AboveProduct(),
        *(rule() for rule in RESHAPE_RULES),
    ],
)
