from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evo_tvm.graph import Graph
from evo_tvm.plan.move_quantize import move_quantize
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft
from tests.quantized_models import QuantizedBuilder, assert_same_bytes


def moved(d: QuantizedDraft, *outputs: str) -> Graph:
    """Of which each value has one maker, and more of the same changes nothing."""
    graph = move_quantize(d.graph(*outputs))
    made = [name for group in graph.groups for name in group.outputs]
    assert len(made) == len(set(made))
    assert move_quantize(graph) == graph
    return graph


def test_a_pooling_of_bytes() -> None:
    d = QuantizedDraft()
    x = d.input("x", 1, 8, 4, 4)
    graph = moved(d, d.quantize("q", d.pool("p", x)))
    assert kinds(graph) == ["quantize", "max_pool2d"]
    first, pool = graph.groups
    assert first.inputs == ("x",) and pool.inputs == first.outputs and pool.outputs == ("q",) == graph.outputs
    narrow = graph.values[pool.inputs[0]]
    assert (narrow.shape, narrow.dtype, narrow.zero) == ((1, 8, 4, 4), "uint8", 10)
    assert graph.values["q"].zero == 10


def test_a_concatenation_of_bytes_quantizes_each_operand() -> None:
    d = QuantizedDraft()
    graph = moved(d, d.quantize("q", d.concat("c", d.input("x", 1, 8, 4, 4), d.input("y", 1, 16, 4, 4)), 0.1, 3))
    assert kinds(graph) == ["quantize", "quantize", "concat"]
    assert [g.anchor.attrs for g in graph.groups[:2]] == [{"scale": 0.1, "zero_point": 3, "dtype": "uint8"}] * 2
    assert graph.values["q"].zero == 3, "what lies around the whole is zero, as it is around its parts"


def test_the_same_operand_twice_is_quantized_once() -> None:
    d = QuantizedDraft()
    x = d.input("x", 1, 8, 4, 4)
    graph = moved(d, d.quantize("q", d.concat("c", x, x)))
    assert kinds(graph) == ["quantize", "concat"]


def test_through_several_operators_until_it_meets_what_it_undoes() -> None:
    d = QuantizedDraft()
    x = d.dequantize("f", d.bytes("b", 1, 8, 4, 4))
    view = d.op("view", "v", [d.pool("p", x)], (1, 32))
    graph = moved(d, d.quantize("q", view))  # nobody reads the first one any more; inline_dequantize drops it
    assert kinds(graph) == ["dequantize", "max_pool2d", "view"]
    assert graph.groups[1].inputs == ("b",)
    assert {graph.values[g.output].dtype for g in graph.groups[1:]} == {"uint8"}


def test_it_undoes_a_dequantization_that_others_read() -> None:
    d = QuantizedDraft()
    f = d.dequantize("f", d.bytes("b", 1, 8, 4, 4))
    graph = moved(d, d.quantize("q", f), d.same("exp", "e", f))
    assert kinds(graph) == ["dequantize", "exp"] and graph.outputs == ("b", "e")


@pytest.mark.parametrize(("scale", "zero_point", "dtype"), [(0.25, 10, "uint8"), (0.5, 11, "uint8"), (0.5, 10, "int8")])
def test_it_undoes_no_other_dequantization(scale: float, zero_point: int, dtype: str) -> None:
    d = QuantizedDraft()
    f = d.dequantize("f", d.bytes("b", 1, 8, 4, 4))
    assert kinds(moved(d, d.quantize("q", f, scale, zero_point, dtype))) == ["dequantize", "quantize"]


@pytest.mark.parametrize(
    ("kind", "attrs", "zero_point", "dtype", "implied"),
    [
        ("relu", {}, 0, "uint8", True),
        ("relu", {}, -128, "int8", True),
        ("relu", {}, 10, "uint8", False),
        ("relu", {}, 0, "int8", False),
        ("clip", {"min": 0.0, "max": 6.0}, 0, "uint8", False),
        ("clip", {"min": 0.0, "max": 127.5}, 0, "uint8", True),
        ("clip", {"min": 0.0, "max": np.inf}, 0, "uint8", True),
        ("clip", {"min": -np.inf, "max": 122.5}, 10, "uint8", True),
        ("clip", {"min": -5.0, "max": 122.5}, 10, "uint8", True),
        ("clip", {"min": -4.0, "max": 122.5}, 10, "uint8", False),
        ("clip", {"min": -5.0, "max": 122.0}, 10, "uint8", False),
        ("exp", {}, 0, "uint8", False),
    ],
)
def test_activations_that_the_bounds_imply(
    kind: str, attrs: dict[str, Any], zero_point: int, dtype: str, implied: bool
) -> None:
    d = QuantizedDraft()
    a = d.same(kind, "a", d.input("x", 1, 8, 4, 4), **attrs)
    graph = moved(d, d.quantize("q", a, 0.5, zero_point, dtype))
    assert kinds(graph) == (["quantize"] if implied else [kind, "quantize"])
    assert graph.outputs == ("q",)


@pytest.mark.parametrize("case", ["output", "other reader", "average", "int8"])
def test_it_must_not_move(case: str) -> None:
    d = QuantizedDraft()
    p = d.pool("p", d.input("x", 1, 8, 4, 4), "avg_pool2d" if case == "average" else "max_pool2d")
    outputs = [d.quantize("q", p, dtype="int8" if case == "int8" else "uint8")]
    if case == "output":
        outputs.append(p)
    if case == "other reader":
        outputs.append(d.same("exp", "e", p))
    assert kinds(moved(d, *outputs))[:2] == ["avg_pool2d" if case == "average" else "max_pool2d", "quantize"]


def test_a_relu_that_others_read_stays() -> None:
    d = QuantizedDraft()
    r = d.same("relu", "r", d.input("x", 1, 8, 4, 4))
    assert kinds(moved(d, d.quantize("q", r, zero_point=0), d.same("exp", "e", r))) == ["relu", "quantize", "exp"]


def test_the_same_bytes_as_onnx_runtime() -> None:
    b = QuantizedBuilder(1)
    x = b.image(1, 16, 6, 8)
    y = b.quantized_conv(x, 16, 24, 3)
    pooled = b.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    twice = b.node("Concat", y, y, axis=1)
    rising = [b.node("Relu", y), b.node("Clip", y, b.constant(0.0)), b.node("Clip", y, "", b.constant(8.1))]
    b.outputs = [b.quantized(pooled, 0.211, 90), b.quantized(twice, 0.137, 120)]
    b.outputs += [b.quantized(v, 0.137, zero) for v, zero in zip(rising, (0, 0, 120), strict=True)]
    assert_same_bytes(b)
