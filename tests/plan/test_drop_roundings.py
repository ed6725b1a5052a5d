from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.graph import Graph
from evo_tvm.plan.drop_roundings import drop_roundings
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft


class Network(QuantizedDraft):
    """Layers that could be in integers, with a rounding behind each."""

    def start(self) -> str:
        return self.rounded("x", self.input("image", 1, 8, 4, 4))

    def rounded(self, name: str, x: str, scale: float = 0.5) -> str:
        """`x`, quantized and dequantized."""
        return self.dequantize(name, self.quantize(f"{name}_q", x, scale), scale)

    def layer(self, name: str, x: str) -> str:
        """A convolution whose weights are integers."""
        codes = np.ones((8, self.values[x].shape[1], 3, 3), np.int8)
        return self.integer_conv(name, x, self.weights(f"{name}_w", codes))

    def hard_swish(self, name: str, x: str) -> str:
        gate = self.same(
            "clip", f"{name}_c", self.same("add", f"{name}_a", x, self.constant(f"{name}_3")), min=0, max=6
        )
        return self.same("multiply", name, x, gate)


def dropped(d: Network, *outputs: str, floats: frozenset[str] = frozenset()) -> Graph:
    graph = drop_roundings(d.graph(*outputs), floats)
    assert drop_roundings(graph, floats) == graph
    return graph


def rounded(graph: Graph) -> list[str]:
    """What is still quantized."""
    return [group.output for group in graph.groups if group.anchor.kind == "quantize"]


def test_between_a_layer_and_its_activation() -> None:
    d = Network()
    x = d.rounded("y", d.layer("c", d.start()))
    end = d.layer("end", d.rounded("z", d.hard_swish("h", x)))
    graph = dropped(d, end)
    layer, swish = ["quantize", "dequantize", "conv2d"], ["clip", "add", "clip", "multiply"]
    assert kinds(graph) == [*layer, *swish, *layer]
    assert rounded(graph) == ["x_q", "z_q"]
    clip, *others = graph.groups[3:7]
    assert clip.inputs == ("c",) and clip.anchor.attrs == {"min": -5.0, "max": 122.5}, "the bounds of bytes stay"
    assert [g.inputs for g in others] == [(clip.output, "h_3"), ("h_a",), (clip.output, "h_c")]


def test_not_what_a_layer_in_integers_reads_too() -> None:
    d = Network()
    x = d.rounded("y", d.layer("c", d.start()))
    graph = dropped(d, d.layer("end", d.rounded("z", d.hard_swish("h", x))), d.layer("other", x))
    assert rounded(graph) == ["x_q", "y_q", "z_q"]


def test_before_an_addition_that_the_layer_ends_in() -> None:
    d = Network()
    x = d.start()
    total = d.same("add", "sum", d.rounded("y", d.layer("c", x)), x)
    graph = dropped(d, d.layer("end", d.rounded("z", total)))
    assert rounded(graph) == ["x_q", "z_q"], "the shortcut lies in memory, as bytes"


def test_one_of_two_layers_that_are_added_lies_in_memory() -> None:
    d = Network()
    x = d.start()
    total = d.same("add", "sum", d.rounded("y", d.layer("c", x)), d.rounded("w", d.layer("b", x)))
    graph = dropped(d, d.layer("end", d.rounded("z", total)))
    assert rounded(graph) == ["x_q", "y_q", "z_q"]


def test_not_what_two_kernels_read() -> None:
    d = Network()
    x = d.rounded("y", d.layer("c", d.start()))
    mean = d.op("global_avg_pool2d", "mean", [x], (1, 8, 1, 1))
    graph = dropped(d, d.layer("end", d.rounded("z", d.same("multiply", "gated", x, mean))))
    assert rounded(graph) == ["x_q", "y_q", "z_q"]


@pytest.mark.parametrize(
    ("kind", "attrs", "zero_point", "left"),
    [
        ("relu", {}, 0, ["clip"]),
        ("relu", {}, 10, ["relu", "clip"]),
        ("clip", {"min": 0.0, "max": 200.0}, 0, ["clip"]),
        ("clip", {"min": 0.0, "max": 127.5}, 0, ["clip"]),
        ("clip", {"min": 0.0, "max": 6.0}, 0, ["clip"]),
        ("clip", {"min": -9.0, "max": 6.0}, 10, ["clip", "clip"]),
    ],
)
def test_of_activations_what_the_bounds_do_not_do(
    kind: str, attrs: dict[str, float], zero_point: int, left: list[str]
) -> None:
    d = Network()
    active = d.same(kind, "a", d.layer("c", d.start()), **attrs)
    quantized = d.quantize("q", active, 0.5, zero_point)
    graph = dropped(d, d.layer("end", d.dequantize("y", quantized, 0.5, zero_point)), floats=frozenset({"end"}))
    assert kinds(graph) == ["quantize", "dequantize", "conv2d", *left, "conv2d"]
    bounds = [g.anchor.attrs for g in graph.groups if g.anchor.kind == "clip"]
    assert min(b["max"] for b in bounds) == min(attrs.get("max", 200.0), (255 - zero_point) * 0.5)
    assert max(b["min"] for b in bounds) == -zero_point * 0.5


def test_an_activation_with_a_rounding_before_and_behind_it() -> None:
    d = Network()
    active = d.same("relu", "a", d.rounded("y", d.layer("c", d.start())))
    quantized = d.quantize("q", active, 0.25, 0)
    graph = dropped(d, d.layer("end", d.dequantize("z", quantized, 0.25, 0)), floats=frozenset({"end"}))
    assert kinds(graph) == ["quantize", "dequantize", "conv2d", "clip", "clip", "conv2d"]
    made = {*graph.inputs, *(name for group in graph.groups for name in group.outputs)}
    assert all(name in made or graph.values[name].data is not None for g in graph.groups for name in g.inputs)


def test_where_only_layers_in_float_read() -> None:
    d = Network()
    end = d.layer("end", d.rounded("y", d.layer("c", d.start())))
    assert rounded(dropped(d, end)) == ["x_q", "y_q"]
    assert rounded(dropped(d, end, floats=frozenset({"end"}))) == ["x_q"]
    assert rounded(dropped(d, end, floats=frozenset({"c"}))) == ["y_q"]
    assert kinds(dropped(d, end, floats=frozenset({"c", "end"}))) == ["clip", "conv2d", "clip", "conv2d"]


def test_not_where_layers_of_both_types_read() -> None:
    d = Network()
    x = d.rounded("y", d.layer("c", d.start()))
    graph = dropped(d, d.layer("a", x), d.layer("b", x), floats=frozenset({"a"}))
    assert rounded(graph) == ["x_q", "y_q"]


def test_through_what_moves_values() -> None:
    d = Network()
    pooled = d.rounded("z", d.pool("p", d.rounded("y", d.layer("c", d.start()))))
    end = d.layer("end", pooled)
    assert rounded(dropped(d, end)) == ["x_q", "y_q", "z_q"]
    assert rounded(dropped(d, end, floats=frozenset({"end"}))) == ["x_q"]


def test_before_another_scale() -> None:
    d = Network()
    again = d.rounded("z", d.rounded("y", d.layer("c", d.start())), 0.25)
    assert rounded(dropped(d, d.layer("end", again))) == ["x_q", "z_q"]


def test_without_a_layer_in_integers_nothing_is_rounded() -> None:
    d = Network()
    x = d.rounded("y", d.layer("c", d.start()))
    mean = d.op("global_avg_pool2d", "mean", [x], (1, 8, 1, 1))
    gated = d.rounded("z", d.same("multiply", "gated", x, d.rounded("w", mean)))
    graph = dropped(d, gated, floats=frozenset({"c"}))
    assert set(kinds(graph)) == {"clip", "conv2d", "global_avg_pool2d", "multiply"}


def test_not_what_changes_the_scale_or_leaves_as_bytes() -> None:
    d = Network()
    other = d.dequantize("y", d.quantize("y_q", d.layer("c", d.start()), 0.5), 0.25)
    bytes_too = d.quantize("b", d.hard_swish("h", other))
    assert rounded(dropped(d, bytes_too, d.dequantize("bf", "b"))) == ["x_q", "y_q", "b"]
