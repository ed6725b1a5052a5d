from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evo_tvm.graph import Value
from evo_tvm.plan.merge_rescale import merge_rescale
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft
from tests.quantized_models import QuantizedBuilder, assert_same_bytes

FACTORS = np.array([0.01, 0.3, 7.0], np.float32).reshape(1, 3, 1, 1)


def rescaled(d: QuantizedDraft) -> str:
    """Integer sums times one factor for each channel."""
    sums = d.input("s", 1, 3, 4, 4)
    d.values[sums] = replace(d.values[sums], dtype="int32")
    if "f" not in d.values:
        d.values["f"] = Value("f", FACTORS.shape, "float32", FACTORS)
    return d.same("rescale", "r", sums, "f")


def test_one_factor_instead_of_two() -> None:
    d = QuantizedDraft()
    graph = merge_rescale(d.graph(d.quantize("q", rescaled(d), 0.3, 10)))
    assert kinds(graph) == ["rescale", "quantize"]
    rescale, quantize = graph.groups
    assert quantize.anchor.attrs == {"scale": 1.0, "zero_point": 10, "dtype": "uint8"}
    factor = graph.values[rescale.inputs[1]]
    assert factor.dtype == "float32" and factor.data is not None and factor.shape == FACTORS.shape
    assert np.array_equal(factor.data, (FACTORS.astype(np.float64) / 0.3).astype(np.float32))
    again = merge_rescale(graph)
    assert again == graph and np.array_equal(again.values[rescale.inputs[1]].data, factor.data)  # type: ignore[arg-type]


def test_two_layers_that_share_a_factor() -> None:
    d = QuantizedDraft()
    one = d.quantize("q", rescaled(d), 0.3)
    two = d.quantize("p", d.same("rescale", "t", "s", "f"), 0.7)
    graph = merge_rescale(d.graph(one, two))
    factors = [graph.values[g.inputs[1]].data for g in graph.groups if g.anchor.kind == "rescale"]
    for factor, scale in zip(factors, (0.3, 0.7), strict=True):
        assert np.allclose(factor, FACTORS / scale, rtol=1e-7)


@pytest.mark.parametrize("case", ["output", "other reader", "between"])
def test_it_must_not_fire(case: str) -> None:
    d = QuantizedDraft()
    r = rescaled(d)
    outputs = [d.quantize("q", d.same("relu", "a", r) if case == "between" else r)]
    if case == "output":
        outputs.append(r)
    if case == "other reader":
        outputs.append(d.same("exp", "e", r))
    assert merge_rescale(d.graph(*outputs)) == d.graph(*outputs)


def test_the_same_bytes_as_onnx_runtime() -> None:
    """With one reader, and where the sums are read in float, too."""
    b = QuantizedBuilder(2)
    x = b.image(1, 16, 6, 8)
    y = b.quantized_conv(x, 16, 24, 3)
    z = b.quantized_conv(x, 16, 24, 1)
    b.outputs = [b.quantized(y, 0.137, 99), b.quantized(b.node("Relu", z), 0.0731, 5)]
    assert_same_bytes(b)
