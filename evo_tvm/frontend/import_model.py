"""From an ONNX file to a Relax module, as one list of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from evo_tvm.errors import ModelError
from evo_tvm.frontend.check_operators import check_operators
from evo_tvm.frontend.check_types import check_types
from evo_tvm.frontend.clean_model import clean_model, drop_initializers_from_inputs
from evo_tvm.frontend.fix_shapes import fix_shapes
from evo_tvm.frontend.read_model import ModelSource, read_model
from evo_tvm.frontend.rewrite_operators import rewrite_operators
from evo_tvm.spec import TensorSpec

if TYPE_CHECKING:
    import tvm


@dataclass(frozen=True)
class Imported:
    """A model as Relax.

    module: one function "main"; its parameters are `inputs` in order, weights are constants, shapes are static.
    inputs, outputs: as the model names them, in its order.
    """

    module: tvm.IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def import_onnx(model: ModelSource, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Imported:
    """Return the Relax module of the ONNX file or model `model`.

    Parameters
    ----------
    model: path of an ONNX file (external data beside it), or a model in memory; it is not changed.
    input_shapes: sizes of inputs with free dimensions, by input name.

    Raises
    ------
    ModelError: the model cannot be read, is invalid, has free dimensions left, or uses an operator in a way that
        cannot be imported.
    UnsupportedOperatorError: operators without an importer, all of them named.
    UsageError: `input_shapes` contradicts the model.
    """
    graph = read_model(model)
    drop_initializers_from_inputs(graph)
    fix_shapes(graph, input_shapes or {})
    outputs = [str(value.name) for value in graph.graph.outputs]  # two that are one value lose a name when cleaned
    clean_model(graph)
    reasons = rewrite_operators(graph)
    check_operators(graph, None if isinstance(model, onnx.ModelProto) else model, reasons)
    check_types(graph)
    return _to_relax(graph, outputs)


def _to_relax(model: ir.Model, outputs: Sequence[str]) -> Imported:
    """Import the cleaned `model`, its outputs under these names; its weights stay out of what the importer reads."""
    from evo_tvm.frontend.import_graph import import_graph

    inputs = tuple(_spec(value) for value in model.graph.inputs)
    weights = _take_weights(model)
    proto = ir.serde.serialize_graph(model.graph)
    module = import_graph(proto, model.opset_imports.get("", 1), weights, {spec.name: spec.shape for spec in inputs})
    return Imported(module, inputs, _output_specs(module, outputs))


def _take_weights(model: ir.Model) -> dict[str, np.ndarray]:
    """Remove the initializers of the main graph of `model`, and return their values by name."""
    weights = {}
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is not None:
            weights[name] = value.const_value.numpy()
            del model.graph.initializers[name]
    return weights


def _spec(value: ir.Value) -> TensorSpec:
    """Return the spec of the model input `value`."""
    assert value.dtype is not None and value.shape is not None  # check_types and fix_shapes saw to that
    return TensorSpec(str(value.name), tuple(int(str(dim)) for dim in value.shape), str(value.dtype.numpy()))


def _output_specs(module: tvm.IRModule, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Return the specs of what `main` returns, from its Relax type."""
    from tvm import relax

    result = module["main"].ret_ty
    types = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    specs = []
    for name, kind in zip(names, types, strict=True):
        if not isinstance(kind, relax.TensorType):
            raise ModelError(f"output '{name}' is not a tensor; only tensors can be compiled")
        shape = kind.shape
        if not isinstance(shape, relax.ShapeExpr) or not all(hasattr(size, "value") for size in shape.values):
            raise ModelError(
                f"output '{name}' has a shape that depends on the input's values; only static shapes can be compiled"
            )
        specs.append(TensorSpec(name, tuple(int(size.value) for size in shape.values), str(kind.dtype)))
    return tuple(specs)
