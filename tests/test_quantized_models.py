"""Small networks in QDQ form: the bytes of ONNX Runtime, but for one in a thousand that is rounded the other way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evo_tvm.schedules import common
from tests.quantized_models import QuantizedBuilder, compiled, in_onnx_runtime, quanta_apart

#: Of the bytes of an output.
SHARE_EQUAL = 0.999


def plain_blocks(b: QuantizedBuilder) -> list[str]:
    """Three channels, a wide window, a pointwise layer, channels that fill no block."""
    x = b.layer(b.image(1, 3, 21, 18), 3, 24, 7, strides=[2, 2], relu=True)
    return [b.layer(b.layer(x, 24, 20, 1), 20, 33, 3, pads=[0, 1, 2, 0])]


def residual(b: QuantizedBuilder) -> list[str]:
    """Both sums are read by padded convolutions, have other zero points, and may be written over what they add."""
    x = b.layer(b.image(2, 16, 9, 7), 16, 16, 3, zero=113)
    linear = b.quantized(b.node("Add", x, b.layer(x, 16, 16, 3, zero=100)), 0.3137, 9)
    positive = b.node("Relu", b.node("Add", b.layer(linear, 16, 16, 3, zero=3), linear))
    return [b.layer(b.quantized(positive, 0.2113), 16, 24, 3)]


def bottleneck(b: QuantizedBuilder) -> list[str]:
    """An inverted residual block with ReLU6, as MobileNetV2 has them."""
    x = b.layer(b.image(1, 24, 8, 10), 24, 24, 1, zero=120)
    wide = b.node("Clip", b.quantized_conv(x, 24, 72, 1), b.constant(0.0), b.constant(6.0))
    wide = b.quantized(wide, 6 / 255)
    deep = b.node("Clip", b.quantized_conv(wide, 72, 72, 3, group=72), b.constant(0.0), b.constant(6.0))
    y = b.layer(b.quantized(deep, 6 / 255), 72, 24, 1, zero=131)
    return [b.quantized(b.node("Add", x, y), 0.1371, 125)]


def inception(b: QuantizedBuilder) -> list[str]:
    """Parts of other scales, which are concatenated; some fill whole blocks, some do not."""
    x = b.image(1, 16, 9, 7)
    joined = []
    for first, second in ((16, 32), (10, 7)):
        parts = b.layer(x, 16, first, 3, zero=113), b.layer(x, 16, second, 1, zero=20)
        whole = b.quantized(b.node("Concat", *parts, axis=1), 0.2131, 60)
        joined.append(b.layer(whole, first + second, 16, 3))
    return joined


def parts_with_readers(b: QuantizedBuilder) -> list[str]:
    """A part is read by a padded convolution, the whole by none that pads."""
    x = b.image(1, 16, 9, 7)
    y, z = (b.quantized(b.quantized_conv(x, 16, 16, 3), 0.2131, 60) for _ in range(2))
    whole = b.quantized(b.node("Concat", y, z, axis=1), 0.2131, 60)
    return [b.layer(whole, 32, 16, 1), b.layer(y, 16, 16, 3), whole]


def pooling(b: QuantizedBuilder) -> list[str]:
    """Of a value that a padded convolution reads, too, so that it lies in a border of 113."""
    y = b.layer(b.image(2, 16, 9, 7), 16, 24, 3, zero=113)
    around = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    pooled = [
        b.node("MaxPool", y, **around),
        b.node("AveragePool", y, **around, count_include_pad=0),
        b.node("AveragePool", y, **around, count_include_pad=1),
        b.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        b.node("GlobalAveragePool", y),
    ]
    scales = (b.steps[y].scale, 0.19171, 0.17331, 0.21113, 0.03791)
    return [b.layer(y, 24, 16, 3), *(b.quantized(p, scale, 113) for p, scale in zip(pooled, scales, strict=True))]


def resizing(b: QuantizedBuilder) -> list[str]:
    """Each pixel four times, beside another branch, as detectors do it."""
    y = b.layer(b.image(1, 16, 5, 7), 16, 16, 3, zero=113)
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    up = b.quantized(b.node("Resize", y, "", b.constant([1, 1, 2, 2]), **nearest), b.steps[y].scale, 113)
    beside = b.quantized(b.quantized_conv(up, 16, 16, 3), b.steps[y].scale, 113)
    whole = b.quantized(b.node("Concat", up, beside, axis=1), b.steps[y].scale, 113)
    return [b.layer(whole, 32, 16, 1), b.layer(up, 16, 16, 3)]


def activations(b: QuantizedBuilder) -> list[str]:
    """Of float operators between bytes."""
    x = b.layer(b.image(1, 16, 6, 6), 16, 24, 3)
    y = b.quantized_conv(x, 24, 24, 3)
    swish = b.quantized(b.node("Mul", y, b.node("Sigmoid", y)), 0.0917, 3)
    leaky = b.quantized(b.node("LeakyRelu", b.quantized_conv(swish, 24, 24, 1), alpha=0.1), 0.0523, 30)
    return [swish, leaky]


def bytes_in(b: QuantizedBuilder) -> list[str]:
    """The caller's bytes, in a border of 30; and pooled, which no other operator reads."""
    x = b.dequantized(b.bytes(1, 16, 8, 8), 0.1, 30)
    y = b.dequantized(b.bytes(1, 16, 8, 8, dtype="int8"), 0.1, 3, "int8")
    layers = [b.layer(x, 16, 16, 3)]
    pooled = [b.node("AveragePool", v, kernel_shape=[2, 2], strides=[2, 2]) for v in (x, y)]
    pooled.append(b.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    return layers + [b.quantized(v, 0.0917, 90) for v in pooled]


NETWORKS: list[Callable[[QuantizedBuilder], list[str]]] = [
    *(plain_blocks, residual, bottleneck, inception, parts_with_readers, pooling, resizing, activations, bytes_in),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_the_bytes_of_onnx_runtime(
    network: Callable[[QuantizedBuilder], list[str]], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if threads > 1:
        monkeypatch.setattr(common, "PARALLEL_WORK", 1)
        monkeypatch.setenv("EVO_TVM_CACHE", "off")  # it does not know of what is patched here
    b = QuantizedBuilder(11)
    b.outputs = network(b)
    for name, apart in zip(b.outputs, quanta_apart(b, lambda b: compiled(b, num_threads=threads)), strict=True):
        assert apart.max() <= 1 and np.mean(apart == 0) >= SHARE_EQUAL, name


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("x86-64-v4", marks=pytest.mark.isa("avx512f", "avx512vl", "avx512bw", "avx512dq")),
        pytest.param("x86_64-linux-gnu+avx2+fma", marks=pytest.mark.isa("avx2", "fma")),
        pytest.param("x86-64-v2", marks=pytest.mark.isa("sse4.2")),
    ],
)
def test_other_instruction_sets(target: str) -> None:
    b = QuantizedBuilder(12)
    b.outputs = [name for network in (plain_blocks, residual, bottleneck) for name in network(b)]
    for name, apart in zip(b.outputs, quanta_apart(b, lambda b: compiled(b, target)), strict=True):
        assert apart.max() <= 1 and np.mean(apart == 0) >= SHARE_EQUAL, name


def test_bytes_in_and_out() -> None:
    """What only stands between a dequantization and the quantization that undoes it is the caller's bytes."""
    for dtype in ("uint8", "int8"):
        b = QuantizedBuilder(13)
        x = b.dequantized(b.bytes(1, 16, 8, 8, dtype=dtype), 0.1, 30, dtype)
        pooled = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        layer = b.quantized_conv(x, 16, 16, 3)
        steps = b.constant(0.1), b.constant(30, dtype)
        b.outputs = [b.node("QuantizeLinear", v, *steps) for v in (x, pooled, b.node("Concat", x, x, axis=1))]
        b.outputs.append(b.node("QuantizeLinear", layer, b.constant(0.3137), b.constant(7, dtype)))
        for got, wanted in zip(compiled(b), in_onnx_runtime(b), strict=True):
            assert got.dtype == np.dtype(dtype) and np.array_equal(got, wanted)
