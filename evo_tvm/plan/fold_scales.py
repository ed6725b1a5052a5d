"""quantize(x, s) => quantize(x * (1 / s), 1), and the factor goes into a constant that x is made with.

conv2d -> rescale by a -> hard-swish -> quantize by s then has neither a division nor one more multiplication. It may
round to the other side where x / s lies half way between two integers: for plans that need not give the bytes of other
engines.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS

#: f(x, ...) * a == f(x * a, ...) for a > 0; of a clip its bounds go along.
_FIRST = frozenset(("clip", "leaky_relu", "negative", "prelu", "relu"))
#: f(x, y) * a == f(x * a, y * a).
_ALL = frozenset(("add", "maximum", "minimum", "subtract"))


def fold_scales(graph: Graph) -> Graph:
    """To be called while all operators are apart."""
    values, groups = dict(graph.values), list[Group]()
    for group in graph.groups:
        if group.is_only("quantize") and group.anchor.attrs["scale"] != 1:
            folder = _Folder(graph, group, values)
            groups += folder.made
            group = folder.quantize
        groups.append(group)
    return graph.with_groups(groups, **values).without_unread(EXPRESSIONS.keys())


class _Folder:
    """Of one quantization: `quantize` is what it becomes, `made` are the groups that this needs before it."""

    def __init__(self, graph: Graph, quantize: Group, values: dict[str, Value]) -> None:
        self._graph, self._values, self._output = graph, values, quantize.output
        self._producers, self._consumers = graph.producers(), graph.consumers()
        attrs = quantize.anchor.attrs
        self._factor = 1 / np.float64(attrs["scale"])
        self.made: list[Group] = []
        (name,) = quantize.inputs
        scaled = self._absorb(name) if self._absorbs(name) else self._multiplied(name, quantize.name)
        self.quantize = replace(quantize, inputs=(scaled,), ops=(Op("quantize", (0,), {**attrs, "scale": 1.0}),))

    def _multiplied(self, name: str, layer: str) -> str:
        factor = np.asarray(self._factor, np.float32)
        self._values[f"{self._output}@factor"] = Value(f"{self._output}@factor", (), "float32", factor)
        return self._add(name, layer, (name, f"{self._output}@factor"), Op("multiply", (0, 1)))

    def _absorbs(self, name: str) -> bool:
        """Whether the value can be had multiplied at no cost."""
        if self._graph.values[name].data is not None:
            return True
        group = self._producers.get(name)
        if group is None or len(group.ops) != 1:
            return False
        kind = group.anchor.kind
        if kind == "dequantize":
            return True
        if len(self._consumers[name]) > 1 or name in self._graph.outputs:
            return False
        operands = _operands(group)
        if kind in _FIRST:
            return self._absorbs(operands[0])
        if kind in _ALL:
            return all(map(self._absorbs, operands))
        return kind == "rescale" or (kind == "multiply" and any(map(self._absorbs, operands)))

    def _absorb(self, name: str) -> str:
        """The name of the value, multiplied."""
        value, twin = self._graph.values[name], f"{name}@{self._output}"
        if twin in self._values:
            return twin
        if value.data is not None:
            data = (value.data.astype(np.float64) * self._factor).astype(np.float32)
            self._values[twin] = replace(value, name=twin, data=data, codes=None)
            return twin
        group = self._producers[name]
        kind, attrs, operands = group.anchor.kind, dict(group.anchor.attrs), _operands(group)
        if kind == "dequantize":
            attrs["scale"] = float(attrs["scale"] * self._factor)
        elif kind == "rescale":
            operands[1] = self._absorb(operands[1])
        elif kind == "multiply":
            ready = [i for i, operand in enumerate(operands) if self._absorbs(operand)]
            least = min(ready, key=lambda i: (self._graph.values[operands[i]].data is None, self._size(operands[i])))
            operands[least] = self._absorb(operands[least])
        else:
            operands[: 1 if kind in _FIRST else None] = [
                self._absorb(operand) for operand in operands[: 1 if kind in _FIRST else None]
            ]
            if kind == "clip":
                attrs |= {bound: float(attrs[bound] * self._factor) for bound in ("min", "max")}
        return self._add(name, group.name, tuple(operands), Op(kind, tuple(range(len(operands))), attrs))

    def _size(self, name: str) -> int:
        return self._graph.values[name].size

    def _add(self, name: str, layer: str, inputs: tuple[str, ...], op: Op) -> str:
        """A group that gives the multiplied twin of `name`."""
        twin = f"{name}@{self._output}"
        self._values[twin] = replace(self._graph.values[name], name=twin)
        self.made.append(Group(layer, inputs, (twin,), (op,)))
        return twin


def _operands(group: Group) -> list[str]:
    return [group.inputs[a] for a in group.anchor.args]
