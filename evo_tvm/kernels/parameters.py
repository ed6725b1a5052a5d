"""What a kernel takes: parameters, declared one by one while a group of the kernel graph is written in TE."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from tvm import te

from evo_tvm.graph import Graph, Group, Op
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.signed_bytes import lacking
from evo_tvm.plan.storage import Placement, View


@dataclass(frozen=True)
class Parameter:
    """One pointer that a kernel takes: a constant in a packing, or a view of a value.

    data: elements that are no value of the graph, such as a table of places; the kernel takes them as they are.
    """

    name: str
    view: View | None = None
    packing: Packing | None = None
    data: np.ndarray | None = field(default=None, compare=False)


class Parameters:
    """The parameters of a group, in the order in which they are declared.

    values: the group's inputs; out: its output; lanes: float32 lanes of the target's vectors; signed_bytes: it
    multiplies signed bytes only.
    """

    def __init__(
        self, graph: Graph, placement: Placement, group: Group, lanes: int, signed_bytes: bool = False
    ) -> None:
        self.graph, self.placement, self.group, self.lanes = graph, placement, group, lanes
        self.signed_bytes = signed_bytes
        self._lacking: np.ndarray | None = None
        self._changed: dict[int, np.ndarray] = {}
        self.values = [graph.values[n] for n in group.inputs]
        self.out = graph.values[group.output]
        self.parameters: list[Parameter] = []
        self.tensors: list[te.Tensor] = []

    @property
    def image(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        _, _, height, width = self.out.shape
        return height, width

    def _placeholder(self, parameter: Parameter, shape: tuple[int, ...]) -> te.Tensor:
        dtype = self.graph.values[parameter.name].dtype if parameter.data is None else str(parameter.data.dtype)
        dtype = dtype if parameter.packing is None else parameter.packing.dtype(dtype)
        tensor = te.placeholder(shape, name=f"p{len(self.parameters)}", dtype=dtype)
        self.parameters.append(parameter)
        self.tensors.append(tensor)
        return tensor

    def constant(self, index: int, packing: Packing) -> te.Tensor:
        """Input `index`, whose elements are known, as `packing` lays them out."""
        if index in self._changed:
            return self.table(packing.apply(self._changed[index]))
        return self._placeholder(Parameter(self.values[index].name, packing=packing), packing.shape)

    def table(self, data: np.ndarray) -> te.Tensor:
        """A constant that the algorithm makes; the same array in several kernels is stored once."""
        return self._placeholder(Parameter("table", data=data), data.shape)

    def centre(self, op: Op) -> bool:
        """Whether the bytes that `op` multiplies are to be taken as signed ones, 128 less. If so, what its sums then
        lack is added behind them."""
        data, weight = (self.values[a] for a in op.args[:2])
        if not self.signed_bytes or data.dtype != "uint8":
            return False
        assert weight.data is not None, "weights of bytes are known"
        self._lacking = lacking(weight.data, 1 if op.kind == "dense" else 0)
        return True

    def data(self, index: int, padding: tuple[int, int, int, int] = (0, 0, 0, 0)) -> te.Tensor:
        """A rank-4 value as (N, C/b, H, W, b), `padding` of its border included."""
        value = self.values[index]
        view = self.placement.view(value.name, (*value.shape, 1), padding)
        return self._placeholder(Parameter(value.name, view), view.shape)

    def matrix(self, index: int, shape: tuple[int, int]) -> te.Tensor:
        """A value without border as a matrix."""
        name = self.values[index].name
        return self._placeholder(Parameter(name, self.placement.view(name, shape)), shape)

    def strided(self, index: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> te.Tensor:
        """A value without border as `shape`, whose elements lie `strides` apart; a constant is compact."""
        value = self.values[index]
        if value.data is not None:
            return self.constant(index, Packing("plain", shape))
        view = replace(self.placement.view(value.name), shape=shape, strides=strides)
        return self._placeholder(Parameter(value.name, view), shape)

    def _whole(self, index: int) -> te.Tensor:
        """A value in its logical shape."""
        value = self.values[index]
        if value.data is not None:
            return self.constant(index, Packing("plain", value.shape or (1,)))
        view = self.placement.view(value.name, value.shape or (1,))
        return self._placeholder(Parameter(value.name, view), view.shape)

    def _seen(self, index: int, shape: tuple[int, ...]) -> te.Tensor:
        """A value without border as `shape`."""
        value = self.values[index]
        if value.data is not None:
            return self.constant(index, Packing("plain", shape))
        return self._placeholder(Parameter(value.name, self.placement.view(value.name, shape)), shape)
