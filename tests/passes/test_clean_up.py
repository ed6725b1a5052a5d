"""All clean-up passes in the pipeline's order: few, large operators are left, and the numbers are ONNX Runtime's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import tvm

import evo_tvm
from evo_tvm.frontend import import_onnx
from evo_tvm.graph import Graph
from evo_tvm.pipeline import CLEAN_UP
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.read_relax import read_relax
from tests.onnx_builder import Builder
from tests.passes._check import calls, operators

#: max |difference| / max |reference|, of a few layers in float32
RTOL = 1e-5


def cleaned(b: Builder) -> tvm.IRModule:
    module = import_onnx(b.model()).module
    for step in CLEAN_UP:
        module = step(module)
    return module


def kernels(b: Builder) -> list[list[str]]:
    """The operators of each kernel but views."""
    graph: Graph = fuse_epilogues(read_relax(cleaned(b)))
    return [[op.kind for op in group.ops] for group in graph.groups if group.anchor.kind != "view"]


def assert_agrees(b: Builder) -> None:
    session = onnxruntime.InferenceSession(b.model().SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, b.inputs)
    with evo_tvm.compile(b.model()).module(num_threads=1) as module:
        got = list(module.run(b.inputs).values())
    for w, g in zip(wanted, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=RTOL * np.abs(w).max())


# ---- A transformer block, written in primitive operators as exporters did before there were larger ones ----

TOKENS, WIDTH, HEADS = 6, 16, 2


def layer_norm(b: Builder, x: str) -> str:
    centred = b.node("Sub", x, b.node("ReduceMean", x, axes=[-1]))
    variance = b.node("ReduceMean", b.node("Pow", centred, b.constant(2.0)), axes=[-1])
    normal = b.node("Div", centred, b.node("Sqrt", b.node("Add", variance, b.constant(1e-5))))
    return b.node("Add", b.node("Mul", normal, b.weights(WIDTH)), b.weights(WIDTH))


def linear(b: Builder, x: str, inner: int, outer: int) -> str:
    return b.node("Add", b.node("MatMul", x, b.weights(inner, outer, terms=inner)), b.weights(outer))


def softmax(b: Builder, x: str) -> str:
    exponential = b.node("Exp", b.node("Sub", x, b.node("ReduceMax", x, axes=[-1])))
    return b.node("Div", exponential, b.node("ReduceSum", exponential, b.constant([-1], "int64")))


def gelu(b: Builder, x: str, tanh: bool) -> str:
    if tanh:
        cube = b.node("Mul", b.node("Pow", x, b.constant(3.0)), b.constant(0.044715))
        inner = b.node("Tanh", b.node("Mul", b.node("Add", x, cube), b.constant(np.sqrt(2 / np.pi))))
    else:
        inner = b.node("Erf", b.node("Div", x, b.constant(np.sqrt(2))))
    return b.node("Mul", b.node("Mul", x, b.node("Add", inner, b.constant(1.0))), b.constant(0.5))


def attention(b: Builder, x: str) -> str:
    size = WIDTH // HEADS
    heads = b.node("Reshape", linear(b, x, WIDTH, 3 * WIDTH), b.constant([1, TOKENS, 3, HEADS, size], "int64"))
    heads = b.node("Transpose", heads, perm=[2, 0, 3, 1, 4])
    q, k, v = (b.node("Gather", heads, b.constant(i, "int64"), axis=0) for i in range(3))
    q = b.node("Mul", q, b.constant(size**-0.5))
    scores = softmax(b, b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2])))
    joined = b.node("Transpose", b.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    return linear(b, b.node("Reshape", joined, b.constant([1, TOKENS, WIDTH], "int64")), WIDTH, WIDTH)


def transformer(blocks: int = 1, tanh: bool = False) -> Builder:
    b = Builder()
    x = b.input(1, TOKENS, WIDTH)
    for _ in range(blocks):
        x = b.node("Add", x, attention(b, layer_norm(b, x)))
        hidden = gelu(b, linear(b, layer_norm(b, x), WIDTH, 4 * WIDTH), tanh)
        x = b.node("Add", x, linear(b, hidden, 4 * WIDTH, WIDTH))
    b.outputs.append(x)
    return b


@pytest.mark.parametrize("tanh", [False, True])
def test_a_transformer_block(tanh: bool) -> None:
    b = transformer(tanh=tanh)
    found = Counter(operators(cleaned(b)))
    del found["reshape"]  # which moves nothing
    # queries, keys, values, scores, their sum, projection, two of the MLP; a transpose of q, k, v and the result
    wanted = {"matmul": 8, "permute_dims": 4, "nn.layer_norm": 2, "nn.softmax": 1, "add": 8}
    assert found == {**wanted, "nn.gelu_tanh" if tanh else "nn.gelu": 1}
    assert_agrees(b)


def test_only_the_token_that_is_read_is_computed() -> None:
    b = transformer()
    first = b.node("Gather", b.outputs.pop(), b.constant(0, "int64"), axis=1)
    b.outputs.append(linear(b, layer_norm(b, first), WIDTH, 5))
    rows = [int(call.ty.shape[-2]) for call in calls(cleaned(b), "matmul")]
    assert sorted(rows) == [1] * 7 + [TOKENS] * 2  # keys and values are needed of all
    assert_agrees(b)


# ---- Images ----


def test_channels_last_layers_become_convolutions() -> None:
    """A ConvNeXt block: depthwise, then everything with the channels last, and a residual."""
    b = Builder()
    x = b.conv(b.input(1, 3, 5, 6), 3, WIDTH)
    y = b.node("Conv", x, b.weights(WIDTH, 1, 3, 3, terms=9), b.weights(WIDTH), pads=[1] * 4, group=WIDTH)
    y = layer_norm(b, b.node("Transpose", y, perm=[0, 2, 3, 1]))
    y = linear(b, gelu(b, linear(b, y, WIDTH, 4 * WIDTH), tanh=False), 4 * WIDTH, WIDTH)
    y = b.node("Mul", b.node("Transpose", y, perm=[0, 3, 1, 2]), b.weights(WIDTH, 1, 1))
    b.outputs.append(b.node("Add", x, y))
    found = kernels(b)
    assert [k for k in found if k[0] not in ("tir", "permute", "layer_norm")] == [
        ["conv2d", "add"],
        ["depthwise_conv2d", "add"],
        ["conv2d", "add", "gelu"],
        ["conv2d", "add", "add"],
    ]
    assert len(found) == 4 + 3  # the layer norm between two transposes
    assert_agrees(b)


def test_a_channels_last_model_has_transposes_at_its_ends_only() -> None:
    b = Builder()
    x = b.input(1, 5, 6, 3)

    def conv(x: str, inner: int, outer: int) -> str:
        y = b.node("Conv", b.node("Transpose", x, perm=[0, 3, 1, 2]), b.weights(outer, inner, 3, 3, terms=9 * inner))
        return b.node("Add", b.node("Transpose", y, perm=[0, 2, 3, 1]), b.weights(outer))

    y = b.node("Pad", conv(x, 3, 8), b.constant([0, 1, 1, 0, 0, 1, 1, 0], "int64"))
    b.outputs.append(b.node("ReduceMean", b.node("Relu", conv(b.node("Relu", y), 8, 8)), axes=[1, 2], keepdims=0))
    found = Counter(operators(cleaned(b)))
    assert found["permute_dims"] == 1
    assert found["nn.adaptive_avg_pool2d"] == 1
    assert_agrees(b)


def activated(b: Builder, name: str, x: str) -> str:
    if name == "hard-swish":
        clip = b.node("Clip", b.node("Add", x, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
        return b.node("Mul", x, b.node("Div", clip, b.constant(6.0)))
    if name == "HardSwish":
        return b.node("HardSwish", x)
    if name == "PRelu":
        return b.node("PRelu", x, b.weights(8, 1, 1))
    slope = b.node("Mul", b.node("Relu", b.node("Neg", x)), b.weights(8, 1, 1))
    return b.node("Sub", b.node("Relu", x), slope)


@pytest.mark.parametrize(
    ("name", "epilogue"),
    [
        ("hard-swish", ["add", "add", "clip", "multiply"]),
        ("HardSwish", ["add", "add", "clip", "multiply"]),
        ("PRelu", ["add", "prelu"]),
        ("prelu of parts", ["add", "prelu"]),
    ],
)
def test_activations_are_epilogues(name: str, epilogue: list[str]) -> None:
    b = Builder()
    x = activated(b, name, b.conv(b.input(1, 3, 5, 6), 3, 8))
    b.outputs.append(b.conv(x, 8, 8, 3, 1))
    assert kernels(b) == [["conv2d", *epilogue], ["conv2d", "add"]]
    assert_agrees(b)


def test_a_batch_norm_behind_a_concatenation_goes_into_the_convolutions() -> None:
    b = Builder()
    x = b.node("Relu", b.input(1, 3, 5, 6))
    joined = b.node("Concat", b.conv(x, 3, 16), b.conv(x, 3, 16, 3, 1), axis=1)
    variance = b.constant(np.abs(b.rng.standard_normal(32)) + 0.5)
    parameters = (b.weights(32), b.weights(32), b.weights(32), variance)
    b.outputs.append(b.node("Relu", b.node("BatchNormalization", joined, *parameters)))
    assert kernels(b) == [["relu"], ["conv2d", "add", "relu"], ["conv2d", "add", "relu"], ["concat"]]
    assert_agrees(b)


def test_a_batch_norm_between_padding_and_convolution() -> None:
    b = Builder()
    x = b.node("Pad", b.conv(b.input(1, 3, 5, 6), 3, 8), b.constant([0, 0, 1, 1, 0, 0, 1, 1], "int64"))
    variance = b.constant(np.abs(b.rng.standard_normal(8)) + 0.5)
    x = b.node("BatchNormalization", x, b.weights(8), b.weights(8), b.weights(8), variance)
    b.outputs.append(b.node("Conv", x, b.weights(8, 8, 3, 3, terms=72)))
    assert kernels(b) == [["conv2d", "add"], ["conv2d", "add"]]
    assert_agrees(b)
