"""transpose(transpose(x)) => transpose(x); reshape(reshape(x)) => reshape(x); quantize(dequantize(q)) => q; and so on.

Also two casts in a row where the first loses nothing, `concat(split(x)) => x`, and `split(concat(a, b))[i] => a` or `b`
where the pieces are the same. The second operator of a pair is rewritten; the first stays while others use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import TUPLE_ITEM, Graph, Rule, rewriting_pass
from evo_tvm.passes._values import array_of, dtype_of, in_numpy, same_type, shape_of

_RESHAPES = ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.nn.batch_flatten")


@dataclass(frozen=True)
class _Pair:
    outer: Call
    inner: Call


class Transposes(Rule[_Pair]):
    roots: ClassVar[tuple[str, ...]] = ("relax.permute_dims",)

    def match(self, graph: Graph, value: Expr) -> _Pair | None:
        inner = graph.producer(value.args[0], "relax.permute_dims")
        return None if inner is None else _Pair(value, inner)

    def rewrite(self, graph: Graph, found: _Pair) -> Expr:
        first, second = transpose_axes(found.inner), transpose_axes(found.outer)
        axes = [first[axis] for axis in second]
        source = found.inner.args[0]
        return source if axes == sorted(axes) else relax.op.permute_dims(source, axes)


def transpose_axes(call: Call) -> list[int]:
    rank = int(call.ty.ndim)
    return list(range(rank))[::-1] if call.attrs.axes is None else [int(axis) % rank for axis in call.attrs.axes]


class Reshapes(Rule[_Pair]):
    roots: ClassVar[tuple[str, ...]] = _RESHAPES

    def match(self, graph: Graph, value: Expr) -> _Pair | None:
        inner = graph.producer(value.args[0], *_RESHAPES)
        return None if inner is None or shape_of(value) is None else _Pair(value, inner)

    def rewrite(self, graph: Graph, found: _Pair) -> Expr:
        source = found.inner.args[0]
        return source if same_type(found.outer, source) else relax.op.reshape(source, shape_of(found.outer))


class _Casts(Rule[_Pair]):
    roots: ClassVar[tuple[str, ...]] = ("relax.astype",)

    def match(self, graph: Graph, value: Expr) -> _Pair | None:
        inner = graph.producer(value.args[0], "relax.astype")
        return None if inner is None else _Pair(value, inner)

    def check(self, graph: Graph, found: _Pair) -> str | None:
        source, between = dtype_of(found.inner.args[0]), dtype_of(found.inner)
        exact = in_numpy(source) and in_numpy(between) and np.can_cast(source, between, "safe")
        return None if exact else f"the first cast, {source} to {between}, can change values"

    def rewrite(self, graph: Graph, found: _Pair) -> Expr:
        source = found.inner.args[0]
        return source if same_type(found.outer, source) else relax.op.astype(source, dtype_of(found.outer))


class _Quantization(Rule[_Pair]):
    """Only this way round: dequantize(quantize(x)) rounds and clips, so it must stay."""

    roots: ClassVar[tuple[str, ...]] = ("relax.quantize",)

    def match(self, graph: Graph, value: Expr) -> _Pair | None:
        inner = graph.producer(value.args[0], "relax.dequantize")
        return None if inner is None else _Pair(value, inner)

    def check(self, graph: Graph, found: _Pair) -> str | None:
        if not same_type(found.outer, found.inner.args[0]):
            return "the integer types differ"
        for name, a, b in zip(("scales", "zero points"), found.outer.args[1:], found.inner.args[1:], strict=True):
            left, right = array_of(a), array_of(b)
            if left is None or right is None:
                return f"the {name} are not constants"
            if left.shape != right.shape or not (left == right).all():
                return f"the {name} differ"
            if left.size > 1 and int(found.outer.attrs.axis) != int(found.inner.attrs.axis):
                return "the axes differ"
        return None

    def rewrite(self, graph: Graph, found: _Pair) -> Expr:
        return found.inner.args[0]


class _SplitThenConcat(Rule[_Pair]):
    roots: ClassVar[tuple[str, ...]] = ("relax.concat",)

    def match(self, graph: Graph, value: Expr) -> _Pair | None:
        fields = list(value.args[0].fields) if isinstance(value.args[0], relax.Tuple) else []
        items = [graph.item(field) for field in fields]
        tuples = {-1 if item is None else hash(item.tuple_value) for item in items}
        split = graph.producer(items[0].tuple_value, "relax.split") if items and items[0] is not None else None
        if split is None or len(tuples) > 1 or int(split.attrs.axis) != int(value.attrs.axis):
            return None
        in_order = [int(item.index) for item in items if item is not None] == list(range(len(items)))
        return _Pair(value, split) if in_order and same_type(value, split.args[0]) else None

    def rewrite(self, graph: Graph, found: _Pair) -> Expr:
        return found.inner.args[0]


@dataclass(frozen=True)
class _Piece:
    fields: list[Expr]
    pieces: list[int]
    sizes: list[int]
    index: int


class _ConcatThenSplit(Rule[_Piece]):
    roots: ClassVar[tuple[str, ...]] = (TUPLE_ITEM,)

    def match(self, graph: Graph, value: Expr) -> _Piece | None:
        split = graph.producer(value.tuple_value, "relax.split")
        concat = None if split is None else graph.producer(split.args[0], "relax.concat")
        if split is None or concat is None or not isinstance(concat.args[0], relax.Tuple):
            return None
        axis = int(split.attrs.axis)
        shapes = [shape_of(field) for field in concat.args[0].fields]
        outputs = [shape_of(relax.TupleGetItem(value.tuple_value, i)) for i in range(len(split.ty.fields))]
        if axis != int(concat.attrs.axis) or None in shapes or None in outputs:
            return None
        pieces, sizes = ([shape[axis] for shape in all_of] for all_of in (outputs, shapes))  # type: ignore[index]
        return _Piece(list(concat.args[0].fields), pieces, sizes, int(value.index))

    def check(self, graph: Graph, found: _Piece) -> str | None:
        return None if found.pieces == found.sizes else f"cut at {found.pieces}, joined at {found.sizes}"

    def rewrite(self, graph: Graph, found: _Piece) -> Expr:
        return found.fields[found.index]


cancel_pairs = rewriting_pass(
    "cancel_pairs",
    lambda: [Transposes(), Reshapes(), _Casts(), _Quantization(), _SplitThenConcat(), _ConcatThenSplit()],
)
