"""What a rewrite of an ONNX node builds its replacement with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir


class CannotRewrite(Exception):
    """A node that a rewrite does not handle; the text says why."""


class Builder:
    """Collects the nodes that replace one node; all of them bear its name, so that errors and profiles lead to it."""

    def __init__(self, node: ir.Node, opset: int) -> None:
        self.node, self.opset = node, opset
        self.nodes: list[ir.Node] = []

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Return the only output of a new ONNX node."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: ir.Value | None, outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """Return the outputs of a new ONNX node that has several."""
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs, name=self.node.name)
        self.nodes.append(node)
        return node.outputs

    def const(self, value: Any, dtype: Any = None) -> ir.Value:
        """Return a constant; `dtype` is numpy's or onnx_ir's, by default that of `value`."""
        tensor = ir.tensor(np.asarray(value, dtype=dtype.numpy() if isinstance(dtype, ir.DataType) else dtype))
        output = self.op("Constant", value=tensor)
        output.const_value, output.dtype, output.shape = tensor, tensor.dtype, ir.Shape(tensor.numpy().shape)
        return output

    def inline(self, graph: ir.Graph, arguments: Sequence[ir.Value]) -> list[ir.Value]:
        """Return the outputs of a copy of `graph`, the body of a node, fed with `arguments`."""
        copy = graph.clone(allow_outer_scope_values=True)
        outputs = list(copy.outputs)
        copy.outputs.clear()
        replaced = dict(zip(copy.inputs, arguments, strict=True))
        for value in list(copy.initializers.values()):
            replaced[value] = self.const(value.const_value.numpy() if value.const_value is not None else None)
        for formal, actual in replaced.items():
            ir.convenience.replace_all_uses_with(formal, actual)
        nodes = list(copy)
        copy.remove(nodes)
        self.nodes += nodes
        return [replaced.get(value, value) for value in outputs]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return `value` as `dtype`."""
        return value if value.dtype == dtype else self.op("Cast", value, to=int(dtype))

    def shape_op(self, op_type: str, value: ir.Value, numbers: Sequence[int]) -> ir.Value:
        """Return Reshape, Expand, Tile, Squeeze or Unsqueeze of `value` by constant `numbers`.

        Squeeze and Unsqueeze took their axes as an attribute before operator set 13.
        """
        if op_type in ("Squeeze", "Unsqueeze") and self.opset < 13:
            return self.op(op_type, value, axes=list(numbers))
        return self.op(op_type, value, self.const(list(numbers), np.int64))

    def slice(self, value: ir.Value, axis: int, start: int, stop: int, step: int = 1) -> ir.Value:
        """Return `value[start:stop:step]` along `axis`; `stop` may be beyond either end."""
        if self.opset < 10:
            raise CannotRewrite(f"operator set {self.opset} has no Slice with computed bounds")
        bounds = (self.const([number], np.int64) for number in (start, stop, axis, step))
        return self.op("Slice", value, *bounds)

    def reduce(self, op_type: str, value: ir.Value, axes: Sequence[int], keepdims: bool = True) -> ir.Value:
        """Return a reduction of `value`; the axes became an operand in operator set 13 (ReduceSum) or 18 (others)."""
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.op(op_type, value, self.const(list(axes), np.int64), keepdims=int(keepdims))
        return self.op(op_type, value, axes=list(axes), keepdims=int(keepdims))


#: Returns the values that stand for the node's outputs (the first ones at least), or raises CannotRewrite.
Rewrite: TypeAlias = Callable[[Builder, ir.Node], "Sequence[ir.Value]"]


def static_shape(value: ir.Value | None) -> tuple[int, ...]:
    """Return the sizes of `value`, or raise CannotRewrite where they are not known."""
    if value is None or value.shape is None or not value.shape.is_static():
        raise CannotRewrite(f"the shape of '{value.name if value else '(absent)'}' is not known")
    return tuple(int(str(dim)) for dim in value.shape)


def known_dtype(value: ir.Value | None) -> ir.DataType:
    """Return the element type of `value`, or raise CannotRewrite where it is not known."""
    if value is None or value.dtype is None:
        raise CannotRewrite(f"the element type of '{value.name if value else '(absent)'}' is not known")
    return value.dtype


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the value of a constant, or None where it is not one."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Return input `index` of `node`, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def required(node: ir.Node, index: int) -> ir.Value:
    """Return input `index` of `node`, which the operator demands."""
    value = operand(node, index)
    if value is None:
        raise CannotRewrite(f"input {index} is missing")
    return value


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return the value of an attribute, or `default`."""
    found = node.attributes.get(name)
    return default if found is None else found.value
