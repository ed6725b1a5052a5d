"""The kernel graph: what a Relax module becomes once every operator is a kernel, or part of one.

A `Group` is one kernel: at most one anchor (convolution, pooling, a TIR function, ...) and the elementwise operators
fused behind it. Values keep their logical NCHW shape throughout; how one lies in memory is its `Layout`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """How a rank-4 value lies in memory: (N, ceil(C/block), H, W, block), inside a border of zeros.

    `block` 1 is plain NCHW. `halo` is the border's rows above, columns to the left, rows below, columns to the right:
    what the widest padded consumer reads, so that no kernel copies its input to pad it. Zero is the real number: of a
    quantized value, `Value.zero`.
    """

    block: int = 1
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __str__(self) -> str:
        name = f"NCHW{self.block}c" if self.block > 1 else "plain"
        return name + (f"+{','.join(map(str, self.halo))}" if any(self.halo) else "")


PLAIN = Layout()


@dataclass(frozen=True)
class Codes:
    """A constant in integers: it is (codes - zero_point) * scale.

    scale, zero_point: one element, or one for each index of `axis`.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def real(constant: Codes) -> np.ndarray:
    """The float32 numbers that the integers stand for."""
    shape = [1] * constant.codes.ndim
    if constant.scale.size > 1:
        shape[constant.axis] = -1
    difference = constant.codes.astype(np.int32) - constant.zero_point.astype(np.int32).reshape(shape)
    numbers: np.ndarray = difference.astype(np.float32) * constant.scale.reshape(shape)
    return numbers.astype(np.float32)


def transposed(constant: Codes, order: tuple[int, ...]) -> Codes:
    """The constant with its axes in another order."""
    return replace(constant, codes=constant.codes.transpose(order), axis=order.index(constant.axis))


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. `data` holds a constant's elements; `layout` is filled in by the layout pass.

    codes: of a constant that the model has in integers. zero: what stands for the real number 0, of integers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = field(default=None, compare=False)
    layout: Layout = PLAIN
    codes: Codes | None = field(default=None, compare=False)
    zero: int = 0

    @property
    def size(self) -> int:
        """Number of logical elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Op:
    """One operator in a group. `args` number the group's inputs first, then the results of the operators before it.

    `attrs` are the operator's static attributes; a "tir" operator has its PrimFunc under "func".
    """

    kind: str
    args: tuple[int, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Guard:
    """A condition: the gate whose decision is the value `decision` is on, or off."""

    decision: str
    on: bool


@dataclass(frozen=True)
class TileKernel:
    """How `down` by `across` tiles are computed at once: the algorithm's configuration, and the border it reads."""

    down: int
    across: int
    config: Any
    border: tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiled:
    """That only some tiles are computed, where the gate whose decisions are the value `decisions` is on.

    side: of a tile of what is gated in the end, in pixels; margin: pixels around a tile that are computed, too;
    kernels: for rectangles of tiles, those of most tiles first.
    """

    decisions: str
    side: int
    margin: int
    kernels: tuple[TileKernel, ...] = ()


@dataclass(frozen=True)
class Group:
    """One kernel: operators `ops` over the values `inputs`; the last operator's result is `outputs`.

    guards: it runs only where all of these hold. tiled: it computes parts of its result only.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    guards: tuple[Guard, ...] = ()
    tiled: Tiled | None = None

    @property
    def anchor(self) -> Op:
        """The operator that decides algorithm and schedule: the first."""
        return self.ops[0]

    @property
    def output(self) -> str:
        """The one output of a group that is not a TIR function."""
        return self.outputs[0]

    def is_only(self, kind: str) -> bool:
        """Whether it is one operator, of this kind."""
        return len(self.ops) == 1 and self.anchor.kind == kind


@dataclass(frozen=True)
class Part:
    """A value that lies inside a larger one: its channels begin at `channel` of `whole`'s."""

    whole: str
    channel: int


@dataclass(frozen=True)
class Graph:
    """Groups in an order in which they can run, and all values by name.

    `parts` are the values that a concatenation takes where they were written, without a copy.
    """

    values: Mapping[str, Value]
    groups: tuple[Group, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)

    def consumers(self) -> dict[str, list[Group]]:
        """The groups that read each value, in order; a group that reads it twice stands there twice."""
        readers: dict[str, list[Group]] = {name: [] for name in self.values}
        for group in self.groups:
            for name in group.inputs:
                readers[name].append(group)
        return readers

    def producers(self) -> dict[str, Group]:
        """The group that writes each value."""
        return {name: group for group in self.groups for name in group.outputs}

    def without_unread(self, kinds: Set[str]) -> Graph:
        """This graph without the groups of these kinds that nothing reads, and what nothing reads then."""
        groups, read = list[Group](), set(self.outputs)
        for group in reversed(self.groups):
            if group.anchor.kind not in kinds or read.intersection(group.outputs):
                groups.append(group)
                read.update(group.inputs)
        return self.with_groups(groups[::-1])

    def with_groups(self, groups: Iterator[Group] | list[Group] | tuple[Group, ...], **values: Value) -> Graph:
        """This graph with other groups and more (or changed) values; values nobody names any more are dropped."""
        groups = tuple(groups)
        used = {*self.inputs, *self.outputs, *(n for g in groups for n in (*g.inputs, *g.outputs))}
        return replace(self, groups=groups, values={n: v for n, v in {**self.values, **values}.items() if n in used})
