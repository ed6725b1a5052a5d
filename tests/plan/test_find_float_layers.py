from __future__ import annotations

from dataclasses import replace

import numpy as np

from evo_tvm.graph import Codes
from evo_tvm.plan.find_float_layers import find_float_layers
from evo_tvm.runtime.manifest import StayedFloat
from tests.plan.graphs import Draft

QUANTIZATION = {"scale": 0.1, "zero_point": 3}


def quantized(d: Draft, name: str, data: str) -> str:
    """`data` as bytes, and these as float again."""
    q = d.same("quantize", f"{name}.q", data, dtype="uint8", **QUANTIZATION)
    d.values[q] = replace(d.values[q], dtype="uint8")
    return d.same("dequantize", name, q, **QUANTIZATION)


def test_reasons_in_the_order_of_the_graph() -> None:
    d = Draft()
    x = d.input("x", 1, 8, 6, 6)
    a = d.conv("a", x, 8)
    b = d.conv("b", quantized(d, "a.dq", a), 8)
    weight = d.constant("w", 8, 4, 2, 2)
    d.op("conv2d_transpose", "c", [quantized(d, "b.dq", b), weight], (1, 4, 12, 12))
    known = StayedFloat("b", "conv2d", "its weights are asymmetric")
    assert find_float_layers(d.graph("c"), [known]) == (
        StayedFloat("a", "conv2d", "its input is float"),
        known,
        StayedFloat("c", "conv2d_transpose", "there is no integer kernel of this operator"),
    )


def test_layers_over_bytes_are_not_listed() -> None:
    d = Draft()
    x = d.input("x", 1, 8, 6, 6)
    d.values[x] = replace(d.values[x], dtype="uint8")
    d.conv("a", x, 8)
    d.same("dequantize", "y", "a", **QUANTIZATION)
    assert find_float_layers(d.graph("y"), []) == ()


def test_nothing_of_a_float_model() -> None:
    d = Draft()
    d.conv("a", d.input("x", 1, 8, 6, 6), 8)
    assert find_float_layers(d.graph("a"), []) == ()


def test_weights_in_integers_make_a_model_quantized() -> None:
    d = Draft()
    d.conv("a", d.input("x", 1, 8, 6, 6), 8)
    one = np.ones(1, np.float32)
    codes = Codes(np.ones((8, 8, 3, 3), np.int8), one, one.astype(np.int8), 0)
    d.values["a.w"] = replace(d.values["a.w"], codes=codes)
    assert find_float_layers(d.graph("a"), []) == (StayedFloat("a", "conv2d", "its input is float"),)
