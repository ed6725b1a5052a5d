from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from evo_tvm.graph import Graph
from evo_tvm.plan.fold_scales import fold_scales
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft

NUMPY: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "clip": lambda x, min, max: np.clip(x, min, max),
    "dequantize": lambda q, scale, zero_point: (q.astype(np.float64) - zero_point) * scale,
    "leaky_relu": lambda x, alpha: np.where(x > 0, x, x * alpha),
    "maximum": np.maximum,
    "multiply": np.multiply,
    "quantize": lambda x, scale, zero_point, dtype: np.clip(np.rint(x / scale) + zero_point, 0, 255).astype(dtype),
    "relu": lambda x: np.maximum(x, 0),
    "rescale": np.multiply,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "subtract": np.subtract,
}


class Sums(QuantizedDraft):
    """Sums of a layer in integers, and operators behind them."""

    def rescaled(self, name: str, channels: int = 8) -> str:
        sums = self.input(f"{name}_sums", 1, channels, 4, 4)
        factors = self.constant(f"{name}_factors", 1, channels, 1, 1)
        self.values[factors].data[...] = (self.values[factors].data + 1) / 1000  # type: ignore[index]
        return self.same("rescale", name, sums, factors)

    def number(self, name: str, value: float) -> str:
        self.constant(name)
        self.values[name].data[...] = value  # type: ignore[index]
        return name


def folded(d: Sums, *outputs: str) -> Graph:
    """Which gives the same bytes, but for what lies half way between two, and has no division."""
    before = d.graph(*outputs)
    graph = fold_scales(before)
    assert fold_scales(graph) == graph
    assert all(g.anchor.attrs["scale"] == 1 for g in graph.groups if g.anchor.kind == "quantize")
    random = np.random.default_rng(0)
    feed = {
        name: random.integers(-3000, 3000, before.values[name].shape).astype(np.float64)
        if before.values[name].dtype == "float32"
        else random.integers(0, 256, before.values[name].shape).astype(np.uint8)
        for name in before.inputs
    }
    for expected, got in zip(run(before, feed), run(graph, feed), strict=True):
        assert np.abs(expected.astype(int) - got.astype(int)).max() <= 1
        assert np.mean(expected == got) > 0.99
        assert len(np.unique(expected)) > 20
    return graph


def run(graph: Graph, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    values = dict(feed) | {name: value.data for name, value in graph.values.items() if value.data is not None}
    for group in graph.groups:
        operands = [values[group.inputs[a]] for a in group.anchor.args]
        values[group.output] = NUMPY[group.anchor.kind](*operands, **group.anchor.attrs)
    return [values[name] for name in graph.outputs]


def test_into_the_scales_of_a_layer() -> None:
    d = Sums()
    graph = folded(d, d.quantize("q", d.rescaled("x"), 0.01))
    assert kinds(graph) == ["rescale", "quantize"]


def test_into_one_factor_of_a_hard_swish() -> None:
    d = Sums()
    x = d.rescaled("x")
    gate = d.same("clip", "c", d.same("add", "a", x, d.number("3", 3)), min=0.0, max=6.0)
    swish = d.same("multiply", "h", d.same("multiply", "m", x, gate), d.number("sixth", 1 / 6))
    graph = folded(d, d.quantize("q", swish, 0.05, 20))
    assert kinds(graph) == ["rescale", "add", "clip", "multiply", "multiply", "quantize"]
    assert d.values["sixth"].data == pytest.approx(1 / 6), "constants of others stay as they are"


def test_into_both_sides_of_a_sum() -> None:
    d = Sums()
    total = d.same("add", "s", d.rescaled("x"), d.dequantize("f", d.bytes("b", 1, 8, 4, 4), 0.1))
    graph = folded(d, d.quantize("q", d.same("relu", "r", total), 0.05, 20))
    assert kinds(graph) == ["rescale", "dequantize", "add", "relu", "quantize"]


def test_into_the_bytes_of_a_product_whose_other_side_is_float() -> None:
    d = Sums()
    gate = d.same("sigmoid", "g", d.rescaled("x"))
    graph = folded(d, d.quantize("q", d.same("multiply", "p", d.dequantize("f", d.bytes("b", 1, 8, 4, 4), 0.1), gate)))
    assert kinds(graph) == ["rescale", "sigmoid", "dequantize", "multiply", "quantize"]


@pytest.mark.parametrize(
    ("kind", "attrs"), [("clip", {"min": -1.0, "max": 2.5}), ("relu", {}), ("leaky_relu", {"alpha": 0.1})]
)
def test_through_activations(kind: str, attrs: dict[str, float]) -> None:
    d = Sums()
    graph = folded(d, d.quantize("q", d.same(kind, "a", d.rescaled("x"), **attrs), 0.02, 60))
    assert kinds(graph) == ["rescale", kind, "quantize"]


@pytest.mark.parametrize("kind", ["maximum", "subtract"])
def test_through_two_operands(kind: str) -> None:
    d = Sums()
    graph = folded(d, d.quantize("q", d.same(kind, "a", d.rescaled("x"), d.rescaled("y")), 0.1, 100))
    assert kinds(graph) == ["rescale", "rescale", kind, "quantize"]


def test_a_multiplication_where_nothing_takes_it() -> None:
    d = Sums()
    graph = folded(d, d.quantize("q", d.same("sigmoid", "a", d.rescaled("x")), 1 / 255, 0))
    assert kinds(graph) == ["rescale", "sigmoid", "multiply", "quantize"]


def test_what_others_read_stays_as_it_is() -> None:
    d = Sums()
    x = d.rescaled("x")
    graph = folded(d, d.quantize("q", x, 0.01), d.quantize("r", d.same("sigmoid", "a", x), 1 / 255, 0))
    assert kinds(graph) == ["rescale", "multiply", "quantize", "sigmoid", "multiply", "quantize"]


def test_a_value_that_is_quantized_twice() -> None:
    d = Sums()
    x = d.dequantize("f", d.bytes("b", 1, 8, 4, 4), 0.1)
    graph = folded(d, d.quantize("q", x, 0.23), d.quantize("r", x, 0.37))
    assert kinds(graph) == ["dequantize", "quantize", "dequantize", "quantize"]


def test_nothing_to_do() -> None:
    d = Sums()
    before = d.graph(d.quantize("q", d.rescaled("x"), 1.0))
    assert fold_scales(before) == before
