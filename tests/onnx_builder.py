"""Tiny ONNX models, written node by node, with random weights and inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Builder:
    """Collects the nodes of one ONNX model; random constants and inputs, drawn from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.outputs: list[str] = []
        self._count = 0

    def name(self, hint: str = "v") -> str:
        """A name that no other value of the model has."""
        self._count += 1
        return f"{hint}{self._count}"

    def input(self, *shape: int, dtype: str = "float32") -> str:
        """An input: floats from a normal distribution, integers from [0, 5), even chances of a bool."""
        name = self.name("x")
        floats = dtype.startswith("float")
        drawn = self.rng.standard_normal(shape) if floats else self.rng.integers(0, 2 if dtype == "bool" else 5, shape)
        self.inputs[name] = np.asarray(drawn).astype(dtype)
        return name

    def constant(self, values: np.ndarray | Sequence[int] | float, dtype: str = "float32") -> str:
        """A constant with these values."""
        name = self.name("c")
        self.constants[name] = np.asarray(values).astype(dtype)
        return name

    def weights(self, *shape: int, terms: int = 1) -> str:
        """A normally distributed constant, scaled so that a sum of `terms` products stays near 1."""
        return self.constant(self.rng.standard_normal(shape) / math.sqrt(terms))

    def node(self, op: str, *inputs: str, outputs: int = 1, **attrs: object) -> str:
        """Adds an operator; gives the name of its (first) result."""
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attrs))
        return names[0]

    def conv(self, x: str, ic: int, oc: int, k: int = 1, pad: int = 0, **attrs: object) -> str:
        """A square convolution with a bias."""
        weight, bias = self.weights(oc, ic, k, k, terms=ic * k * k), self.weights(oc)
        return self.node("Conv", x, weight, bias, pads=[pad] * 4, **attrs)

    def model(self) -> onnx.ModelProto:
        """The model; its outputs y0, y1, ... are Identities of `outputs`, which may be inputs or stand there twice."""
        known = ("float32", "int64", "int8", "uint8", "bool")
        element = {np.dtype(t): helper.np_dtype_to_tensor_dtype(np.dtype(t)) for t in known}
        element[np.dtype("float16")] = TensorProto.FLOAT16
        element[np.dtype("int32")] = TensorProto.INT32
        graph = helper.make_graph(
            [*self.nodes, *(helper.make_node("Identity", [v], [f"y{i}"]) for i, v in enumerate(self.outputs))],
            "workload",
            [helper.make_tensor_value_info(n, element[a.dtype], a.shape) for n, a in self.inputs.items()],
            [onnx.ValueInfoProto(name=f"y{i}") for i in range(len(self.outputs))],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
