"""Operators one by one: elementwise ones, reductions, gathers, transposes, products, resizes, in awkward shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.networks import NETWORKS, Network, Outputs, network, stem
from tests.onnx_builder import Builder

__all__ = ["NETWORKS", "Network"]


# ---- Elementwise and the default schedule ----


@network
def broadcasts(b: Builder) -> Outputs:
    x, row, column, point = b.input(3, 5, 7), b.input(7), b.input(5, 1), b.input(1, 1, 1)
    outer = b.node("Mul", b.input(4, 1), b.input(1, 9))
    return [
        b.node("Add", x, row),
        b.node("Sub", b.node("Mul", column, x), point),
        b.node("Div", x, b.node("Exp", x)),
        outer,
    ]


@network
def broadcasts_of_images(b: Builder) -> Outputs:
    x, y = stem(b, 16, 6, 2), b.input(2, 16, 1, 1)
    z = b.node("Add", y, b.input(1, 1, 6, 6))
    return [b.node("Mul", x, z), b.node("Max", y, x), b.node("Min", x, b.input(1, 1, 6, 1))]


@network
def scalars(b: Builder) -> Outputs:
    x = b.input()
    return [b.node("Exp", x), b.node("Add", x, b.input(1)), b.node("Mul", b.input(1, 1), x)]


@network
def activations(b: Builder) -> Outputs:
    x = b.input(3, 37)
    names = (
        "Erf",
        "Exp",
        "Neg",
        "Abs",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "HardSwish",
        "Softplus",
        "Elu",
        "Floor",
        "Sign",
    )
    logs = [b.node(op, b.node("Abs", x)) for op in ("Log", "Sqrt")]
    return [*(b.node(op, x) for op in names), *logs, b.node("PRelu", x, b.weights(37))]


@network
def prelu_of_channels(b: Builder) -> Outputs:
    return b.conv(b.node("PRelu", stem(b, 20), b.weights(20, 1, 1)), 20, 8)


@network
def softmaxes(b: Builder) -> Outputs:
    return [b.node("Softmax", b.input(3, 5, 13), axis=a) for a in (0, 1, 2)] + [b.node("Softmax", stem(b, 20), axis=1)]


@network
def reductions(b: Builder) -> Outputs:
    x = b.input(3, 13, 29)
    kinds = ("ReduceSum", "ReduceMax", "ReduceL2", "ReduceProd", "ReduceMean")
    done = [b.node("ReduceMean", x, axes=[a], keepdims=0) for a in (0, 1, 2)]
    return [
        *done,
        *(b.node(k, b.input(4, 6)) for k in kinds),
        b.node("ArgMax", x, axis=1),
    ]


@network
def integers_and_truths(b: Builder) -> Outputs:
    i, j, t = b.input(3, 7, dtype="int64"), b.input(7, dtype="int64"), b.input(3, 7, dtype="bool")
    x, y = b.input(3, 7), b.input(3, 7)
    one = b.constant(1, "int64")
    numbers = [b.node("Add", i, j), b.node("Mul", i, i), b.node("Div", i, b.node("Add", j, one)), b.node("Sub", j, one)]
    truths = [b.node("Less", x, y), b.node("Not", t), b.node("And", t, b.node("Greater", x, y)), b.node("Equal", i, j)]
    return [*numbers, *truths, b.node("Where", t, x, y), b.node("Cast", i, to=1), b.node("Cast", x, to=7), t, i]


@network
def large_integers(b: Builder) -> Outputs:
    i, large = b.input(3, 7, dtype="int64"), b.constant(2**40 + 3, "int64")
    return [b.node("Mul", i, large), b.node("Less", b.node("Add", i, large), b.constant(2**40 + 5, "int64"))]


@network
def gathers(b: Builder) -> Outputs:
    x = b.input(5, 7, 3)
    places = b.input(2, 4, dtype="int64")
    picked = b.node(
        "Slice",
        x,
        b.constant([1, 0], "int64"),
        b.constant([5, 7], "int64"),
        b.constant([0, 1], "int64"),
        b.constant([2, 3], "int64"),
    )
    return [
        b.node("Gather", x, places),
        picked,
        b.node("Tile", x, b.constant([1, 2, 3], "int64")),
        b.node("Pad", x, b.constant([0, 1, 2, 0, 3, 1], "int64")),
    ]


@network
def splits(b: Builder) -> Outputs:
    names = [b.name() for _ in range(2)]
    x = stem(b, 32)
    from onnx import helper

    b.nodes.append(helper.make_node("Split", [x], names, axis=1))
    return b.node("Add", b.conv(names[0], 16, 16, 3, 1), names[1])


@network
def half_precision(b: Builder) -> Outputs:
    x = b.input(3, 16, dtype="float16")
    return b.node("Cast", b.node("Relu", b.node("Add", x, x)), to=1)


@network
def resize_and_unpool(b: Builder) -> Outputs:
    x = stem(b, 16, 4)
    up = b.node("Resize", x, "", b.constant([1, 1, 2, 2]), mode="nearest")
    return b.conv(b.node("Concat", up, b.conv(up, 16, 16, 3, 1), axis=1), 32, 8, 3, 1)


@network
def transposed_and_one_dimensional_convolutions(b: Builder) -> Outputs:
    x = stem(b, 16, 4)
    up = b.node("ConvTranspose", x, b.weights(16, 8, 2, 2, terms=64), strides=[2, 2])
    return [b.node("Relu", up), b.node("Conv", b.input(1, 4, 13), b.weights(8, 4, 3, terms=12), pads=[1, 1])]


@network
def matmul_of_two_inputs(b: Builder) -> Outputs:
    attention = b.node("MatMul", b.input(2, 3, 5, 7), b.input(2, 3, 7, 6))
    return [
        b.node("Softmax", attention),
        b.node("MatMul", b.input(2, 5, 8), b.weights(8, 33, terms=8)),
        b.node("MatMul", b.input(8), b.weights(8, 3)),
    ]


@network
def dense_with_operands(b: Builder) -> Outputs:
    def dense() -> str:
        return b.node("MatMul", b.input(2, 3, 8), b.weights(8, 6, terms=8))

    operands = [
        b.input(2, 3, 6),
        b.input(6),
        b.input(1, 1, 6),
        b.input(1),
        b.input(3, 1),
        b.input(2, 1, 1),
        b.input(3, 6),
    ]
    return [b.node("Add", dense(), x) for x in operands]


# ---- Attention and what stands around it ----


def _heads(b: Builder, x: str, n: int, tokens: int, heads: int, width: int, perm: Sequence[int]) -> str:
    x = b.node("Add", b.node("MatMul", x, b.weights(heads * width, heads * width, terms=heads * width)), b.input(1))
    split = b.constant(np.array([n, tokens, heads, width]), "int64")
    return b.node("Transpose", b.node("Reshape", x, split), perm=list(perm))


@network
def attention(b: Builder) -> Outputs:
    n, tokens, heads, width = 2, 19, 3, 11
    x = b.input(n, tokens, heads * width)
    norm = b.node("LayerNormalization", x, b.weights(heads * width), b.weights(heads * width), axis=-1)
    q, v = (_heads(b, norm, n, tokens, heads, width, (0, 2, 1, 3)) for _ in range(2))
    k = _heads(b, norm, n, tokens, heads, width, (0, 2, 3, 1))
    scores = b.node("Div", b.node("MatMul", q, k), b.constant(width**0.5))
    scores = b.node("Add", scores, b.input(n, 1, 1, tokens))
    y = b.node("Transpose", b.node("MatMul", b.node("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    y = b.node("Reshape", y, b.constant(np.array([n, tokens, -1]), "int64"))
    return b.node("Add", b.node("Tanh", y), x)


@network
def products_of_transposes_with_other_readers(b: Builder) -> Outputs:
    x = b.input(2, 3, 5, 7)
    turned = b.node("Transpose", x, perm=[0, 1, 3, 2])
    product = b.node("MatMul", x, turned)
    return [turned, product, b.node("Transpose", product, perm=[1, 0, 3, 2]), b.node("MatMul", turned, x)]


@network
def products_of_broadcast_batches(b: Builder) -> Outputs:
    x = b.input(2, 3, 5, 7)
    return [
        b.node("MatMul", x, b.input(7, 18)),
        b.node("MatMul", b.input(4, 5), x),
        b.node("MatMul", x, b.input(3, 7, 1)),
        b.node("MatMul", b.input(2, 1, 6, 5), x),
        b.node("MatMul", b.weights(6, 5), x),
        b.node("MatMul", x, b.weights(3, 7, 20)),
    ]


@network
def products_with_operands_behind_them(b: Builder) -> Outputs:
    x = b.node("MatMul", b.input(2, 3, 5, 7), b.input(2, 3, 7, 20))
    y = b.node("Mul", b.node("Add", x, b.input(3, 1, 20)), b.input(2, 3, 5, 20))
    return b.node("Transpose", b.node("Relu", y), perm=[0, 2, 1, 3])


@network
def transposes(b: Builder) -> Outputs:
    x = b.input(3, 5, 7, 20)
    orders = [(0, 2, 1, 3), (3, 2, 1, 0), (0, 1, 3, 2), (1, 2, 3, 0)]
    return [b.node("Sigmoid", b.node("Transpose", x, perm=list(p))) for p in orders]


# ---- Shuffled channels, and normalization across channels ----


def _shuffled(b: Builder, x: str, n: int, channels: int, size: int, groups: int) -> str:
    apart = b.constant(np.array([n, groups, channels // groups, size, size]), "int64")
    together = b.constant(np.array([n, channels, size, size]), "int64")
    x = b.node("Transpose", b.node("Reshape", x, apart), perm=[0, 2, 1, 3, 4])
    return b.node("Reshape", x, together)


@network
def shuffles_of_blocked_channels(b: Builder) -> Outputs:
    outputs = []
    for n, channels, groups in ((1, 24, 3), (2, 32, 4), (2, 33, 11)):
        x = _shuffled(b, stem(b, channels, 6, n), n, channels, 6, groups)
        outputs += [b.conv(x, channels, 16, 3, 1), b.node("Relu", x)]
    return outputs


@network
def shuffle_of_an_input(b: Builder) -> Outputs:
    return b.node("Relu", _shuffled(b, b.input(2, 6, 5, 5), 2, 6, 5, 3))


@network
def shuffle_into_a_concat(b: Builder) -> Outputs:
    x = stem(b, 32)
    return b.conv(b.node("Concat", x, _shuffled(b, b.node("Relu", x), 1, 32, 6, 2), axis=1), 64, 8, 3, 1)


@network
def local_response_normalization(b: Builder) -> Outputs:
    x = stem(b, 20)
    across = b.node("LRN", x, size=5, alpha=0.5, beta=0.75, bias=2.0)
    return [b.conv(across, 20, 8), b.node("LRN", b.input(2, 7, 5, 3), size=3, alpha=0.9)]


# ---- Ranges of channels, and pixels several times ----


@network
def slices_of_channels(b: Builder) -> Outputs:
    def part(x: str, begin: int, end: int) -> str:
        return b.node("Slice", x, *(b.constant(np.array([e]), "int64") for e in (begin, end, 1)))

    x = stem(b, 32, 6, 2)
    odd = part(stem(b, 40, 6, 2), 24, 40)
    y = b.node("Add", b.node("Sigmoid", part(x, 0, 16)), part(x, 16, 32))
    return [
        b.conv(y, 16, 8, 3, 1),
        b.conv(b.node("Concat", part(x, 16, 32), odd, axis=1), 32, 8, 3, 1),
        b.node("Exp", part(x, 5, 9)),
        b.conv(b.node("Relu", part(x, 29, 32)), 3, 8, 3, 1),
        part(b.input(2, 9, 5, 5), -4, 9),
    ]


@network
def pixels_several_times(b: Builder) -> Outputs:
    def larger(x: str, rows: float, columns: float) -> str:
        scales = b.constant(np.array([1, 1, rows, columns]))
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return b.node("Resize", x, "", scales, **how)

    x = stem(b, 32, 6, 2)
    y = b.node("Concat", larger(stem(b, 20, 3, 2), 2, 2), x, axis=1)
    z = b.node("Concat", larger(b.node("Relu", x), 2, 3), b.conv(b.input(2, 5, 12, 18), 5, 16), axis=1)
    return [b.conv(y, 52, 8, 3, 1), b.conv(z, 48, 8, 3, 1), larger(b.input(1, 3, 4, 5), 3, 1), larger(x, 1.5, 1)]
