from __future__ import annotations

from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.inline_dequantize import inline_dequantize
from tests.plan.graphs import kinds
from tests.plan.quantized_graphs import QuantizedDraft
from tests.quantized_models import QuantizedBuilder, assert_same_bytes

SHAPE = (1, 8, 4, 4)


def half(d: QuantizedDraft) -> str:
    return d.dequantize("f", d.bytes("b", *SHAPE))


def test_several_readers_convert_on_their_own() -> None:
    d = QuantizedDraft()
    f = half(d)
    graph = inline_dequantize(d.graph(d.same("exp", "e", f), d.same("add", "s", d.input("x", *SHAPE), f)))
    assert kinds(graph) == ["dequantize+exp", "dequantize+add"]
    exp, add = graph.groups
    assert exp.inputs == ("b",) and [op.args for op in exp.ops] == [(0,), (1,)]
    assert add.inputs == ("x", "b") and [op.args for op in add.ops] == [(1,), (0, 2)]
    assert "f" not in graph.values and inline_dequantize(graph) == graph


def test_behind_an_anchor() -> None:
    d = QuantizedDraft()
    f = half(d)
    conv = d.conv("c", d.input("x", *SHAPE), 8)
    (group,) = (g for g in d.groups if g.name == conv)
    joined = d.same("add", "s", conv, f)
    graph = inline_dequantize(fuse_epilogues(d.graph(joined, d.same("exp", "e", f))))
    assert kinds(graph) == ["conv2d+dequantize+add", "dequantize+exp"]
    assert graph.groups[0].inputs == (*group.inputs, "b")
    assert [op.args for op in graph.groups[0].ops] == [(0, 1), (2,), (3, 4)]


def test_an_operand_twice_is_converted_once() -> None:
    d = QuantizedDraft()
    f = half(d)
    graph = inline_dequantize(d.graph(d.op("multiply", "m", [f, f], SHAPE)))
    (group,) = graph.groups
    assert set(group.inputs) == {"b"} and group.ops[-1].kind == "multiply"


def test_it_stays_where_an_anchor_or_the_caller_reads_it() -> None:
    d = QuantizedDraft()
    f = half(d)
    d.conv("c", f, 8)
    assert inline_dequantize(d.graph("c")) == d.graph("c")
    assert inline_dequantize(d.graph("f")) == d.graph("f")


def test_a_chain_of_what_reads_it_and_the_caller() -> None:
    d = QuantizedDraft()
    f = half(d)
    graph = inline_dequantize(d.graph(d.same("exp", "e", f), f))
    assert kinds(graph) == ["dequantize", "dequantize+exp"] and graph.outputs == ("e", "f")


def test_the_same_bytes_as_onnx_runtime() -> None:
    """One value of bytes that three read in float: an addition behind a convolution, a product, the caller."""
    b = QuantizedBuilder(4)
    x = b.layer(b.image(1, 16, 6, 8), 16, 24, 3)
    y = b.node("Add", b.node("Sigmoid", b.quantized_conv(x, 24, 24, 1)), x)
    z = b.node("Mul", x, x)
    b.outputs = [b.quantized(y, 0.171, 80), b.quantized(z, 0.33, 0), x]
    assert_same_bytes(b)
