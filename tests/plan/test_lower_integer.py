"""Convolutions and means of bytes; dense layers have a file of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evo_tvm.graph import Graph, Value
from evo_tvm.plan.lower_integer import lower_integer
from evo_tvm.target import resolve
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft
from tests.quantized_models import QuantizedBuilder, assert_same_bytes, graph_of

TARGET = resolve("x86-64-v3")
CODES = np.random.default_rng(0).integers(-127, 128, (8, 16, 3, 3)).astype(np.int8)
SCALES = [0.01 * (1 + i) for i in range(8)]


def reason(d: QuantizedDraft, *outputs: str) -> str:
    """Why the one layer stays as it is."""
    graph, stayed = lower_integer(d.graph(*outputs), TARGET)
    assert graph == d.graph(*outputs)
    ((found),) = stayed
    return found.reason


def lowered(d: QuantizedDraft, *outputs: str) -> Graph:
    graph, stayed = lower_integer(d.graph(*outputs), TARGET)
    assert not stayed
    again, stayed = lower_integer(graph, TARGET)
    assert again == graph and not stayed
    return graph


def data(d: QuantizedDraft, dtype: str = "uint8", channels: int = 16, zero_point: int = 10) -> str:
    return d.dequantize("f", d.bytes("b", 1, channels, 5, 5, dtype=dtype), 0.5, zero_point)


def bias(d: QuantizedDraft, *shape: int) -> str:
    values = np.linspace(-9, 9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    d.values["c"] = Value("c", shape, "float32", values)
    return "c"


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [0.25, SCALES])
def test_a_convolution(scale: float | list[float], biased: bool) -> None:
    d = QuantizedDraft()
    y = d.integer_conv("y", data(d), d.weights("w", CODES, scale))
    if biased:
        y = d.same("add", "z", y, bias(d, 1, 8, 1, 1))
    graph = lowered(d, y)
    assert kinds(graph) == ["dequantize", "conv2d", "add", "rescale"] and graph.outputs == (y,)
    conv, add, rescale = graph.groups[1:]
    weight, start, factor = (graph.values[g.inputs[1]] for g in (conv, add, rescale))
    assert [v.dtype for v in (weight, start, factor)] == ["int8", "int32", "float32"]
    assert [graph.values[g.output].dtype for g in (conv, add, rescale)] == ["int32", "int32", "float32"]
    assert conv.inputs[0] == "b" and graph.values["b"].zero == 10, "what lies around the image stands for zero"
    assert weight.data is not None and np.array_equal(weight.data, CODES)
    step = 0.5 * np.broadcast_to(np.asarray(scale, np.float32).astype(np.float64), (8,))
    added = np.linspace(-9, 9, 8, dtype=np.float32) if biased else np.zeros(8)
    wanted = np.rint(added / step) - 10 * CODES.astype(np.int64).sum(axis=(1, 2, 3))
    assert start.data is not None and np.array_equal(start.data.ravel(), wanted)
    assert factor.data is not None and np.array_equal(factor.data.ravel(), step.astype(np.float32))


def test_weights_in_unsigned_bytes_around_128() -> None:
    d = QuantizedDraft()
    shifted = (CODES.astype(np.int16) + 128).astype(np.uint8)
    graph = lowered(d, d.integer_conv("y", data(d), d.weights("w", shifted, zero_point=128)))
    weight = graph.values[graph.groups[1].inputs[1]].data
    assert weight is not None and weight.dtype == np.int8 and np.array_equal(weight, CODES)


def test_a_depthwise_convolution() -> None:
    d = QuantizedDraft()
    graph = lowered(d, d.integer_conv("y", data(d, channels=8), d.weights("w", CODES[:, :1], SCALES), groups=8))
    assert kinds(graph) == ["dequantize", "depthwise_conv2d", "add", "rescale"]


@pytest.mark.parametrize("case", ["output", "other reader", "activations", "one for each row", "one for all"])
def test_what_is_no_bias_is_added_in_float(case: str) -> None:
    d = QuantizedDraft()
    y = d.integer_conv("y", data(d), d.weights("w", CODES))
    shapes = {"activations": (1, 8, 5, 5), "one for each row": (1, 1, 5, 1), "one for all": (1, 1, 1, 1)}
    shape = shapes.get(case, (1, 8, 1, 1))
    outputs = [d.same("add", "z", y, d.input("a", *shape) if case == "activations" else bias(d, *shape))]
    if case == "output":
        outputs.append(y)
    if case == "other reader":
        outputs.append(d.same("exp", "e", y))
    graph = lowered(d, *outputs)
    assert kinds(graph)[:5] == ["dequantize", "conv2d", "add", "rescale", "add"]
    assert graph.groups[3].outputs == ("y",) and graph.groups[4] == next(g for g in d.groups if g.name == "z")


@pytest.mark.parametrize("kind", ["avg_pool2d", "global_avg_pool2d"])
def test_a_mean_is_one_of_bytes(kind: str) -> None:
    d = QuantizedDraft()
    x = data(d)
    y = d.pool("y", x, kind) if kind == "avg_pool2d" else d.op(kind, "y", [x], (1, 16, 1, 1))
    graph = lowered(d, y)
    assert kinds(graph) == ["dequantize", kind, "dequantize"]
    mean, after = graph.groups[1:]
    assert mean.inputs == ("b",) and graph.values[mean.output].dtype == "float32" and after.outputs == ("y",)
    assert after.anchor.attrs == {"scale": 0.5, "zero_point": 10}


def test_why_a_layer_stays_in_float() -> None:
    for dtype, wanted in (("int8", "its input is int8"),):
        d = QuantizedDraft()
        assert reason(d, d.integer_conv("y", data(d, dtype), d.weights("w", CODES))) == wanted
        d = QuantizedDraft()
        assert reason(d, d.pool("y", data(d, dtype), "avg_pool2d")) == wanted
    d = QuantizedDraft()
    assert "weights are float" in reason(d, d.integer_conv("y", data(d), d.constant("w", 8, 16, 3, 3)))
    for codes, zero_point in ((CODES, 1), (CODES.view(np.uint8), 0), (CODES.view(np.uint8), 127)):
        d = QuantizedDraft()
        assert "asymmetric" in reason(d, d.integer_conv("y", data(d), d.weights("w", codes, 0.25, zero_point)))
    d = QuantizedDraft()
    assert "int16" in reason(d, d.integer_conv("y", data(d), d.weights("w", CODES.astype(np.int16))))
    d = QuantizedDraft()
    along_input = d.weights("w", CODES, [0.1] * 16, axis=1)
    assert "several scales" in reason(d, d.integer_conv("y", data(d), along_input))
    for scale in (0.0, -0.25):
        d = QuantizedDraft()
        uneven = d.weights("w", CODES, [*SCALES[:-1], scale])
        assert "not positive" in reason(d, d.integer_conv("y", data(d), uneven))
    d = QuantizedDraft()
    y = d.integer_conv("y", data(d, channels=8), d.weights("w", CODES[:, :1]), groups=8, dilation=(1, 2))
    assert "dilation" in reason(d, y)
    d = QuantizedDraft()
    y = d.integer_conv("y", data(d, channels=64), d.weights("w", CODES), groups=4)
    assert "groups" in reason(d, y)
    d = QuantizedDraft()
    assert "padding" in reason(d, d.pool("y", data(d), "avg_pool2d", count_include_pad=True, padding=(1, 1, 0, 0)))


def test_a_float_layer_is_not_mentioned() -> None:
    d = QuantizedDraft()
    d.integer_conv("y", d.input("x", 1, 16, 5, 5), d.weights("w", CODES))
    assert lower_integer(d.graph("y"), TARGET) == (d.graph("y"), ())


@pytest.mark.parametrize(("terms", "fits"), [(65793, True), (65794, False)])
def test_sums_must_fit_32_bits(terms: int, fits: bool) -> None:
    """255 * 128 * 65,793 is the largest that is less than 2^31."""
    d = QuantizedDraft()
    x = d.dequantize("f", d.bytes("b", 1, terms, 1, 1), zero_point=0)
    y = d.integer_conv("y", x, d.weights("w", np.full((1, terms, 1, 1), -128, np.int8)), padding=0)
    if fits:
        assert kinds(lowered(d, y))[1] == "conv2d"
    else:
        assert "32 bits" in reason(d, y)


def test_a_bias_must_fit_32_bits() -> None:
    d = QuantizedDraft()
    y = d.integer_conv("y", data(d), d.weights("w", CODES, 1e-9))
    assert "32 bits" in reason(d, d.same("add", "z", y, bias(d, 1, 8, 1, 1)))


def test_bytes_with_two_zero_points() -> None:
    """Their border can only have one."""
    d = QuantizedDraft()
    one = d.integer_conv("y", data(d), d.weights("w", CODES))
    two = d.integer_conv("z", d.dequantize("g", "b", 0.5, 200), "w")
    graph, stayed = lower_integer(d.graph(one, two), TARGET)
    assert graph == d.graph(one, two)
    assert [s.reason for s in stayed] == ["its input is read with several zero points"] * 2
    assert [s.layer for s in stayed] == ["y", "z"] and {s.operator for s in stayed} == {"conv2d"}


def test_what_the_frontend_reads_is_lowered() -> None:
    """Scales for each channel and for all, with and without a bias, transposed or not: nothing stays in float."""
    b = QuantizedBuilder(3)
    x = b.image(2, 16, 5, 6)
    layers = [b.quantized_conv(x, 16, 24, 3, each=each, bias=some) for each in (0, 1) for some in (0, 1)]  # type: ignore[arg-type]
    layers.append(b.quantized_conv(x, 16, 16, 3, group=16))
    b.outputs = [b.quantized(y, 0.1373, 77) for y in layers]
    graph, stayed = lower_integer(graph_of(b), TARGET)
    assert not stayed
    sums = [g for g in graph.groups if g.anchor.kind in ("conv2d", "depthwise_conv2d")]
    assert len(sums) == 5 and {graph.values[g.output].dtype for g in sums} == {"int32"}


SHAPES = [  # in, out, kernel, attributes
    (16, 16, 3, {}),
    (3, 19, 7, {"strides": [2, 2]}),
    (1, 8, 3, {}),
    (5, 7, 3, {"pads": [2, 0, 1, 3]}),
    (24, 24, 3, {"dilations": [2, 1]}),
    (20, 40, 1, {}),
    (48, 48, 3, {"group": 48}),
    (20, 20, 5, {"group": 20, "strides": [2, 1], "pads": [0, 3, 2, 1]}),
    (32, 32, 3, {"group": 2}),
    (24, 24, 3, {"group": 4}),
]


@pytest.mark.parametrize("zero", [0, 120, 255])
def test_the_same_bytes_as_onnx_runtime(zero: int) -> None:
    b = QuantizedBuilder(zero)
    for ic, oc, k, attrs in SHAPES:
        x = b.image(2, ic, 9, 7, zero=zero)
        b.outputs.append(b.layer(x, ic, oc, k, **attrs))
    assert_same_bytes(b)


def test_int8_activations_as_onnx_runtime() -> None:
    b = QuantizedBuilder(8)
    x = b.quantized(b.input(1, 16, 7, 7), 0.031, 5, "int8")
    y = b.quantized(b.quantized_conv(x, 16, 16, 3), 0.31, -10, "int8")
    q = b.dequantized(b.bytes(1, 16, 7, 7, dtype="int8"), 0.0311, 3, "int8")  # stays float, for it is an input
    b.outputs = [b.quantized(b.quantized_conv(y, 16, 16, 3), 0.93, 3, "int8"), b.quantized(q, 0.071, 100)]
    assert_same_bytes(b)


def test_codes_decide_not_what_they_stand_for() -> None:
    """The float weights beside the codes are not read any more."""
    d = QuantizedDraft()
    y = d.integer_conv("y", data(d), d.weights("w", CODES))
    d.values["w"] = replace(d.values["w"], data=np.zeros(CODES.shape, np.float32))
    graph = lowered(d, y)
    assert np.array_equal(graph.values[graph.groups[1].inputs[1]].data, CODES)  # type: ignore[arg-type]
    assert "w" not in graph.values
