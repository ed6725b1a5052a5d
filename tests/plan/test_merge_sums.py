from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.plan.merge_sums import merge_sums
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft
from tests.quantized_models import QuantizedBuilder, assert_same_bytes

SHAPE = (1, 8, 4, 4)


def two(d: QuantizedDraft) -> tuple[str, str]:
    """Bytes of two scales, in float."""
    left = d.dequantize("l", d.bytes("a", *SHAPE), 0.5, 10)
    return left, d.dequantize("r", d.bytes("b", *SHAPE), 0.25, 20)


def test_bytes_are_added_as_they_are() -> None:
    d = QuantizedDraft()
    graph = merge_sums(d.graph(d.quantize("q", d.same("add", "s", *two(d)), 2.0, 7)))
    assert kinds(graph) == ["blend", "quantize"], "nobody reads the operands in float any more"
    blend, quantize = graph.groups
    assert blend.inputs == ("a", "b")
    assert blend.anchor.attrs == {"left": 0.25, "right": 0.125, "start": 7 - 10 * 0.25 - 20 * 0.125}
    assert quantize.anchor.attrs == {"scale": 1.0, "zero_point": 0, "dtype": "uint8"}
    assert merge_sums(graph) == graph


def test_a_value_added_to_itself() -> None:
    d = QuantizedDraft()
    left, _ = two(d)
    graph = merge_sums(d.graph(d.quantize("q", d.same("add", "s", left, left), 2.0, 7)))
    (blend,) = (g for g in graph.groups if g.anchor.kind == "blend")
    assert blend.inputs == ("a", "a") and blend.anchor.attrs["start"] == 7 - 2 * 10 * 0.25


@pytest.mark.parametrize("case", ["output", "other reader", "float", "int8", "result int8", "between", "multiply"])
def test_it_must_not_fire(case: str) -> None:
    d = QuantizedDraft()
    left, right = two(d)
    if case == "float":
        right = d.input("f", *SHAPE)
    if case == "int8":
        right = d.dequantize("i", d.bytes("c", *SHAPE, dtype="int8"))
    s = d.same("multiply" if case == "multiply" else "add", "s", left, right)
    dtype = "int8" if case == "result int8" else "uint8"
    outputs = [d.quantize("q", d.same("exp", "e", s) if case == "between" else s, dtype=dtype)]
    if case == "output":
        outputs.append(s)
    if case == "other reader":
        outputs.append(d.same("exp", "e", s))
    graph = d.graph(*outputs, "l", "r")
    assert merge_sums(graph) == graph


@pytest.mark.parametrize("seed", range(3))
def test_the_same_bytes_as_onnx_runtime(seed: int) -> None:
    """All pairs of bytes, odd and even zero points, a broadcast operand."""
    b = QuantizedBuilder(seed)
    left, right = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    a, c = (b.bytes(1, 1, 256, 256) for _ in range(2))
    b.inputs[a][0, 0], b.inputs[c][0, 0] = left, right
    scales, zeros = b.rng.uniform(0.02, 0.1, 3), b.rng.integers(100, 150, 3)
    x, y = b.dequantized(a, scales[0], int(zeros[0])), b.dequantized(c, scales[1], int(zeros[1]))
    row = b.dequantized(b.bytes(1, 1, 1, 256), scales[1], int(zeros[1]))
    b.outputs = [b.quantized(b.node("Add", *pair), scales[2], int(zeros[2])) for pair in ((x, y), (x, x), (x, row))]
    assert_same_bytes(b)
