"""Builds ONNX graphs of neural networks, with weights drawn at random or taken from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FloatArray: TypeAlias = npt.NDArray[np.float32]

OPSET = 17
# Scale of the last normalization or dense layer of a branch that is added to its shortcut: the sum keeps its magnitude.
RESIDUAL_GAIN = 0.4
# The same for a branch that is neither added to anything nor rectified: He's weights double the variance for a ReLU.
LINEAR_GAIN = 0.7
IR_VERSION = 8  # the one that opset 17 came with; older readers refuse a newer one


class Weights(Protocol):
    """Where a graph takes its parameters from, by PyTorch's names (`conv1.weight`, `bn1.running_var`, ...)."""

    def __call__(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> FloatArray:
        """The parameter, of this shape; `gain` is the scale that a random weight is drawn around."""
        ...


class RandomWeights:
    """Weights that keep the scale of activations through the depth, drawn from one seeded stream.

    Convolution and dense weights follow He et al., "Delving Deep into Rectifiers" (ICCV 2015). The parameters of a
    batch normalization lie around those of the identity, so that its bias does not hide the input.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> FloatArray:
        kind = name.rsplit(".", 1)[-1]
        if kind == "weight" and len(shape) > 1:
            return self.he_normal(shape, gain)
        if kind == "weight":
            return self.around(gain, shape)
        if kind == "running_var":
            return self.around(1.0, shape)
        return self.offset(shape)

    def he_normal(self, shape: tuple[int, ...], gain: float = 1.0) -> FloatArray:
        """Normal weights [out, in, ...] that keep the variance of what a ReLU lets through, times gain squared.

        Filters over several channels have a mean of zero (Brock et al., "Characterizing Signal Propagation", ICLR
        2021): they do not see the mean of a rectified input, which would grow until the output hardly depended on it.
        """
        weights = self._rng.standard_normal(shape, dtype=np.float32)
        rectified = 0.5  # second moment of a rectified unit normal
        if shape[1] > 1:
            weights -= weights.mean(axis=tuple(range(1, len(shape))), keepdims=True)
            rectified -= 0.5 / np.pi  # its variance
        return weights * np.float32(gain / np.sqrt(rectified * np.prod(shape[1:])))

    def around(self, centre: float, shape: tuple[int, ...]) -> FloatArray:
        """Uniform within 20 % of `centre`."""
        return self._rng.uniform(0.8 * centre, 1.2 * centre, shape).astype(np.float32)

    def offset(self, shape: tuple[int, ...]) -> FloatArray:
        """Small values of either sign, for biases and means."""
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(0.05)


class CheckpointWeights:
    """Weights of a trained model; a name or a shape that does not fit is an error."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._tensors = tensors

    def __call__(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> FloatArray:
        if name not in self._tensors:
            raise KeyError(f"the checkpoint has no tensor {name!r}")
        tensor = self._tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"tensor {name!r} has shape {tensor.shape}, expected {shape}")
        return np.ascontiguousarray(tensor, dtype=np.float32)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; its first axis is the batch. `channels` is the size of the second axis, or of the last
    where the tensor holds tokens."""

    name: str
    channels: int


class Graph:
    """One ONNX graph in the making: each method appends nodes and returns the value they give."""

    def __init__(self, name: str, weights: Weights) -> None:
        self._name = name
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str]) -> Value:
        """A float32 input [batch, channels, ...]; a text in the shape is a symbolic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return Value(name, int(shape[1]))

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """The name of a constant, which is stored once however often it is asked for."""
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def parameter(self, name: str, shape: tuple[int, ...], gain: float = 1.0, *, transposed: bool = False) -> str:
        """The name of a constant that the graph's source of weights supplies; stored with its axes reversed or not."""
        array = self._weights(name, shape, gain)
        return self.constant(name, np.ascontiguousarray(array.T) if transposed else array)

    def op(
        self, op_type: str, inputs: Sequence[str], channels: int, name: str | None = None, **attributes: object
    ) -> Value:
        """One node with one output."""
        name = name or f"{op_type}_{len(self._nodes)}"
        output = f"{name}.output"
        self._nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return Value(output, channels)

    def split(self, x: Value, parts: int) -> list[Value]:
        """The channels in `parts` equal shares."""
        name = f"Split_{len(self._nodes)}"
        sizes = self.constant(f"{name}.sizes", np.full(parts, x.channels // parts))
        outputs = [f"{name}.output{part}" for part in range(parts)]
        self._nodes.append(helper.make_node("Split", [x.name, sizes], outputs, name, axis=1))
        return [Value(output, x.channels // parts) for output in outputs]

    def conv(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        pads: Sequence[int] | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> Value:
        """Square convolution; `pads` are (top, left, bottom, right), by default half the kernel on each side."""
        weight = self.parameter(f"{name}.weight", (channels, x.channels // groups, kernel, kernel))
        inputs = [x.name, weight, *([self.parameter(f"{name}.bias", (channels,))] if bias else [])]
        return self.op(
            "Conv",
            inputs,
            channels,
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=list(pads) if pads is not None else [kernel // 2] * 4,
            group=groups,
        )

    def batch_norm(self, x: Value, name: str, *, gain: float = 1.0, epsilon: float = 1e-5) -> Value:
        """Batch normalization at inference; `gain` is what a random scale is drawn around."""
        scale = self.parameter(f"{name}.weight", (x.channels,), gain)
        rest = [self.parameter(f"{name}.{part}", (x.channels,)) for part in ("bias", "running_mean", "running_var")]
        return self.op("BatchNormalization", [x.name, scale, *rest], x.channels, name, epsilon=epsilon)

    def relu(self, x: Value) -> Value:
        return self.op("Relu", [x.name], x.channels)

    def relu6(self, x: Value) -> Value:
        bounds = [self.constant(f"relu6.{b:.0f}", np.array(b, np.float32)) for b in (0.0, 6.0)]
        return self.op("Clip", [x.name, *bounds], x.channels)

    def silu(self, x: Value) -> Value:
        return self.op("Mul", [x.name, self.op("Sigmoid", [x.name], x.channels).name], x.channels)

    def add(self, x: Value, y: Value) -> Value:
        return self.op("Add", [x.name, y.name], x.channels)

    def normalize(self, x: Value, mean: float, deviation: float) -> Value:
        """(x - mean) / deviation, as the first two nodes of a model that takes images in [0, 1]."""
        for op_type, constant, value in (("Sub", "mean", mean), ("Div", "deviation", deviation)):
            x = self.op(op_type, [x.name, self.constant(constant, np.array(value, np.float32))], x.channels)
        return x

    def concat(self, values: Sequence[Value]) -> Value:
        return self.op("Concat", [v.name for v in values], sum(v.channels for v in values), axis=1)

    def max_pool(self, x: Value, kernel: int, stride: int, pad: int = 0) -> Value:
        return self.op("MaxPool", [x.name], x.channels, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def average_pool(self, x: Value, kernel: int, stride: int) -> Value:
        return self.op("AveragePool", [x.name], x.channels, kernel_shape=[kernel] * 2, strides=[stride] * 2)

    def classifier(self, x: Value, name: str, classes: int) -> Value:
        """Global average pooling and a dense layer: [batch, channels, height, width] => [batch, classes]."""
        pooled = self.op("GlobalAveragePool", [x.name], x.channels)
        flat = self.op("Flatten", [pooled.name], x.channels, axis=1)
        weight = self.parameter(f"{name}.weight", (classes, x.channels))
        bias = self.parameter(f"{name}.bias", (classes,))
        return self.op("Gemm", [flat.name, weight, bias], classes, name, transB=1)

    def model(self, outputs: Mapping[str, Value]) -> onnx.ModelProto:
        """The finished and checked model with these outputs, which get the names that are their keys."""
        renamed = {value.name: name for name, value in outputs.items()}
        for node in self._nodes:
            node.output[:] = [renamed.get(name, name) for name in node.output]
            node.input[:] = [renamed.get(name, name) for name in node.input]
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, producer_name="evo_tvm")
        model.ir_version = IR_VERSION
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
        for value, known in zip(model.graph.output, inferred, strict=True):
            value.CopyFrom(known)
        onnx.checker.check_model(model)
        return model
