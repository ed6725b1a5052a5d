"""A layout for every value: channel blocks for what convolutions touch, borders of zeros for what they pad.

Kernels ask for layouts (`_wanted`); where producer and consumer disagree a "transform" kernel is inserted, once for
each value and layout. A value that a padded convolution reads is stored inside a border of zeros, written by nobody
but the executor, so that no kernel copies its input in order to pad it. Blocking through the whole graph: NeoCPU
(Liu et al., ATC 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from evo_tvm.graph import Graph, Group, Layout, Op, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.workload import FEW_CHANNELS, few_block

#: The same pixel of blocks that lie apart by a multiple of this falls into the same few sets of the first cache, which
#: then holds less of the depth than neighbouring tiles could share. With a stride they share half of each line.
_ALIAS_BYTES = 1024
_CONVOLUTIONS = ("conv2d", "conv2d_transpose", "depthwise_conv2d", "depthwise_pointwise")
#: They read each pixel several times: a vector of channels at a time, or they take longer than a transform before them.
POOLS = ("max_pool2d", "avg_pool2d")

#: Kernels that can write their result into a border or into a part of a larger value.
PLACEABLE = frozenset(EXPRESSIONS) | {
    *_CONVOLUTIONS,
    "max_pool2d",
    "avg_pool2d",
    "channel_shuffle",
    "channel_slice",
    "transform",
    "upsample",
    "concat",
    "select",
    "select_tiles",
}


def assign_layouts(graph: Graph, block: int) -> Graph:
    """Gives values their layouts and inserts the transforms; `block` channels a block."""
    return _Assigner(graph, block).run()


def copy_bordered_views(groups: Iterable[Group], values: Mapping[str, Value]) -> list[Group]:
    """Views of what has got a border become copies: its bytes are no longer those of the plain tensor."""
    return [
        replace(g, ops=(Op("transform", (0,)),))
        if g.anchor.kind == "view" and any(values[g.inputs[0]].layout.halo)
        else g
        for g in groups
    ]


def _plane_bytes(value: Value, halo: tuple[int, int, int, int]) -> int:
    """From one block of channels to the next."""
    _, _, height, width = value.shape
    pixels = (height + halo[0] + halo[2]) * (width + halo[1] + halo[3])
    return pixels * value.layout.block * np.dtype(value.dtype).itemsize


def _read_behind_anchor(group: Group, index: int) -> bool:
    """Whether the epilogue reads input `index` too, and so wants it in the layout of the result."""
    return any(index in op.args for op in group.ops[1:])


class _Assigner:
    def __init__(self, graph: Graph, block: int) -> None:
        self.graph, self.block = graph, block
        self.values = dict(graph.values)
        self.groups: list[Group] = []
        self._copies: dict[tuple[str, int, bool], str] = {}
        self._placeable: set[str] = set()

    def run(self) -> Graph:
        for group in self.graph.groups:
            self._add(group)
        outputs = tuple(self._in_layout(name, 1) for name in self.graph.outputs)
        self._spread_planes()
        groups = copy_bordered_views(self.groups, self.values)
        return replace(self.graph, outputs=outputs).with_groups(groups, **self.values)

    def _add(self, group: Group) -> None:
        wanted, result = self._wanted(group)
        inputs = tuple(
            name if want is None else self._in_layout(name, want)
            for name, want in zip(group.inputs, wanted, strict=True)
        )
        if group.anchor.kind in _CONVOLUTIONS:
            border = group.anchor.attrs.get("border", group.anchor.attrs["padding"])
            for kernel in group.tiled.kernels if group.tiled is not None else ():
                border = tuple(map(max, border, kernel.border))
            inputs = (self._with_halo(inputs[group.anchor.args[0]], border), *inputs[1:])
        for name in group.outputs:
            self.values[name] = replace(self.values[name], layout=Layout(result))
        if group.anchor.kind in PLACEABLE and result > 1:
            self._placeable.update(group.outputs)
        self.groups.append(replace(group, inputs=inputs))

    def _spread_planes(self) -> None:
        """One more row or column around images of bytes, read with a stride, whose channel blocks would lie apart by a
        multiple of `_ALIAS_BYTES`."""
        strided = (g for g in self.groups if g.anchor.kind in _CONVOLUTIONS and max(g.anchor.attrs["stride"]) > 1)
        read = {g.inputs[g.anchor.args[0]] for g in strided}
        for name in sorted(name for name in read & self._placeable if self.values[name].dtype == "uint8"):
            value = self.values[name]
            top, left, bottom, right = value.layout.halo
            halos = ((top, left, bottom + rows, right + columns) for rows, columns in ((0, 0), (1, 0), (0, 1), (1, 1)))
            spread = next((halo for halo in halos if _plane_bytes(value, halo) % _ALIAS_BYTES), None)
            if spread is not None:
                self.values[name] = replace(value, layout=replace(value.layout, halo=spread))

    def _wanted(self, group: Group) -> tuple[list[int | None], int]:
        """(block wanted of each input, None for a constant; block of the result)."""
        kind = group.anchor.kind
        values = [self.values[n] for n in group.inputs]
        if kind in ("decide", "dense", "layer_norm", "matmul", "permute", "softmax", "tir", "view"):
            return [None if v.data is not None else 1 for v in values], 1
        shape = self.values[group.output].shape
        result = self._result_block(group, values)
        wanted = [self._operand_block(v, shape, result) for v in values]
        anchor = group.anchor.args[0]
        blocks = group.anchor.attrs.get("blocks")
        if blocks is not None and kind in _CONVOLUTIONS:
            wanted[anchor] = blocks[0]
        elif kind in ("conv2d", "conv2d_transpose"):
            few = values[anchor].shape[1] <= FEW_CHANNELS and values[anchor].layout.block == 1
            block = few_block(values[anchor].dtype)
            wanted[anchor] = block if few and not _read_behind_anchor(group, anchor) else self.block
        elif kind in ("depthwise_conv2d", "depthwise_pointwise"):
            wanted[anchor] = self.block
        elif kind in (*POOLS, "channel_slice", "upsample"):
            wanted[anchor] = result
        elif kind == "global_avg_pool2d":
            wanted[anchor] = 1 if _read_behind_anchor(group, anchor) else values[anchor].layout.block
        elif kind == "concat":
            wanted = [result for _ in values]
        return wanted, result

    def _result_block(self, group: Group, values: list[Value]) -> int:
        kind, shape = group.anchor.kind, self.values[group.output].shape
        if kind in _CONVOLUTIONS:
            return int(group.anchor.attrs.get("blocks", (0, self.block))[1])
        if kind == "global_avg_pool2d" or len(shape) != 4:
            return 1
        if kind in (*POOLS, "channel_slice", "upsample"):
            block = values[group.anchor.args[0]].layout.block
            whole = kind in POOLS and block == 1 and shape[1] > FEW_CHANNELS
            return int(group.anchor.attrs.get("blocks", (0, self.block))[1]) if whole else block
        if kind == "concat":
            block = max(v.layout.block for v in values)
            return block if all(v.shape[1] % block == 0 for v in values) else 1
        return max((v.layout.block for v in values if v.shape == shape), default=1)

    def _operand_block(self, value: Value, shape: tuple[int, ...], result: int) -> int | None:
        """The block in which an elementwise stage of `shape` and block `result` reads this operand."""
        if value.data is not None:
            return None
        padded = (1,) * (4 - len(value.shape)) + value.shape
        return result if len(value.shape) == 4 and padded[1] == shape[1] and shape[1] > 1 else 1

    def _in_layout(self, name: str, block: int) -> str:
        """The name of `name`'s value with `block` channels a block; inserts the transform where it is new."""
        value = self.values[name]
        if value.layout.block == block:
            return name
        return self._copy(name, block, halo=False)

    def _copy(self, name: str, block: int, halo: bool) -> str:
        key = (name, block, halo)
        if key not in self._copies:
            value = self.values[name]
            copy = f"{name}@{'pad' if halo else block if block > 1 else 'plain'}"
            same_bytes = not halo and value.shape[2:] == (1, 1) and value.shape[1] % max(block, value.layout.block) == 0
            kind = "view" if same_bytes else "transform"
            self.values[copy] = replace(value, name=copy, layout=Layout(block))
            self.groups.append(Group(copy, (name,), (copy,), (Op(kind, (0,)),)))
            if kind == "transform":
                self._placeable.add(copy)
            self._copies[key] = copy
        return self._copies[key]

    def _with_halo(self, name: str, padding: tuple[int, int, int, int]) -> str:
        """The value with a border at least as wide as `padding` (top, left, bottom, right)."""
        if not any(padding):
            return name
        if name not in self._placeable:
            name = self._copy(name, self.values[name].layout.block, halo=True)
        value = self.values[name]
        a, b = value.layout.halo, padding
        halo = (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
        self.values[name] = replace(value, layout=replace(value.layout, halo=halo))
        return name
