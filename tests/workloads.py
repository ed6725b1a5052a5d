"""Small workloads with awkward shapes: one table for correctness tests and for benchmarks of kernels.

A workload writes ONNX nodes through a `Builder`, so that several of them can stand side by side in one model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: max |difference| / max |reference|
DIRECT, WINOGRAD = 1e-5, 3e-5
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
        """The checked model. Every output gets an Identity only if its name is an input, a constant or taken."""
        element = {np.dtype(t): helper.np_dtype_to_tensor_dtype(np.dtype(t)) for t in ("float32", "int64", "bool")}
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


@dataclass(frozen=True)
class Conv2d:
    """A convolution of (n, ic, *image) and what follows it.

    `epilogue`: ONNX activations, or "add"/"mul" of a second operand: "add:scalar", "add:channel" (constants),
    "add:full", "mul:nc11", "add:chw", "mul:c11" (inputs of the run). `pads` is (top, left, bottom, right).
    """

    ic: int
    oc: int
    image: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    n: int = 1
    bias: bool = True
    epilogue: tuple[str, ...] = ()
    winograd: bool = False

    @property
    def name(self) -> str:
        def text(values: Sequence[int]) -> str:
            return "x".join(map(str, values))

        parts = [f"conv_n{self.n}_{self.ic}to{self.oc}_{text(self.image)}_k{text(self.kernel)}"]
        parts += [f"s{text(self.stride)}"] if self.stride != (1, 1) else []
        parts += [f"d{text(self.dilation)}"] if self.dilation != (1, 1) else []
        parts += [f"g{self.groups}"] if self.groups > 1 else []
        parts += [f"p{text(self.pads)}"] if any(self.pads) else []
        return "_".join([*parts, *self.epilogue, *(["winograd"] if self.winograd else [])])

    def build(self, b: Builder) -> None:
        x = b.input(self.n, self.ic, *self.image)
        terms = self.ic // self.groups * math.prod(self.kernel)
        operands = [x, b.weights(self.oc, self.ic // self.groups, *self.kernel, terms=terms)]
        operands += [b.weights(self.oc)] if self.bias else []
        y = b.node(
            "Conv",
            *operands,
            strides=self.stride,
            dilations=self.dilation,
            group=self.groups,
            pads=self.pads,
        )
        size = [
            (e + before + after - d * (k - 1) - 1) // s + 1
            for e, before, after, d, k, s in zip(
                self.image, self.pads[:2], self.pads[2:], self.dilation, self.kernel, self.stride, strict=True
            )
        ]
        for step in self.epilogue:
            y = _epilogue(b, y, step, (self.n, self.oc, *size))
        b.outputs.append(y)


def _epilogue(b: Builder, y: str, step: str, shape: tuple[int, ...]) -> str:
    op, _, operand = step.partition(":")
    n, c, h, w = shape
    if op == "silu":
        return b.node("Mul", y, b.node("Sigmoid", y))
    if op == "clip":
        return b.node("Clip", y, b.constant(-0.5), b.constant(0.75))
    if op == "leaky":
        return b.node("LeakyRelu", y, alpha=0.1)
    if not operand:
        return b.node(op, y)
    made: dict[str, Callable[[], str]] = {
        "scalar": lambda: b.constant(0.37),
        "channel": lambda: b.weights(1, c, 1, 1),
        "pixels": lambda: b.weights(1, 1, h, w),
        "image": lambda: b.weights(c, h, w),
        "full": lambda: b.input(n, c, h, w),
        "nc11": lambda: b.input(n, c, 1, 1),
        "n1hw": lambda: b.input(n, 1, h, w),
        "one": lambda: b.input(1),
        "c11": lambda: b.input(c, 1, 1),
        "chw": lambda: b.input(c, h, w),
        "w": lambda: b.input(w),
    }
    return b.node({"add": "Add", "mul": "Mul", "sub": "Sub", "div": "Div"}[op], y, made[operand]())


@dataclass(frozen=True)
class Pool2d:
    """MaxPool or AveragePool of (n, channels, *image), behind a convolution (`blocked`) or not."""

    op: str
    channels: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False
    include_pad: bool = False
    blocked: bool = True
    epilogue: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        numbers = (self.channels, *self.image, *self.kernel, *self.stride, *self.pads, *self.dilation)
        flags = [w for w in ("ceil", "include_pad", "blocked") if getattr(self, w)]
        return "_".join([self.op, *map(str, numbers), *flags, *self.epilogue])

    def build(self, b: Builder) -> None:
        x = b.input(2, self.channels, *self.image)
        if self.blocked:
            x = b.conv(x, self.channels, self.channels)
        attrs = {"kernel_shape": self.kernel, "strides": self.stride, "pads": self.pads, "ceil_mode": int(self.ceil)}
        if self.op == "AveragePool":
            attrs["count_include_pad"] = int(self.include_pad)
        else:
            attrs["dilations"] = self.dilation
        y = b.node(self.op, x, **attrs)
        for step in self.epilogue:
            y = b.node(step, y)
        b.outputs.append(y)


@dataclass(frozen=True)
class Dense:
    """(rows, depth) @ (depth, width) + bias, and activations."""

    rows: int
    depth: int
    width: int
    epilogue: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "_".join([f"dense_{self.rows}x{self.depth}x{self.width}", *self.epilogue])

    def build(self, b: Builder) -> None:
        x = b.input(self.rows, self.depth)
        y = b.node("Gemm", x, b.weights(self.depth, self.width, terms=self.depth), b.weights(self.width))
        for step in self.epilogue:
            y = b.node(step, y)
        b.outputs.append(y)


@dataclass(frozen=True)
class Network:
    """A few operators that meet in an awkward way."""

    name: str
    write: Callable[[Builder], str | Sequence[str]] = field(compare=False)
    tolerance: float = DIRECT

    def build(self, b: Builder) -> None:
        outputs = self.write(b)
        b.outputs += [outputs] if isinstance(outputs, str) else outputs


Workload = Conv2d | Pool2d | Dense | Network


def tolerance(workload: Workload) -> float:
    """max |difference| / max |reference| that the workload may show."""
    if isinstance(workload, Network):
        return workload.tolerance
    return WINOGRAD if isinstance(workload, Conv2d) and workload.winograd else DIRECT


SAME = (1, 1, 1, 1)

CONVS = (
    *(Conv2d(ic, oc, (7, 9), pads=SAME) for ic, oc in ((3, 8), (1, 1), (8, 20), (20, 24), (24, 33), (33, 3), (4, 16))),
    *(Conv2d(5, 16, (13, 29), (k, k), pads=(k // 2,) * 4) for k in (1, 2, 3, 5, 7)),
    *(Conv2d(20, 33, (13, 29), (3, 3), (s, s), pads=SAME) for s in (1, 2, 3)),
    Conv2d(16, 32, (1, 1), (1, 1)),
    Conv2d(24, 10, (1, 1), (3, 3), pads=SAME),
    Conv2d(33, 16, (1, 13), (1, 3), pads=(0, 1, 0, 1)),
    Conv2d(16, 24, (13, 1), (5, 1), pads=(2, 0, 2, 0), stride=(2, 1)),
    Conv2d(16, 16, (13, 13), dilation=(2, 2), pads=(2, 2, 2, 2)),
    Conv2d(3, 8, (14, 13), (7, 7), (2, 2), pads=(3, 3, 3, 3), epilogue=("Relu",)),
    Conv2d(32, 64, (7, 7), groups=2, pads=SAME, epilogue=("Relu",)),
    Conv2d(32, 32, (7, 5), groups=4, pads=SAME),
    Conv2d(6, 9, (7, 7), groups=3, pads=SAME, epilogue=("Relu",)),
    Conv2d(8, 16, (7, 7), groups=8, pads=SAME),
    Conv2d(16, 16, (9, 11), (3, 3), (2, 1), pads=(0, 1, 2, 3), n=3),
    Conv2d(3, 20, (9, 11), (2, 3), (1, 2), pads=(1, 0, 0, 2), n=3),
    Conv2d(256, 16, (5, 6), pads=SAME),
    Conv2d(600, 24, (4, 4), (1, 1), n=2),
    Conv2d(1312, 8, (3, 3), (1, 1)),
    Conv2d(128, 40, (5, 7), (5, 5), pads=(2, 2, 2, 2), bias=False, epilogue=("add:full", "Relu")),
    Conv2d(16, 24, (13, 13), (1, 1), epilogue=("add:full", "Relu"), n=2),
    Conv2d(16, 33, (5, 7), (1, 1), epilogue=("clip",)),
    Conv2d(16, 24, (5, 7), (3, 3), pads=SAME, epilogue=("Sigmoid",)),
    Conv2d(16, 24, (5, 7), (3, 3), pads=SAME, epilogue=("silu",), n=3),
    Conv2d(20, 20, (5, 7), (3, 3), pads=SAME, epilogue=("leaky", "mul:nc11"), n=2),
    Conv2d(16, 24, (5, 7), epilogue=("Relu", "add:scalar", "mul:channel", "Tanh")),
    Conv2d(16, 16, (5, 7), epilogue=("Relu", "add:pixels", "mul:image")),
    Conv2d(16, 24, (5, 7), epilogue=("mul:n1hw", "add:one"), n=2),
    Conv2d(16, 24, (5, 7), epilogue=("mul:c11",), n=2),
    Conv2d(16, 24, (5, 7), epilogue=("add:chw",), n=2),
    Conv2d(16, 24, (5, 7), epilogue=("add:w",), n=2),
    Conv2d(16, 1, (5, 7), epilogue=("add:full",), n=2),
    Conv2d(16, 1, (5, 7), epilogue=("mul:nc11", "Relu"), n=2),
    *(
        Conv2d(ic, oc, image, pads=pads, n=n, epilogue=e, winograd=True)
        for ic, oc, image, pads, n, e in (
            (16, 32, (14, 14), SAME, 1, ()),
            (32, 16, (28, 28), SAME, 1, ("Relu",)),
            (16, 16, (56, 56), SAME, 1, ("add:full", "Relu")),
            (16, 48, (13, 29), SAME, 3, ("leaky",)),
            (16, 16, (7, 5), (0, 1, 2, 1), 2, ("mul:nc11",)),
            (64, 32, (3, 4), SAME, 1, ()),
            (48, 16, (6, 9), (0, 0, 0, 0), 1, ("silu",)),
        )
    ),
)

DEPTHWISE = tuple(
    Conv2d(c, c, image, (k, k), (s, s), groups=c, pads=(k // 2,) * 4, n=n, epilogue=e, dilation=(d, d))
    for c, image, k, s, d, n, e in (
        (16, (14, 14), 3, 1, 1, 1, ("Relu",)),
        (33, (13, 13), 3, 2, 1, 2, ("silu",)),
        (24, (13, 29), 5, 1, 1, 1, ("clip",)),
        (20, (7, 29), 5, 2, 1, 3, ()),
        (8, (9, 9), 3, 1, 2, 1, ("add:full",)),
        (3, (5, 5), 3, 1, 1, 1, ()),
        (16, (1, 1), 3, 1, 1, 1, ()),
    )
)

POOLS = (
    Pool2d("MaxPool", 24, (13, 13), (3, 3), (2, 2), SAME),
    Pool2d("MaxPool", 16, (12, 13), (3, 3), (2, 2), ceil=True),
    Pool2d("MaxPool", 33, (14, 14), (2, 2), (2, 2), blocked=False),
    Pool2d("MaxPool", 3, (9, 7), (3, 2), (2, 1), (1, 0, 1, 1), blocked=False, epilogue=("Relu",)),
    Pool2d("MaxPool", 16, (13, 9), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    Pool2d("MaxPool", 16, (13, 9), (3, 3), (1, 1), dilation=(2, 2)),
    Pool2d("AveragePool", 24, (13, 13), (3, 3), (2, 2), SAME),
    Pool2d("AveragePool", 16, (13, 13), (3, 3), (2, 2), SAME, include_pad=True),
    Pool2d("AveragePool", 16, (12, 13), (3, 3), (2, 2), (0, 1, 1, 0), include_pad=True),
    Pool2d("AveragePool", 16, (12, 12), (3, 3), (2, 2), ceil=True),
    Pool2d("AveragePool", 16, (12, 12), (3, 3), (2, 2), (0, 1, 1, 0), ceil=True),
    Pool2d("AveragePool", 3, (7, 29), (7, 7), (7, 7), blocked=False, epilogue=("Sigmoid",)),
    Pool2d("AveragePool", 20, (13, 13), (2, 2), (2, 2), epilogue=("Relu",)),
)

DENSES = (
    *(Dense(1, k, n) for k in (1, 7, 513, 4096) for n in (1, 10, 1000) if k * n < 1_000_000),
    Dense(3, 513, 10, ("Relu",)),
    Dense(3, 7, 1),
    Dense(7, 1, 10, ("Sigmoid",)),
    Dense(7, 513, 33, ("Tanh",)),
    Dense(7, 1024, 64),
)
