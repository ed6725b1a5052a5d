"""f(x) => x, where f does nothing.

Reshapes, broadcasts, casts, slices and transposes that change nothing, dropout, pooling over one element, concatenation
of one, padding by zero, reductions of axes of size one, arithmetic with the neutral element, activations applied twice.
A transpose that moves only axes of size one becomes a reshape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import TUPLE_ITEM, Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import is_never_negative, same_type, scalar_of, shape_of


def _always(call: Call) -> bool:
    """For operators that do nothing whenever their result has the shape and dtype of their operand."""
    return True


def _right_is(neutral: float) -> Callable[[Call], bool]:
    return lambda call: scalar_of(call.args[1]) == neutral


def _is_whole(call: Call) -> bool:
    """A slice of the operand's shape is all of it, unless it goes backwards."""
    return len(call.args) < 5 or all(int(stride) > 0 for stride in call.args[4])


def _is_ordered(call: Call) -> bool:
    """Whether a transpose leaves the axes that are not of size one in order."""
    shape = shape_of(call.args[0])
    if shape is None:
        return False
    axes = call.attrs.axes
    order = list(range(len(shape)))[::-1] if axes is None else [int(axis) % len(shape) for axis in axes]
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def _is_one_element(call: Call) -> bool:
    """A pooling window of one element, one step at a time."""
    attrs = call.attrs
    return all(int(v) == 1 for v in (*attrs.pool_size, *attrs.strides)) and not any(int(p) for p in attrs.padding)


def _is_unbounded(call: Call) -> bool:
    low, high = (float(bound.value) for bound in call.args[1:])
    return low == -np.inf and high == np.inf


def _has_no_width(call: Call) -> bool:
    return not any(int(width) for width in call.attrs.pad_width)


#: What each operator must satisfy, besides giving the shape and dtype of its first operand, to be left out.
_DOES_NOTHING: Mapping[str, Callable[[Call], bool]] = {
    **dict.fromkeys(("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten"), _always),
    **dict.fromkeys(("relax.nn.batch_flatten", "relax.broadcast_to", "relax.astype", "relax.tile"), _always),
    **dict.fromkeys(("relax.repeat", "relax.split", "relax.nn.adaptive_avg_pool2d"), _always),
    **dict.fromkeys(("relax.sum", "relax.mean", "relax.max", "relax.min", "relax.prod"), _always),
    **dict.fromkeys(("relax.nn.max_pool2d", "relax.nn.avg_pool2d"), _is_one_element),
    **dict.fromkeys(("relax.multiply", "relax.divide", "relax.power"), _right_is(1)),
    **dict.fromkeys(("relax.add", "relax.subtract"), _right_is(0)),
    "relax.maximum": _right_is(-np.inf),
    "relax.minimum": _right_is(np.inf),
    "relax.clip": _is_unbounded,
    "relax.nn.pad": _has_no_width,
    "relax.strided_slice": _is_whole,
    "relax.permute_dims": _is_ordered,
}


class _RemoveCall(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = tuple(_DOES_NOTHING)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value if same_type(value, value.args[0]) and _DOES_NOTHING[operator_name(value)](value) else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return found.args[0]


class _RemoveOneOperand(Rule[Call]):
    """Concatenation of one tensor."""

    roots: ClassVar[tuple[str, ...]] = ("relax.concat",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        operands = value.args[0]
        return value if isinstance(operands, relax.Tuple) and len(operands.fields) == 1 else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return found.args[0].fields[0]


class _RemoveDropout(Rule[Call]):
    """Dropout gives a tuple of its operand and a mask."""

    roots: ClassVar[tuple[str, ...]] = (TUPLE_ITEM,)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return graph.producer(value.tuple_value, "relax.nn.dropout") if value.index == 0 else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return found.args[0]


class _TransposeToReshape(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.permute_dims",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value if _is_ordered(value) else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return relax.op.reshape(found.args[0], shape_of(found))


#: Operators that only choose among the elements of their first operand, or average them.
_KEEP_SIGN = (
    *("relax.reshape", "relax.permute_dims", "relax.strided_slice", "relax.nn.max_pool2d", "relax.nn.avg_pool2d"),
    "relax.nn.adaptive_avg_pool2d",
)


class _RemoveRepeatedActivation(Rule[Call]):
    """A ReLU of what cannot be negative, past what does not change that."""

    roots: ClassVar[tuple[str, ...]] = ("relax.nn.relu",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value if _cannot_be_negative(graph, value.args[0]) else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return found.args[0]


def _cannot_be_negative(graph: Graph, expr: Expr) -> bool:
    call = graph.producer(expr)
    if call is not None and operator_name(call) in _KEEP_SIGN:
        return _cannot_be_negative(graph, call.args[0])
    if call is not None and operator_name(call) == "relax.concat" and isinstance(call.args[0], relax.Tuple):
        return all(_cannot_be_negative(graph, field) for field in call.args[0].fields)
    return is_never_negative(call)


remove_no_ops = rewriting_pass(
    "remove_no_ops",
    lambda: [_RemoveCall(), _RemoveOneOperand(), _RemoveDropout(), _TransposeToReshape(), _RemoveRepeatedActivation()],
)
