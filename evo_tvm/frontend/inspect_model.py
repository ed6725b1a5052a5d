"""What is in an ONNX file, without compiling it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from evo_tvm.frontend.check_operators import UnsupportedOperator, find_unsupported
from evo_tvm.frontend.clean_model import drop_initializers_from_inputs
from evo_tvm.frontend.read_model import ModelSource, read_model


@dataclass(frozen=True)
class TensorSummary:
    """An input or output: sizes as numbers, free dimensions by name ("?" where they have none); None: unknown rank."""

    name: str
    dtype: str
    dims: tuple[int | str, ...] | None

    def __str__(self) -> str:
        dims = "unknown rank" if self.dims is None else "x".join(map(str, self.dims)) or "scalar"
        return f"{self.name}: {self.dtype}[{dims}]"


@dataclass(frozen=True)
class ModelSummary:
    """What `describe` found.

    operators: how often each operator occurs, nested graphs included. parameters: elements of all weights;
    parameter_bytes: their size. opsets: version of each operator set. unsupported: what `compile` would refuse.
    """

    name: str
    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: dict[str, int]
    parameters: int
    parameter_bytes: int
    unsupported: tuple[UnsupportedOperator, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return {**dataclasses.asdict(self), "quantized": self.quantized}

    @property
    def quantized(self) -> bool:
        """Whether the model says in QDQ form which of its values are integers."""
        return "DequantizeLinear" in self.operators

    def __str__(self) -> str:
        operators = sorted(self.operators.items(), key=lambda item: (-item[1], item[0]))
        opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in self.opsets.items())
        lines = [
            f"model        {self.name or '(unnamed)'}, made by {self.producer or '(unknown)'}",
            f"ONNX         IR version {self.ir_version}, operator sets: {opsets}",
            *(f"input        {tensor}" for tensor in self.inputs),
            *(f"output       {tensor}" for tensor in self.outputs),
            f"parameters   {self.parameters:,} in {self.parameter_bytes / 1e6:.1f} MB",
            *([f"quantized    QDQ form: {_count(self.operators)}"] if self.quantized else []),
            f"operators    {', '.join(f'{count} {name}' for name, count in operators)}",
            *(f"unsupported  {operator}" for operator in self.unsupported),
        ]
        return "\n".join(lines)


def describe(model: ModelSource) -> ModelSummary:
    """Return what is in `model`; raises ModelError where it cannot be read. Weights are not loaded."""
    graph = read_model(model)
    drop_initializers_from_inputs(graph)
    nodes = list(ir.traversal.RecursiveGraphIterator(graph.graph))
    weights = [
        value.const_value
        for nested in graph.graphs()
        for value in nested.initializers.values()
        if value.const_value is not None
    ]
    return ModelSummary(
        name=graph.graph.name or "",
        producer=" ".join(filter(None, (graph.producer_name, graph.producer_version))),
        ir_version=graph.ir_version,
        opsets=dict(graph.opset_imports),
        inputs=tuple(_summary(value) for value in graph.graph.inputs),
        outputs=tuple(_summary(value) for value in graph.graph.outputs),
        operators=dict(Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)),
        parameters=sum(tensor.size for tensor in weights),
        parameter_bytes=sum(tensor.nbytes for tensor in weights),
        unsupported=_unsupported(graph, nodes),
    )


def _unsupported(model: ir.Model, nodes: list[ir.Node]) -> tuple[UnsupportedOperator, ...]:
    """Return what cannot be imported; TVM, which takes seconds to load, is asked only about unusual operators."""
    if {node.op_type for node in nodes} <= _COMMON and not any(node.domain for node in nodes):
        return ()
    from evo_tvm.frontend.inline_bodies import operators_with_body
    from evo_tvm.frontend.operators import REWRITES

    return find_unsupported(model, {*REWRITES, *operators_with_body(model)})


def _summary(value: ir.Value) -> TensorSummary:
    """Return what is known of a model's input or output."""
    dtype = str(value.dtype.numpy()) if value.dtype is not None and value.dtype != ir.DataType.STRING else "string"
    if not isinstance(value.type, ir.TensorType):
        return TensorSummary(str(value.name), "unknown" if value.type is None else type(value.type).__name__, None)
    if value.shape is None:
        return TensorSummary(str(value.name), dtype, None)
    return TensorSummary(
        str(value.name),
        dtype,
        tuple(dim if isinstance(dim, int) else dim.value or "?" for dim in value.shape),
    )


_QDQ = ("QuantizeLinear", "DequantizeLinear")


def _count(operators: dict[str, int]) -> str:
    return ", ".join(f"{operators.get(name, 0)} {name}" for name in _QDQ)


# Operators of ordinary networks that the importer surely has; a test holds this list against it.
_COMMON = frozenset(
    """
    Add AveragePool BatchNormalization Clip Concat Constant Conv DequantizeLinear Dropout Flatten Gemm GlobalAveragePool
    Identity MatMul MaxPool Mul QuantizeLinear Relu Reshape Sigmoid Softmax Sub Sum Transpose Unsqueeze
    """.split()
)
