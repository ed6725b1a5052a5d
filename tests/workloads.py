"""Small workloads with awkward shapes: one table for correctness tests and for benchmarks of kernels.

A workload writes ONNX nodes through a `Builder`, so that several of them can stand side by side in one model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.onnx_builder import Builder
from tests.operator_networks import NETWORKS, Network

#: max |difference| / max |reference|
DIRECT, WINOGRAD = 1e-5, 3e-5


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
        for step in self.epilogue:
            y = _epilogue(b, y, step, (self.n, self.oc, *self.out_size))
        b.outputs.append(y)

    @property
    def out_size(self) -> tuple[int, int]:
        """(OH, OW)."""
        height, width = (
            (e + before + after - d * (k - 1) - 1) // s + 1
            for e, before, after, d, k, s in zip(
                self.image, self.pads[:2], self.pads[2:], self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width


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
class ConvTranspose2d:
    """A transposed convolution of (n, ic, *image) and what follows it; the fields are those of `Conv2d`."""

    ic: int
    oc: int
    image: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (2, 2)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    n: int = 1
    epilogue: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        numbers = (self.n, self.ic, self.oc, *self.image, *self.kernel, *self.stride, *self.pads)
        extra = (*self.output_padding, *self.dilation, self.groups)
        return "_".join(["transposed", *map(str, (*numbers, *extra)), *self.epilogue])

    @property
    def out_size(self) -> tuple[int, int]:
        """(OH, OW)."""
        height, width = (
            (e - 1) * s + d * (k - 1) + 1 + extra - before - after
            for e, s, d, k, extra, before, after in zip(
                self.image,
                self.stride,
                self.dilation,
                self.kernel,
                self.output_padding,
                self.pads[:2],
                self.pads[2:],
                strict=True,
            )
        )
        return height, width

    def build(self, b: Builder) -> None:
        x = b.input(self.n, self.ic, *self.image)
        terms = self.ic // self.groups * math.prod(self.kernel) // math.prod(self.stride)
        y = b.node(
            "ConvTranspose",
            x,
            b.weights(self.ic, self.oc // self.groups, *self.kernel, terms=max(1, terms)),
            b.weights(self.oc),
            strides=self.stride,
            pads=self.pads,
            output_padding=self.output_padding,
            dilations=self.dilation,
            **({"group": self.groups} if self.groups > 1 else {}),
        )
        for step in self.epilogue:
            y = _epilogue(b, y, step, (self.n, self.oc, *self.out_size))
        b.outputs.append(y)


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


Workload = Conv2d | ConvTranspose2d | Pool2d | Dense | Network


def tolerance(workload: Workload) -> float:
    """max |difference| / max |reference| that the workload may show."""
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
    Conv2d(24, 112, (7, 9), (1, 1), groups=4, epilogue=("Relu",)),
    Conv2d(24, 114, (5, 7), (1, 1), groups=3),
    Conv2d(112, 136, (7, 5), (1, 1), groups=4, n=2, epilogue=("add:full", "Relu")),
    Conv2d(128, 128, (7, 9), groups=32, pads=SAME, epilogue=("Relu",)),
    Conv2d(64, 96, (9, 8), (3, 3), (2, 2), groups=32, pads=SAME, epilogue=("silu",), n=2),
    Conv2d(24, 48, (13, 9), (5, 5), groups=24, pads=(2, 2, 2, 2)),
    Conv2d(3, 6, (7, 9), groups=3, pads=(1, 0, 2, 1)),
    Conv2d(40, 20, (6, 9), (3, 2), (1, 2), (2, 1), groups=4, pads=(2, 1, 2, 1), epilogue=("leaky", "mul:nc11")),
    Conv2d(32, 20, (9, 11), dilation=(6, 8), pads=(6, 8, 6, 8), epilogue=("Relu",)),
    Conv2d(64, 24, (5, 7), dilation=(12, 12), pads=(12, 12, 12, 12), n=2),
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

TRANSPOSED = (
    ConvTranspose2d(20, 40, (7, 7), (4, 4), pads=SAME, epilogue=("Relu",)),
    ConvTranspose2d(16, 33, (6, 5), pads=SAME, output_padding=(1, 1), epilogue=("add:full", "Relu")),
    ConvTranspose2d(24, 16, (7, 9), (2, 2), n=2, epilogue=("silu",)),
    ConvTranspose2d(16, 24, (9, 8), stride=(1, 1), pads=SAME),
    ConvTranspose2d(16, 33, (6, 5), pads=SAME, epilogue=("mul:nc11",)),
    ConvTranspose2d(3, 8, (5, 6), stride=(1, 1), dilation=(2, 3), pads=(1, 0, 1, 0)),
    ConvTranspose2d(20, 33, (5, 7), (3, 2), (3, 1), (1, 0, 1, 0), (2, 0), n=3),
    ConvTranspose2d(320, 20, (4, 6), (4, 3), pads=SAME),
    ConvTranspose2d(8, 16, (1, 1), (5, 4), (2, 3), SAME, (1, 0)),
    ConvTranspose2d(8, 6, (4, 5), groups=2, epilogue=("Relu",)),
    ConvTranspose2d(8, 6, (4, 5), dilation=(2, 1)),
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
    Dense(197, 192, 33, ("Sigmoid",)),
    Dense(50, 768, 250),
    Dense(300, 20, 10),
)

WORKLOADS: tuple[Workload, ...] = (*CONVS, *DEPTHWISE, *TRANSPOSED, *POOLS, *DENSES, *NETWORKS)
