from __future__ import annotations

import numpy as np

from evo_tvm.plan.link_layers import Link, link_layers
from tests.plan.quantized_graphs import QuantizedDraft


def network() -> QuantizedDraft:
    """image -> a -> (b, add) -> c"""
    d = QuantizedDraft()
    weights = {name: d.weights(f"{name}_w", np.ones((8, 8, 3, 3), np.int8)) for name in "abc"}
    image = d.dequantize("x", d.quantize("x_q", d.input("image", 1, 8, 4, 4)))
    a = d.dequantize("af", d.quantize("aq", d.integer_conv("a", image, weights["a"])))
    b = d.dequantize("bf", d.quantize("bq", d.integer_conv("b", d.pool("p", a), weights["b"])))
    up = d.op("upsample", "up", [b], (1, 8, 4, 4), scale=(2, 2))
    d.integer_conv("c", d.same("add", "sum", a, up), weights["c"])
    return d


def test_through_all_that_lies_between() -> None:
    links = link_layers(network().graph("c"), ["a", "b", "c"])
    assert set(links) == {Link("a", "b", 128), Link("a", "c", 128), Link("b", "c", 32)}
    assert len(links) == 3


def test_layers_that_are_not_asked_for_are_looked_through() -> None:
    assert link_layers(network().graph("c"), ["a", "c"]) == (Link("a", "c", 128),)
