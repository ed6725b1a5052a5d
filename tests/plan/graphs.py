"""Small kernel graphs, written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.schedules.spatial_pack import Config


class Draft:
    """Collects values and groups; `graph` gives the kernel graph."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.groups: list[Group] = []
        self.inputs: list[str] = []

    def input(self, name: str, *shape: int) -> str:
        self.values[name] = Value(name, shape, "float32")
        self.inputs.append(name)
        return name

    def constant(self, name: str, *shape: int) -> str:
        data = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
        self.values[name] = Value(name, shape, "float32", data)
        return name

    def op(self, kind: str, name: str, inputs: Sequence[str], shape: Sequence[int], **attrs: Any) -> str:
        """A group of one operator."""
        self.values[name] = Value(name, tuple(shape), "float32")
        self.groups.append(Group(name, tuple(inputs), (name,), (Op(kind, tuple(range(len(inputs))), attrs),)))
        return name

    def conv(self, name: str, data: str, channels: int, kernel: int = 3, padding: int = 1, **attrs: Any) -> str:
        """A convolution, computed directly, of stride 1 or as `attrs` say."""
        n, ic, h, w = self.values[data].shape
        weight = self.constant(f"{name}.w", channels, ic, kernel, kernel)
        around: dict[str, Any] = {
            "stride": (1, 1),
            "padding": (padding,) * 4,
            "dilation": (1, 1),
            "groups": 1,
            "algorithm": "spatial_pack",
            "config": Config(1, 1, 1),
            "border": (padding,) * 4,
        }
        size = (e + 2 * padding - kernel + 1 for e in (h, w))
        return self.op("conv2d", name, [data, weight], (n, channels, *size), **{**around, **attrs})

    def same(self, kind: str, name: str, *inputs: str, **attrs: Any) -> str:
        """An operator whose result has the shape of its first input."""
        return self.op(kind, name, inputs, self.values[inputs[0]].shape, **attrs)

    def graph(self, *outputs: str) -> Graph:
        return Graph(self.values, tuple(self.groups), tuple(self.inputs), outputs)


def kinds(graph: Graph) -> list[str]:
    """Each group as "conv2d+relu"."""
    return ["+".join(op.kind for op in group.ops) for group in graph.groups]
