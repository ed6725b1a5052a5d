"""slice(f(x)) => f(slice(x)); take(x, 3, axis) => reshape(slice(x)); two equal slices of a value => one.

A slice of at most half goes up past whatever works on each row for itself (elementwise operators, normalization of
other axes, matrix products, reshapes, transposes), which then works on fewer rows: behind the last block of a vision
transformer one token is read, and that block's MLP and queries are needed for one token only. Several slices of one
value go up together, as do the parts of a split: queries, keys and values become products of their own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._elementwise import BINARY, IMAGE_KERNELS, UNARY, operand_and_constant, rebuilt, single
from evo_tvm.passes._rewrite import TUPLE_ITEM, Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import Array, array_of, constant, same_type, shape_of
from evo_tvm.passes.cancel_pairs import Reshapes, transpose_axes

_SLICE = "relax.strided_slice"

#: (begin, end, stride), all at least zero, of each sliced axis.
_Ranges: TypeAlias = Mapping[int, tuple[int, int, int]]


def _ranges(call: Call) -> _Ranges | None:
    """What a slice that runs forwards takes of its operand."""
    shape = shape_of(call.args[0])
    if shape is None or shape_of(call) is None:
        return None
    axes, begins, ends = ([int(value) for value in arg] for arg in call.args[1:4])
    strides = [int(value) for value in call.args[4]] if len(call.args) > 4 else [1] * len(axes)
    if min(strides, default=1) < 1:
        return None
    taken = zip(axes, begins, ends, strides, strict=True)
    return {a % len(shape): slice(b, e, s).indices(shape[a]) for a, b, e, s in taken}


def _sliced(graph: Graph, data: Expr, ranges: _Ranges) -> Expr:
    """A slice of a tensor, bound; of a constant, computed."""
    array = array_of(data)
    if array is not None:
        return constant(_sliced_array(array, ranges))
    return graph.emit(_slice(data, ranges), str(data.name))


def _slice(data: Expr, ranges: _Ranges) -> Call:
    columns = zip(*ranges.values(), strict=True)
    return relax.op.strided_slice(data, list(ranges), *(list(column) for column in columns))


def _sliced_array(array: Array, ranges: _Ranges) -> Array:
    """The part of a constant that broadcasts against a slice."""
    index = [slice(None)] * array.ndim
    for axis, (begin, end, stride) in ranges.items():
        index[axis] = slice(None) if array.shape[axis] == 1 else slice(begin, end, stride)
    return array[tuple(index)]


@dataclass(frozen=True)
class _Part:
    data: Expr
    ranges: _Ranges


@dataclass(frozen=True)
class _Take:
    call: Call
    axis: int
    first: int
    count: int


class _TakeToSlice(Rule[_Take]):
    """Neighbouring elements along an axis, at constant places."""

    roots: ClassVar[tuple[str, ...]] = ("relax.take",)

    def match(self, graph: Graph, value: Expr) -> _Take | None:
        shape, places = shape_of(value.args[0]), array_of(value.args[1])
        if shape is None or places is None or value.attrs.axis is None or places.ndim > 1 or not places.size:
            return None
        axis = int(value.attrs.axis) % len(shape)
        first = int(places.reshape(-1)[0])
        first += shape[axis] if first < 0 else 0
        in_row = (places.reshape(-1) % shape[axis] == np.arange(first, first + places.size)).all()
        return _Take(value, axis, first, places.size) if in_row and first + places.size <= shape[axis] else None

    def rewrite(self, graph: Graph, found: _Take) -> Expr:
        part = _sliced(graph, found.call.args[0], {found.axis: (found.first, found.first + found.count, 1)})
        return part if same_type(part, found.call) else relax.op.reshape(part, shape_of(found.call))


class _SameSlice(Rule[relax.Var]):
    """Remembers the slices of the walk so far."""

    roots: ClassVar[tuple[str, ...]] = (_SLICE,)

    def start(self) -> None:
        self._seen: dict[Hashable, relax.Var] = {}
        self._kept: list[Call] = []  # keys hold addresses: what they point at must stay alive

    def match(self, graph: Graph, value: Expr) -> relax.Var | None:
        ranges = _ranges(value)
        if ranges is None:
            return None
        key = (graph.block, hash(value.args[0]), tuple(sorted(ranges.items())))
        first = self._seen.setdefault(key, graph.root)
        self._kept.append(value)
        return None if first is graph.root else first

    def rewrite(self, graph: Graph, found: relax.Var) -> Expr:
        return found


class _SplitToSlices(Rule[_Part]):
    """Where the slices can go further up than the split."""

    roots: ClassVar[tuple[str, ...]] = (TUPLE_ITEM,)

    def match(self, graph: Graph, value: Expr) -> _Part | None:
        split = graph.producer(value.tuple_value, "relax.split")
        if split is None or shape_of(split.args[0]) is None:
            return None
        axis = int(split.attrs.axis) % int(split.args[0].ty.ndim)
        sizes = [int(field.shape[axis]) for field in split.ty.fields]
        begin = sum(sizes[: value.index])
        ranges = {axis: (begin, begin + sizes[value.index], 1)}
        call = single(graph, split.args[0])
        if call is None or len(sizes) < 2 or _operands(call, ranges) is None:
            return None
        return None if _ends_in_kernel(graph, split.args[0], ranges) else _Part(split.args[0], ranges)

    def rewrite(self, graph: Graph, found: _Part) -> Expr:
        return _slice(found.data, found.ranges)


@dataclass(frozen=True)
class _Move:
    call: Call  # what the slice goes past
    ranges: _Ranges
    result: tuple[int, ...]
    parts_kernel: bool


class _Above(Rule[_Move]):
    """A value that only slices read is computed slice by slice, where these are no more than the whole."""

    roots: ClassVar[tuple[str, ...]] = (_SLICE,)

    def match(self, graph: Graph, value: Expr) -> _Move | None:
        data = value.args[0]
        ranges, call, result, whole = _ranges(value), graph.producer(data), shape_of(value), shape_of(data)
        if ranges is None or call is None or result is None or whole is None or _operands(call, ranges) is None:
            return None
        if 2 * math.prod(result) > math.prod(whole) or not (graph.only_use(data) or _only_sliced(graph, data)):
            return None
        return _Move(call, ranges, result, _ends_in_kernel(graph, data, ranges))

    def check(self, graph: Graph, found: _Move) -> str | None:
        return "it would part an operator from the kernel that it is fused into" if found.parts_kernel else None

    def rewrite(self, graph: Graph, found: _Move) -> Expr:
        operands = _operands(found.call, found.ranges)
        assert operands is not None
        args = [_sliced(graph, data, ranges) if ranges else data for data, ranges in operands]
        if operator_name(found.call) == "relax.reshape":
            return relax.op.reshape(args[0], found.result)
        return rebuilt(found.call, args)


def _only_sliced(graph: Graph, data: Expr) -> bool:
    """Whether slices alone read a value, together no more of it than there is."""
    readers, whole = graph.readers(data), shape_of(data)
    if not readers or whole is None or any(operator_name(reader) != _SLICE for reader in readers):
        return False
    return sum(math.prod(shape_of(reader) or whole) for reader in readers) <= math.prod(whole)


def _ends_in_kernel(graph: Graph, expr: Expr, ranges: _Ranges) -> bool:
    """Whether elementwise operators above `expr` end in a kernel that the slice cannot go past."""
    call = graph.producer(expr)
    if call is None or operator_name(call) in (*IMAGE_KERNELS, "relax.matmul"):
        return call is not None and _operands(call, ranges) is None
    return operator_name(call) in (*UNARY, *BINARY) and any(
        shape_of(arg) == shape_of(call) and _ends_in_kernel(graph, arg, ranges) for arg in call.args
    )


def _operands(call: Call, ranges: _Ranges) -> list[tuple[Expr, _Ranges]] | None:
    """The first operands of `call`, and what of each gives `ranges` of the result; None where it needs more."""
    name, shape = operator_name(call), shape_of(call)
    data = call.args[0] if call.args else None
    if shape is None or data is None or isinstance(data, GenericConst):
        return None
    found = operand_and_constant(call)
    if found is not None:
        return [(data, ranges)] if found[1] is None else [(data, ranges), (constant(found[1]), ranges)]
    if name in BINARY and same_type(*call.args) and not isinstance(call.args[1], GenericConst):
        return [(arg, ranges) for arg in call.args]
    if name in ("relax.nn.softmax", "relax.nn.layer_norm"):
        axes = [call.attrs.axis] if name == "relax.nn.softmax" else call.attrs.axes
        return None if any(int(axis) % len(shape) in ranges for axis in axes) else [(data, ranges)]
    if name == "relax.matmul":
        return _factors(call, len(shape), ranges)
    if name == "relax.permute_dims":
        axes = transpose_axes(call)
        return [(data, {axes[axis]: taken for axis, taken in ranges.items()})]
    return _reshaped(data, shape, ranges) if name == "relax.reshape" else None


def _factors(call: Call, rank: int, ranges: _Ranges) -> list[tuple[Expr, _Ranges]] | None:
    """Rows of the left factor, and columns of the right one where it is a constant matrix."""
    data, weight = call.args
    if int(data.ty.ndim) != rank:
        return None
    rows = {axis: taken for axis, taken in ranges.items() if axis < rank - 1}
    columns = {} if rank - 1 not in ranges else {1: ranges[rank - 1]}
    if int(weight.ty.ndim) > 2 and any(axis < rank - 2 for axis in rows):
        return None
    if columns and not (isinstance(weight, GenericConst) and int(weight.ty.ndim) == 2):
        return None
    return [(data, rows), (weight, columns)]


def _reshaped(data: Expr, shape: tuple[int, ...], ranges: _Ranges) -> list[tuple[Expr, _Ranges]] | None:
    """Slices of axes that the reshape leaves as they are, or that are the outermost of those that it makes of one."""
    inner = shape_of(data)
    if inner is None:
        return None
    places = {math.prod(inner[:axis]): axis for axis in range(len(inner)) if inner[axis] > 1}
    moved: dict[int, tuple[int, int, int]] = {}
    for axis, (begin, end, stride) in ranges.items():
        place = places.get(math.prod(shape[:axis]))
        if place is None or place in moved or inner[place] % shape[axis]:
            return None
        each = inner[place] // shape[axis]
        if each > 1 and (stride != 1 or not _is_product_of_next(each, shape[axis + 1 :])):
            return None
        moved[place] = (begin * each, end * each, stride)
    return [(data, moved)]


def _is_product_of_next(size: int, sizes: tuple[int, ...]) -> bool:
    return any(math.prod(sizes[:count]) == size for count in range(1, len(sizes) + 1))


move_slices = rewriting_pass(
    "move_slices", lambda: [_TakeToSlice(), _SameSlice(), _SplitToSlices(), _Above(), Reshapes()]
)
