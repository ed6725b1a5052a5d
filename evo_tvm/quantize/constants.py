"""Reading and replacing the constants of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from evo_tvm.frontend.operators.builder import constant, operand
from evo_tvm.quantize.params import Array

#: Operators with weights: which axis of the weights counts output channels, given the node.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def constant_input(node: ir.Node, index: int) -> Array | None:
    """Input `index` of `node` where it is a constant, else None."""
    return constant(operand(node, index))


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new constant of the graph; where the name is taken, a number is added to it."""
    taken, unique, number = graph.initializers, name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(name=unique, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def set_constant(node: ir.Node, index: int, name: str, array: Array) -> None:
    """Make input `index` of `node` a constant; other users of the old one keep it."""
    assert node.graph is not None
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    node.replace_input_with(index, None)
    drop_unused(_owner(node), [old])
    node.replace_input_with(index, add_constant(_owner(node), name, array))


def output_axis(node: ir.Node) -> int:
    """The axis of the weights of `node`, one of WEIGHTED, along which its output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute_int(node, "transB", 0) else 1
    return 1


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute of `node`."""
    found = node.attributes.get(name)
    return default if found is None else int(found.as_int())


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that alone reads `value`, once; None where there are others, or it leaves the graph."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    return node if node.graph is value.graph else None  # not one in the body of an If or a Loop


def rank(value: ir.Value | None) -> int | None:
    """How many dimensions `value` has, where that is known."""
    return None if value is None or value.shape is None else len(value.shape)


def drop_unused(graph: ir.Graph, values: Sequence[ir.Value | None]) -> None:
    """Remove those of `values` from the constants of `graph` that nothing reads any more."""
    for value in values:
        if value is not None and value.is_initializer() and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)


def _owner(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
