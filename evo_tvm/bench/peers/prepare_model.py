"""What is done to an ONNX model before a converter sees it: fixed shapes, one sample, nothing left to a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from evo_tvm.errors import ModelError
from evo_tvm.spec import TensorSpec

# From here on softmax normalizes one axis, the last by default; before, all from `axis`, by default 1.
SOFTMAX_CHANGED = 13
SOFTMAX_AXIS = 1


def read(model: Path) -> onnx.ModelProto:
    """The model in this file, with the old default of softmax written out.

    Converters take the new default, whatever the opset says.
    Raises ModelError: it is no ONNX file.
    """
    try:
        read = onnx.load(model)
    except (DecodeError, OSError) as error:
        raise ModelError("this is no ONNX file, or it was cut short", where=model) from error
    opset = max((entry.version for entry in read.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    for node in read.graph.node:
        named = any(attribute.name == "axis" for attribute in node.attribute)
        if node.op_type in ("Softmax", "LogSoftmax") and opset < SOFTMAX_CHANGED and not named:
            node.attribute.append(helper.make_attribute("axis", SOFTMAX_AXIS))
    return read


def input_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """The inputs that are not constants with a default; a free size is 0."""
    return tuple(_spec(value) for value in _inputs(model.graph))


def output_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """The outputs, as far as ONNX's shape inference knows them; a free size is 0."""
    return tuple(_spec(value) for value in onnx.shape_inference.infer_shapes(model).graph.output)


def with_input_shapes(model: Path, shapes: Mapping[str, Sequence[int]], output: Path) -> None:
    """Write the model to `output` with inputs of these shapes, so that each runtime may plan for them."""
    fixed = onnx.load(model)
    named = {
        dim.dim_param: size
        for value in _inputs(fixed.graph)
        if value.name in shapes
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True)
        if dim.dim_param
    }
    for value in _inputs(fixed.graph):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    _forget_shapes(fixed.graph)
    onnx.save(fixed, output)


def one_sample(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a batch of one."""
    sample = onnx.ModelProto()
    sample.CopyFrom(model)
    for value in _inputs(sample.graph):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    _forget_shapes(sample.graph)
    return sample


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorSpec(value.name, tuple(dim.dim_value for dim in kind.shape.dim), dtype)


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop what the file says about inner shapes and sizes of outputs: it was true for other inputs."""
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
