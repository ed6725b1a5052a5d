"""Gates of channels: zeros where they are off, the same bits where they are on, in every layout and algorithm."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from evo_tvm.compile_gated import compile_gated
from evo_tvm.runtime import Module
from tests.gates.networks import hook, shapes
from tests.onnx_builder import Builder


def convolution(channels: int, size: int, kernel: int = 3, stride: int = 1) -> onnx.ModelProto:
    """stem -> relu(conv(stem)), whose channels are gated -> 1x1 convolution."""
    b = Builder(2)
    x = b.node("Relu", b.conv(b.input(1, 16, size, size), 16, 32))
    y = b.node("Relu", b.conv(x, 32, channels, kernel, kernel // 2, strides=[stride, stride]))
    b.outputs.append(b.conv(y, channels, 8))
    return b.model()


def settle(module: Module, gate: str, x: np.ndarray, on: int) -> np.ndarray:
    """A threshold with which `on` blocks are on; which they are."""
    module.force(None)
    module.set_thresholds({gate: -np.inf})
    module(x)
    scores = np.sort(module.gate_log()[0].scores)
    module.set_thresholds({gate: float(scores[len(scores) - on - 1]) if on < len(scores) else -np.inf})
    module(x)
    return module.gate_log()[0].on


CASES = {
    "direct": (64, 9, 3, 1, 4, "spatial_pack"),
    "strided": (64, 9, 3, 2, 4, "spatial_pack"),
    "pointwise": (64, 9, 1, 1, 4, "spatial_pack"),
    "winograd2": (64, 12, 3, 1, 4, "winograd2"),
    "winograd4": (64, 12, 3, 1, 2, "winograd4"),
    "awkward": (40, 9, 3, 1, 5, "spatial_pack"),
    "im2col": (64, 9, 3, 1, 4, "im2col"),
    "indirect": (64, 9, 3, 1, 4, "indirect"),
}


@pytest.mark.parametrize("case", CASES)
def test_blocks_that_are_off_are_zero_and_the_others_are_what_they_were(case: str) -> None:
    channels, size, kernel, stride, blocks, algorithm = CASES[case]
    model = convolution(channels, size, kernel, stride)
    variables = [name for name, shape in shapes(model).items() if shape[1:2] == (channels,)]
    site, stem = variables[-1], [name for name, shape in shapes(model).items() if shape[1:2] == (32,)][-1]
    gate = hook(model, site, "channel", stem, blocks)
    ways = {"algorithms": {"*": algorithm}, "observe": [site]}
    module, plain = compile_gated(model, [gate], **ways).module(), compile_gated(model, **ways).module()
    (spec,) = module.inputs
    x = np.random.default_rng(1).standard_normal(spec.shape).astype(np.float32)
    _, wanted = plain(x)
    module.force("full")
    result, seen = module(x)
    assert np.array_equal(seen, wanted) and np.array_equal(result, plain(x)[0])
    for on in range(blocks):
        decided = settle(module, site, x, on)
        assert decided.sum() == on
        mask = np.repeat(decided, -(-channels // blocks))[:channels].reshape(1, -1, 1, 1)
        assert np.array_equal(module(x)[1], np.where(mask, wanted, 0))
        module.force({site: decided})
        module.set_thresholds({site: 0.0})
        assert np.array_equal(module(x)[1], np.where(mask, wanted, 0))


def test_kernels_look_at_the_mask_before_they_compute() -> None:
    """Without any channel a convolution takes a small part of its time."""
    model = convolution(128, 28)
    site = [name for name, shape in shapes(model).items() if shape[1:2] == (128,)][-1]
    stem = [name for name, shape in shapes(model).items() if shape[1:2] == (32,)][-1]
    module = compile_gated(model, [hook(model, site, "channel", stem, 8)], algorithms={"*": "spatial_pack"}).module()
    times = {}
    for on in (True, False):
        module.force({site: on})
        times[on] = next(k for k in module.profile(repeat=30).kernels if "keep" in k.operator).min_ms
    assert times[False] < 0.3 * times[True]


def test_what_is_fused_behind_a_mask_is_still_computed() -> None:
    """relu(keep(conv(x)) + 1): one where a block is off, not zero."""
    b = Builder(2)
    x = b.node("Relu", b.conv(b.input(1, 16, 9, 9), 16, 32))
    y = b.conv(x, 32, 64, 3, 1)
    z = b.node("Relu", b.node("Add", b.node("Relu", y), b.constant(np.ones((1, 64, 1, 1)))))
    b.outputs.append(b.conv(z, 64, 8))
    model = b.model()
    wide = [name for name, shape in shapes(model).items() if shape[1:2] == (64,)]
    stem = [name for name, shape in shapes(model).items() if shape[1:2] == (32,)][-1]
    relu = next(n for n in wide if wide.index(n) == 2)
    module = compile_gated(model, [hook(model, relu, "channel", stem, 4)], observe=[wide[-1]]).module()
    module.force({relu: False})
    (spec,) = module.inputs
    seen = module(np.ones(spec.shape, np.float32))[1]
    assert np.array_equal(seen, np.ones_like(seen))
