"""Models written as text, and their values by onnx's own reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from evo_tvm.frontend.clean_model import clean_model
from evo_tvm.frontend.read_model import read_model
from evo_tvm.frontend.rewrite_operators import rewrite_operators


def parse(graph: str, opset: int = 21, contrib: bool = False) -> onnx.ModelProto:
    """The model of a graph in onnx's text form, "(float[2] x) => (float[2] y) { y = Relu(x) }"."""
    imports = f'"" : {opset}' + (', "com.microsoft" : 1' if contrib else "")
    model: onnx.ModelProto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> main {graph}")
    return model


def constant(name: str, value: object, dtype: str) -> onnx.TensorProto:
    """An initializer."""
    return onnx.numpy_helper.from_array(np.asarray(value, dtype), name)


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after clean-up and rewriting."""
    graph = read_model(model)
    clean_model(graph)
    rewrite_operators(graph)
    proto: onnx.ModelProto = ir.serde.serialize_model(graph)
    return proto


def operators(model: onnx.ModelProto) -> list[str]:
    """The operators of a model, sorted, each once."""
    return sorted({node.op_type for node in model.graph.node})


def evaluate(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model by onnx's reference."""
    return [np.asarray(output) for output in ReferenceEvaluator(model).run(None, dict(inputs))]


def random_inputs(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Values for the inputs of a model with static shapes: normal, or for integers the whole range of 8 bits."""
    rng = np.random.default_rng(seed)
    values = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind in "iu":
            info = np.iinfo(dtype) if dtype.itemsize == 1 else np.iinfo(np.int8)
            values[value.name] = rng.integers(info.min, info.max + 1, shape).astype(dtype)
        else:
            values[value.name] = rng.standard_normal(shape).astype(dtype)
    return values
