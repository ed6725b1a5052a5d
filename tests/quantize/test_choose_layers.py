"""Which nodes become layers, what is fused into them, which tensors share a scale, and what stays in float and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from evo_tvm.errors import UsageError
from evo_tvm.quantize.choose_layers import Choice, choose_layers
from evo_tvm.quantize.prepare import prepare
from tests.quantize._models import onnx_model, residual_model

RNG = np.random.default_rng(0)


def chosen(model: onnx.ModelProto, **options: Any) -> Choice:
    return choose_layers(prepare(model), **options)


def names(choice: Choice) -> list[str]:
    return [layer.name for layer in choice.layers]


def groups(choice: Choice) -> list[set[str]]:
    found = {}
    for value in choice.tensors:
        found.setdefault(choice.tensors[value], set()).add(value.name)
    return [group for group in found.values() if len(group) > 1]


def network(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 4, 6, 6), **constants: np.ndarray) -> onnx.ModelProto:
    """conv(x) = c, then `nodes`; the output is y. w2 and w3 are further 1x1 weights."""
    convs = {name: RNG.standard_normal((4, 4, 1, 1)).astype(np.float32) for name in ("w", "w2", "w3")}
    return onnx_model(
        [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), *nodes], {"x": shape}, convs | constants, ["y"]
    )


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        operator, inputs.split(), outputs.split(), attributes.pop("name", operator.lower()), **attributes
    )


def test_the_residual_network() -> None:
    choice = chosen(residual_model())
    assert names(choice) == ["a", "b", "add", "pool", "c", "d", "concat", "gap", "flatten", "fc"]
    assert {layer.name: [n.name for n in layer.fused] for layer in choice.layers if layer.fused} == {
        "a": ["a.relu"],
        "add": ["add.relu"],
    }
    assert groups(choice) == [{"sum.relu", "pool"}, {"c.bn", "d.bn", "joined"}, {"mean", "flat"}]
    assert choice.left == {} and not choice.layers[-1].rounded
    assert {value.name for value in choice.tensors} == {
        "x", "a.relu", "b.bn", "sum.relu", "pool", "c.bn", "d.bn", "joined", "mean", "flat",
    }  # fmt: skip


def test_a_relu_that_is_not_alone_is_not_fused() -> None:
    choice = chosen(network(node("Relu", "c", "r"), node("Conv", "r w2", "d", name="second"), node("Add", "c d", "y")))
    assert [layer.fused for layer in choice.layers] == [(), (), ()]
    assert {value.name for value in choice.tensors} == {"x", "c", "r", "d", "y"}


def test_clip_is_fused_and_a_bias_behind_a_matmul_too() -> None:
    clip = chosen(network(node("Clip", "c low high", "y"), low=np.float32(0), high=np.float32(6)))
    assert [n.op_type for n in clip.layers[0].fused] == ["Clip"]
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "a"),
        node("Relu", "a", "r"),
        node("MatMul", "r w", "y", name="m2"),
    ]
    constants = {"w": np.eye(3, dtype=np.float32), "b": np.ones(3, np.float32)}
    choice = chosen(onnx_model(nodes, {"x": (2, 5, 3)}, constants, ["y"]))
    assert [[n.op_type for n in layer.fused] for layer in choice.layers] == [["Add", "Relu"], []]
    assert [layer.rounded for layer in choice.layers] == [True, False]


def test_a_gate_stays_in_float_and_squeeze_and_excite_does_not() -> None:
    choice = chosen(
        network(node("Sigmoid", "c", "s"), node("Mul", "c s", "g"), node("Conv", "g w2", "y", name="second"))
    )
    assert names(choice) == ["conv", "second"]
    assert choice.left == {"mul": "it gates a tensor by a function of itself"}
    excited = chosen(
        network(
            node("GlobalAveragePool", "c", "p"),
            node("Conv", "p w2", "d", name="second"),
            node("HardSigmoid", "d", "h"),
            node("Mul", "c h", "y"),
        )
    )
    assert names(excited) == ["conv", "globalaveragepool", "second", "mul"]


def test_moves_follow_their_neighbours() -> None:
    between = [node("Softmax", "c", "s"), node("Reshape", "s sizes", "y")]
    choice = chosen(network(*between, sizes=np.int64([1, -1])))
    assert names(choice) == ["conv"]  # between floats
    before = chosen(
        onnx_model(
            [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")],
            {"x": (1, 6, 6, 4)},
            {"w": np.ones((2, 4, 1, 1), np.float32)},
            ["y"],
        )
    )
    assert names(before) == ["transpose", "conv"] and groups(before) == [{"x", "t"}]
    halves = [node("Split", "c sizes", "p q", axis=1), node("Add", "p q", "y")]
    split = chosen(network(*halves, sizes=np.int64([2, 2])))
    assert groups(split) == [{"c", "p", "q"}] and names(split) == ["conv", "split", "add"]


@pytest.mark.parametrize(
    ("fill", "moves"), [(None, True), (np.float32(0), True), (np.float32(1), False), (np.float32(-np.inf), False)]
)
def test_only_padding_with_zeros_moves(fill: np.ndarray | None, moves: bool) -> None:
    constants = {"pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1])} | ({} if fill is None else {"fill": fill})
    operands = "c pads" if fill is None else "c pads fill"
    choice = chosen(network(node("Pad", operands, "p"), node("MaxPool", "p", "y", kernel_shape=[2, 2]), **constants))
    assert ("pad" in names(choice)) is moves


def test_skipping() -> None:
    model = residual_model()
    assert names(chosen(model, skip=["b"])) == [n for n in names(chosen(model)) if n != "b"]
    assert chosen(model, skip=["b"]).left == {"b": "it is to be skipped"}
    assert not {"c", "d"} & set(names(chosen(model, skip=["[cd]"])))
    assert "add" not in names(chosen(model, skip_operators=["Add"]))
    assert not {"pool", "a"} & set(names(chosen(model, skip_operators=["MaxPool"], keep_first=True)))
    assert chosen(model, keep_first=True).left == {"a": "the first layer is kept"}
    assert chosen(model, keep_last=True).left == {"fc": "the last layer is kept"}
    for options, text in (
        ({"skip": ["fcc"]}, "skip: the model has no node 'fcc'\nDid you mean 'fc'?"),
        ({"skip_operators": ["Conv2d"]}, "skip_operators: the model has no operator 'Conv2d'\nDid you mean 'Conv'?"),
    ):
        with pytest.raises(UsageError) as caught:
            chosen(model, **options)
        assert str(caught.value) == text


def test_what_is_kept_reads_floats() -> None:
    """Those before it round nothing for it alone; what others read too is rounded for them."""
    model = residual_model()
    rounded = {layer.name: layer.rounded for layer in chosen(model, skip=["b"]).layers}
    assert rounded["a"] and rounded["add"]  # add reads a.relu too
    last = chosen(model, keep_last=True)
    assert names(last)[-1] == "gap" and not last.layers[-1].rounded  # not flatten either: it moves values for fc alone
    assert "flat" not in {value.name for value in last.tensors} and "mean" not in {value.name for value in last.tensors}
    behind = {layer.name: layer.rounded for layer in chosen(model, skip=["pool", "fc"]).layers}
    assert not behind["add"] and behind["c"]
    leaves = network(node("Conv", "c w2", "y", name="second"))
    leaves.graph.output.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))
    assert [layer.rounded for layer in chosen(leaves, skip=["second"]).layers] == [True]


def test_a_skipped_relu_is_not_fused() -> None:
    assert chosen(residual_model(), skip=["a.relu"]).layers[0].fused == ()


def test_why_a_layer_stays_in_float() -> None:
    double = onnx_model([node("MatMul", "x z", "y")], {"x": (2, 3), "z": (3, 4)}, {}, ["y"])
    assert chosen(double).left == {"matmul": "its weights are not constant"}
    batched = onnx_model([node("MatMul", "x w", "y")], {"x": (2, 5, 3)}, {"w": np.ones((2, 3, 4), np.float32)}, ["y"])
    assert chosen(batched).left == {"matmul": "its weights are not a matrix"}
    turned = onnx_model([node("Gemm", "x w", "y", transA=1)], {"x": (3, 2)}, {"w": np.ones((3, 4), np.float32)}, ["y"])
    assert chosen(turned).left == {"gemm": "its input is transposed"}
    alone = onnx_model([node("Add", "x z", "y")], {"x": (2, 3), "z": (2, 3)}, {}, ["y"])
    assert chosen(alone).left == {"add": "none of its inputs comes from a layer in integers"}
