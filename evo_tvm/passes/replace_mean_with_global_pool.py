"""mean(x, axis=[2, 3]) => adaptive_avg_pool2d(x, (1, 1)); avg_pool2d(x) over all of x => the same.

A reshape follows where the mean drops the axes. Means over width and then height count as one over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass
from evo_tvm.passes._values import dtype_of, is_float, shape_of


@dataclass(frozen=True)
class _Found:
    data: Expr
    result: tuple[int, ...]


def _pooled(graph: Graph, found: _Found) -> Expr:
    shape = shape_of(found.data)
    assert shape is not None
    pool = relax.op.nn.adaptive_avg_pool2d(found.data, (1, 1))
    return pool if found.result == (*shape[:2], 1, 1) else relax.op.reshape(graph.emit(pool), found.result)


class _Mean(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.mean",)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        data, axes = value.args[0], _axes(value)
        inner = graph.producer(data, "relax.mean")
        if inner is not None and inner.attrs.keepdims and value.attrs.keepdims:
            data, axes = inner.args[0], axes | _axes(inner)
        shape, result = shape_of(data), shape_of(value)
        if shape is None or result is None or len(shape) != 4 or axes != {2, 3}:
            return None
        return _Found(data, result) if is_float(dtype_of(value)) else None

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        return _pooled(graph, found)


def _axes(call: Call) -> set[int]:
    rank = int(call.args[0].ty.ndim)
    return set(range(rank)) if call.attrs.axis is None else {int(axis) % rank for axis in call.attrs.axis}


class _WholePool(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.nn.avg_pool2d",)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        shape, result, attrs = shape_of(value.args[0]), shape_of(value), value.attrs
        if shape is None or result is None or attrs.layout != "NCHW" or any(int(p) for p in attrs.padding):
            return None
        whole = [int(size) for size in attrs.pool_size] == list(shape[2:]) and result[2:] == (1, 1)
        return _Found(value.args[0], result) if whole and all(int(d) == 1 for d in attrs.dilation) else None

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        return _pooled(graph, found)


replace_mean_with_global_pool = rewriting_pass("replace_mean_with_global_pool", lambda: [_Mean(), _WholePool()])
