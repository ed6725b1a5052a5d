"""What scales or shifts a layer's channels is folded into it: the numbers agree; what cannot be folded stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from evo_tvm.quantize.prepare import prepare
from tests.quantize._models import onnx_model, operators, ort_runner

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def check(nodes: list, shape: tuple[int, ...], constants: dict[str, np.ndarray], left: dict[str, int]) -> None:  # type: ignore[type-arg]
    model = onnx_model(nodes, {"x": shape}, constants, ["y"])
    prepared = ir.to_proto(prepare(model))
    assert dict(operators(prepared)) == left
    x = {"x": weights(*shape)}
    expected = ort_runner(model)(x)["y"]
    np.testing.assert_allclose(ort_runner(prepared)(x)["y"], expected, rtol=1e-4, atol=1e-4)


LAYERS = {
    "conv": ("Conv", (6, 4, 3, 3), {}),
    "depthwise": ("Conv", (4, 1, 3, 3), {"group": 4}),
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2}),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), {}),
    "grouped transposed": ("ConvTranspose", (4, 3, 3, 3), {"group": 2}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_batch_norm_and_arithmetic_behind_a_convolution(layer: str, bias: bool) -> None:
    operator, shape, attributes = LAYERS[layer]
    channels = 6 if layer != "depthwise" else 4
    constants = {"w": weights(*shape), "b": weights(channels)} if bias else {"w": weights(*shape)}
    constants |= {name: weights(channels) for name in ("gamma", "beta", "mean")}
    constants |= {"var": np.abs(weights(channels)) + 0.1, "m": weights(channels, 1, 1), "two": np.float32(2)}
    constants |= {"s": weights(1, channels, 1, 1), "one": np.float32([1.5])}
    nodes = [
        helper.make_node(operator, ["x", "w", "b"] if bias else ["x", "w"], ["c"], "layer", **attributes),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"], epsilon=1e-3),
        helper.make_node("Mul", ["m", "n"], ["p"]),
        helper.make_node("Div", ["p", "two"], ["q"]),
        helper.make_node("Sub", ["q", "s"], ["r"]),
        helper.make_node("Add", ["one", "r"], ["y"]),
    ]
    check(nodes, (2, 4, 7, 6), constants, {operator: 1})


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_becomes_plain(trans_b: int) -> None:
    constants = {"w": weights(*((5, 3) if trans_b else (3, 5))), "b": weights(1, 5), "s": weights(5)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["c"], "g", alpha=0.5, beta=-2.0, transB=trans_b),
        helper.make_node("Mul", ["c", "s"], ["y"]),
    ]
    check(nodes, (2, 3), constants, {"Gemm": 1})


def test_a_scalar_bias_becomes_one_for_each_output() -> None:
    check(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "g")],
        (2, 3),
        {"w": weights(3, 5), "b": weights()},
        {"Gemm": 1},
    )


def test_matmul_takes_factors_but_no_bias() -> None:
    constants = {"w": weights(3, 5), "s": weights(5), "b": weights(5)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"], "m"),
        helper.make_node("Mul", ["c", "s"], ["d"]),
        helper.make_node("Add", ["d", "b"], ["y"]),
    ]
    check(nodes, (2, 4, 3), constants, {"MatMul": 1, "Add": 1})


@pytest.mark.parametrize("case", ["two readers", "along width", "constant first", "grows the result", "an output"])
def test_what_cannot_be_folded_stays(case: str) -> None:
    constants = {"w": weights(6, 4, 1, 1), "s": weights(6, 1, 1)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "layer")]
    after, left = "Mul", {"Conv": 1, "Mul": 1}
    operands = ["c", "s"]
    if case == "along width":
        constants["s"] = weights(6)  # the image is 6 wide
    if case == "grows the result":
        constants["s"] = weights(2, 6, 1, 1)
    if case == "constant first":
        after, operands, left = "Sub", ["s", "c"], {"Conv": 1, "Sub": 1}
    nodes.append(helper.make_node(after, operands, ["y" if case != "two readers" else "d"]))
    if case == "two readers":
        nodes.append(helper.make_node("Add", ["d", "c"], ["y"]))
        left = {"Conv": 1, "Mul": 1, "Add": 1}
    if case == "an output":
        model = onnx_model(nodes, {"x": (1, 4, 5, 6)}, constants, ["c", "y"])
        assert dict(operators(ir.to_proto(prepare(model)))) == left
    else:
        check(nodes, (1, 4, 5, 6), constants, left)
