"""The nine `light_*.onnx` classifiers that the onnx package ships for its tests, with weights drawn at random.

As shipped nearly all of their weights are 0.02, made by ConstantOfShape nodes to keep the files small, so that their
output is the same whatever the input. Nodes, attributes and opset stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from evo_tvm.bench.graph import IR_VERSION, FloatArray, RandomWeights
from evo_tvm.errors import UsageError

Shape: TypeAlias = tuple[int, ...]

NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
# Which parameters follow the data among the inputs of an operator.
PARTS = {
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "Mul": ("weight",),
    "Add": ("bias",),
}
# Scale of the batch normalizations that end the branches of a sum or a concatenation, by how many of its operands they
# are: one beside an identity, or two. It keeps the magnitude of the operands, so that no softmax saturates.
BRANCH_GAIN = {1: 0.2, 2: 0.7}
# Scale of a dense layer in front of a softmax, in a model without normalization, whose activations grow with every
# max-pooling: so that its logits are a few units, as a trained model's are, and the softmax does not saturate.
LOGIT_GAIN = 0.15


def light(name: str, batch: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """The model `light_<name>.onnx` with random weights; `batch` images at once instead of one."""
    if name not in NAMES:
        raise UsageError(f"there is no light model {name!r}", hint=f"Choose one of {', '.join(NAMES)}.")
    model: onnx.ModelProto = onnx.load(
        Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    )
    _draw_weights(model.graph, RandomWeights(seed))
    # Up to version 3 a constant had to be a graph input too, which forbids runtimes to take it for a constant.
    model.ir_version = IR_VERSION
    if batch is not None:
        _set_batch(model.graph, batch)
    onnx.checker.check_model(model)
    return model


def _draw_weights(graph: onnx.GraphProto, weights: RandomWeights) -> None:
    """Replace the float constants, stored or made by a node, by stored random ones."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in stored.items() if tensor.data_type == tensor.FLOAT}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes |= {node.output[0]: tuple(numpy_helper.to_array(stored[node.input[0]]).tolist()) for node in made}
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]

    constants = {name: numpy_helper.from_array(array, name) for name, array in _draw(nodes, shapes, weights)}
    used = {name for node in nodes for name in node.input}
    constants |= {name: tensor for name, tensor in stored.items() if name in used and name not in shapes}
    inputs = [value for value in graph.input if value.name not in stored]
    for field, items in ((graph.node, nodes), (graph.initializer, constants.values()), (graph.input, inputs)):
        kept = list(items)  # a copy, as the items may live in the field that is emptied
        del field[:]
        field.extend(kept)


def _draw(
    nodes: list[onnx.NodeProto], shapes: dict[str, Shape], weights: RandomWeights
) -> Iterator[tuple[str, FloatArray]]:
    """The constants that the nodes use, each drawn by the part it plays in the node that uses it."""
    reshaped = {node.output[0]: node.input[0] for node in nodes if node.op_type in ("Reshape", "Unsqueeze")}
    normalized = {node.output[0] for node in nodes if node.op_type == "BatchNormalization"}
    gains: dict[str, float] = {}
    for node in nodes:
        if node.op_type in ("Sum", "Concat"):
            branches = normalized.intersection(node.input)
            gains |= {name: BRANCH_GAIN[len(branches)] for name in branches}
        elif node.op_type == "Softmax" and not normalized:
            gains[node.input[0]] = LOGIT_GAIN
    for node in nodes:
        for operand, part in zip(node.input[1:], PARTS.get(node.op_type, ()), strict=False):
            name = reshaped.get(operand, operand)
            if name in shapes:
                # A dense weight may be stored as [1, 1, out, in], ahead of a reshape.
                shape = shapes[name][-2:] if node.op_type == "Gemm" else shapes[name]
                yield name, weights(f"{name}.{part}", shape, gains.get(node.output[0], 1.0)).reshape(shapes[name])


def _set_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Give the graph's input and output this batch, and let the reshapes of activations copy theirs (a 0 in ONNX)."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] not in constants:
            shape = constants[node.input[1]]
            rest = numpy_helper.to_array(shape)[1:]
            shape.CopyFrom(numpy_helper.from_array(np.array([0, *rest], np.int64), shape.name))
