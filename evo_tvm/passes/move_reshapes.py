"""f(reshape(x)) => reshape(f(x)); f(reshape(x), y) => reshape(f(x, reshape(y))) where x comes from a matrix product.

An elementwise operator ignores the shape. Behind the reshape it is a kernel of its own; before it, it is fused into the
kernel that made x. A constant must keep its meaning: one value in all, one for each place of axes that the reshape
leaves as they are, or one for every element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tvm import relax
from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._elementwise import BINARY, UNARY, ends_in_kernel, operand_and_constant, rebuilt, single
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import Array, constant, same_type, shape_of
from evo_tvm.passes.cancel_pairs import Reshapes

_RESHAPE = "relax.reshape"


@dataclass(frozen=True)
class _Constant:
    call: Call
    data: Expr  # before the reshape
    array: Array | None
    seen: Array | None  # the constant as it broadcasts against `data`


class _UnaryOrConstant(Rule[_Constant]):
    roots: ClassVar[tuple[str, ...]] = (*UNARY, *BINARY)

    def match(self, graph: Graph, value: Expr) -> _Constant | None:
        inner = single(graph, value.args[0], _RESHAPE)
        found = None if inner is None else operand_and_constant(value)
        if found is None or inner is None or isinstance(inner.args[0], GenericConst):
            return None
        before, after = shape_of(inner.args[0]), shape_of(value)
        if before is None or after is None:
            return None
        return _Constant(value, inner.args[0], found[1], None if found[1] is None else _seen(found[1], after, before))

    def check(self, graph: Graph, found: _Constant) -> str | None:
        lost = found.array is not None and found.seen is None
        return "the constant differs along an axis that the reshape changes" if lost else None

    def rewrite(self, graph: Graph, found: _Constant) -> Expr:
        args = [found.data] if found.seen is None else [found.data, constant(found.seen)]
        return relax.op.reshape(graph.emit(rebuilt(found.call, args), graph.root_name), shape_of(found.call))


def _seen(array: Array, after: tuple[int, ...], before: tuple[int, ...]) -> Array | None:
    """A constant that broadcasts against shape `after`, as it broadcasts against `before`, the shape reshaped to it."""
    if array.size == math.prod(after):
        return array.reshape(before)
    # An axis stays what it is where as many elements lie before it, and it is as long.
    places = {(math.prod(before[:axis]), before[axis]): axis for axis in range(len(before))}
    sizes = [1] * len(before)
    for axis, size in enumerate(array.shape):
        if size > 1:
            place = places.get((math.prod(after[:axis]), size))
            if place is None:
                return None
            sizes[place] = size
    return array.reshape(sizes)


@dataclass(frozen=True)
class _Rows:
    data: Expr  # before the reshape
    result: tuple[int, ...]


class _Softmax(Rule[_Rows]):
    """Over a last axis that the reshape leaves as it is: ONNX before opset 13 makes matrices of its operands."""

    roots: ClassVar[tuple[str, ...]] = ("relax.nn.softmax",)

    def match(self, graph: Graph, value: Expr) -> _Rows | None:
        inner, after = single(graph, value.args[0], _RESHAPE), shape_of(value)
        before = None if inner is None else shape_of(inner.args[0])
        if inner is None or not before or not after or before[-1] != after[-1]:
            return None
        return _Rows(inner.args[0], after) if int(value.attrs.axis) % len(after) == len(after) - 1 else None

    def rewrite(self, graph: Graph, found: _Rows) -> Expr:
        return relax.op.reshape(graph.emit(relax.op.nn.softmax(found.data, -1), graph.root_name), found.result)


@dataclass(frozen=True)
class _Tensors:
    call: Call
    data: list[Expr]  # both operands in one shape; the second is still to be reshaped where it is in another
    swapped: bool


class _TwoTensors(Rule[_Tensors]):
    roots: ClassVar[tuple[str, ...]] = BINARY

    def match(self, graph: Graph, value: Expr) -> _Tensors | None:
        left, right = value.args
        a, b = single(graph, left, _RESHAPE), single(graph, right, _RESHAPE)
        if (a is None and b is None) or isinstance(right, GenericConst) or not same_type(left, right):
            return None
        if a is not None and b is not None and same_type(a.args[0], b.args[0]):
            return _Tensors(value, [a.args[0], b.args[0]], False)
        for inner, other, swapped in ((a, right, False), (b, left, True)):
            if inner is not None and _is_product(graph, inner.args[0]):
                return _Tensors(value, [inner.args[0], other], swapped)
        return None

    def rewrite(self, graph: Graph, found: _Tensors) -> Expr:
        data, other = found.data
        if not same_type(data, other):
            other = graph.emit(relax.op.reshape(other, shape_of(data)))
        args = [other, data] if found.swapped else [data, other]
        return relax.op.reshape(graph.emit(rebuilt(found.call, args), graph.root_name), shape_of(found.call))


def _is_product(graph: Graph, expr: Expr) -> bool:
    """Whether a matrix product by a constant ends here, elementwise operators behind it or not."""
    call = single(graph, expr)
    if call is None or not ends_in_kernel(graph, expr):
        return False
    if operator_name(call) in (*UNARY, *BINARY):
        return any(_is_product(graph, arg) for arg in call.args)
    return operator_name(call) == "relax.matmul" and isinstance(call.args[1], GenericConst)


#: Reshapes go down with transposes, too: between the product and the scale of queries there may be some of both.
RULES = (_UnaryOrConstant, _TwoTensors, _Softmax, Reshapes)

move_reshapes = rewriting_pass("move_reshapes", lambda: [rule() for rule in RULES])
