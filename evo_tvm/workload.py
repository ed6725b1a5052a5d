"""One fused kernel as data: the key under which it is measured, logged, predicted and decided."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evo_tvm.graph import Graph, Group, Op

#: Static attributes of an anchor that decide what it computes; the rest (algorithm, config, border) is how.
_ATTRIBUTES = (
    *("blocks", "stride", "padding", "dilation", "groups", "pool_size", "count_include_pad", "output_padding"),
    *("left_shape", "left_strides", "right_shape", "right_strides", "output_strides"),
)

#: Attributes that count where there is no choice of algorithms; all numbers, and none of them of the arithmetic.
_OF_FIXED = ("axes", "begin")
#: Operators that have algorithms to choose from (`evo_tvm.algorithms`); kernels of all others are always made alike.
CHOICES = frozenset(
    (
        "avg_pool2d",
        "conv2d",
        "conv2d_transpose",
        "dense",
        "depthwise_conv2d",
        "depthwise_pointwise",
        "matmul",
        "max_pool2d",
    )
)

#: A convolution over at most this many channels reads them unblocked: blocks would be mostly idle lanes.
FEW_CHANNELS = 4


def few_block(dtype: str) -> int:
    """The block of at most `FEW_CHANNELS` channels: bytes lie in fours, as dot product instructions take them."""
    return 4 if dtype == "uint8" else 1


#: A workload, its epilogue, and what is between its convolutions.
Fused = tuple["Workload", tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Workload:
    """What a kernel computes, apart from how.

    operator: the anchor's kind ("conv2d", ...). shapes: logical shapes of the anchor's operands (N, C, H, W and O, I,
    KH, KW for a convolution), of all that the kernel reads where there is no choice of algorithms; output: of its
    result. attrs: its static attributes, sorted. epilogue: the elementwise operators fused behind it, between: those
    between the two convolutions of a depthwise_pointwise; both are features beside the key, not part of it.
    """

    operator: str
    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    attrs: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dtype: str = "float32"
    epilogue: tuple[str, ...] = field(default=(), compare=False)
    between: tuple[str, ...] = field(default=(), compare=False)

    @property
    def kernel(self) -> Fused:
        """What tells kernels apart: the workload, and all that is fused with it."""
        return self, self.epilogue, self.between

    @property
    def attributes(self) -> Mapping[str, tuple[int, ...]]:
        """`attrs` by name; single numbers are tuples of one."""
        return dict(self.attrs)

    @property
    def key(self) -> str:
        """The workload in one line, as tuning logs spell it."""
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        attrs = " ".join(f"{name}={','.join(map(str, value))}" for name, value in self.attrs)
        return " ".join(part for part in (self.operator, shapes, attrs, self.dtype) if part)

    @staticmethod
    def from_key(
        key: str, output: Sequence[int], epilogue: Sequence[str] = (), between: Sequence[str] = ()
    ) -> Workload:
        """The workload that `key` spells. Raises ValueError: it spells none."""
        operator, *parts, dtype = key.split(" ")
        shapes = [part for part in parts if "=" not in part]
        attrs = [part.split("=") for part in parts if "=" in part]
        return Workload(
            operator,
            tuple(tuple(map(int, shape.split("x"))) if shape else () for shape in shapes),
            tuple(map(int, output)),
            tuple((name, tuple(map(int, value.split(",")))) for name, value in attrs),
            dtype,
            tuple(map(str, epilogue)),
            tuple(map(str, between)),
        )


def workload_of(graph: Graph, group: Group) -> Workload:
    """The workload of a group of the graph."""
    anchor = group.anchor
    fixed = anchor.kind not in CHOICES
    operands = [graph.values[group.inputs[a]] for a in anchor.args if a < len(group.inputs)]
    if fixed:
        operands = [graph.values[name] for name in group.inputs]
    output = graph.values[group.output]
    names = (*_ATTRIBUTES, *(_OF_FIXED if fixed else ()))
    attrs = {name: _ints(anchor.attrs[name]) for name in names if name in anchor.attrs}
    if anchor.kind == "transform":
        attrs["blocks"] = (operands[0].layout.block, output.layout.block)
    if anchor.kind == "tir":  # tells functions of the same shapes apart
        attrs["function"] = (zlib.crc32(str(anchor.attrs["func"]).encode()),)
    return Workload(
        anchor.kind,
        tuple(value.shape for value in operands),
        output.shape,
        tuple(sorted(attrs.items())),
        operands[0].dtype if operands else output.dtype,
        tuple(op.kind for op in group.ops[1:]),
        tuple(kind for kind, _, _ in anchor.attrs.get("between", ())),
    )


def _ints(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple | list) else (int(value),)


def blocks_of(workload: Workload, lanes: int) -> tuple[int, int]:
    """Channels in a block of a convolution's input and of its output: what its layouts were chosen to be, else whole
    vectors of `lanes`."""
    few = workload.shapes[0][1] <= FEW_CHANNELS
    read, written = workload.attributes.get("blocks", (few_block(workload.dtype) if few else lanes, lanes))
    return read, written


def anchor_of(workload: Workload) -> Op:
    """An operator that computes the workload: what `workload_of` read, backwards."""
    single = ("groups", "count_include_pad")
    attrs = {name: value[0] if name in single else value for name, value in workload.attrs}
    return Op(workload.operator, tuple(range(len(workload.shapes))), attrs)
