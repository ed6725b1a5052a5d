"""Hooks made of a convolution's own weights: what they predict, and what leaving it out changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from evo_tvm import pipeline
from evo_tvm.compile_gated import compile_gated
from evo_tvm.errors import UsageError
from evo_tvm.gates.near_zero import near_zero_hook
from tests.gates.networks import shapes
from tests.onnx_builder import Builder

BLOCKS, CHANNELS, SIZE = 4, 64, 24


def model(dead: int) -> tuple[onnx.ModelProto, str]:
    """relu(conv(relu(stem)) + bias) whose block number `dead` never gets above zero; and its name."""
    b = Builder(4)
    x = b.node("Relu", b.conv(b.input(1, 16, SIZE, SIZE), 16, 32))
    bias = np.random.default_rng(0).standard_normal(CHANNELS)
    bias[dead * 16 : dead * 16 + 16] -= 100
    y = b.node("Conv", x, b.weights(CHANNELS, 32, 3, 3, terms=288), b.constant(bias), pads=[1] * 4)
    b.outputs.append(b.conv(b.node("Relu", y), CHANNELS, 8))
    built = b.model()
    return built, [name for name, shape in shapes(built).items() if shape[1:2] == (CHANNELS,)][-1]


@pytest.mark.parametrize("dead", [0, 2])
def test_a_block_that_stays_at_zero_is_left_out_and_nothing_changes(dead: int) -> None:
    onnx_model, site = model(dead)
    hook = near_zero_hook(pipeline.clean(onnx_model).module, site, BLOCKS)
    module = compile_gated(onnx_model, [hook]).module()
    x = np.random.default_rng(1).standard_normal(module.inputs[0].shape).astype(np.float32)
    result = module(x)
    assert module.gate_log()[0].on.tolist() == [block != dead for block in range(BLOCKS)]
    assert np.array_equal(result, compile_gated(onnx_model).module()(x))


def test_scores_are_the_means_but_for_the_border() -> None:
    onnx_model, site = model(3)
    hook = near_zero_hook(pipeline.clean(onnx_model).module, site, BLOCKS)
    before = list(shapes(onnx_model))[list(shapes(onnx_model)).index(site) - 1]
    module = compile_gated(onnx_model, [hook], observe=[before]).module()
    x = np.random.default_rng(1).standard_normal(module.inputs[0].shape).astype(np.float32)
    means = np.maximum(module(x)[1].mean(axis=(0, 2, 3)), 0).reshape(BLOCKS, -1).mean(axis=1)
    assert module.gate_log()[0].scores == pytest.approx(means, abs=0.1)


def test_a_site_that_is_no_convolution_is_refused() -> None:
    onnx_model, _ = model(0)
    with pytest.raises(UsageError, match="predicted of a convolution with a ReLU"):
        near_zero_hook(pipeline.clean(onnx_model).module, next(iter(shapes(onnx_model))), BLOCKS)
