"""Whole models against ONNX Runtime: three inputs, 1 and 2 threads, batch 1 and 4."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import evo_tvm
from evo_tvm.bench import light, zoo

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "tests" / "data" / "models"
EFFICIENTNET = ROOT / ".cache" / "models" / "efficientnet_lite0.onnx"
TOLERANCE = 1e-4  # max |difference| / max |reference|
#: How much two inputs must differ in the reference's output, relative to its largest element.
CHANGES = 1e-3

FAST = [("fashion_small", 1), ("fashion_small", 4), ("light_squeezenet", 1), ("mobilenetv2", 1)]
NAMES = [
    *("resnet18", "resnet50", "mobilenetv2", "densenet121", "vgg11", "efficientnet_lite0"),
    *("fashion_small", "fashion_resnet32"),
    *(f"light_{name}" for name in light.NAMES),
]
SLOW = [(name, batch) for name in NAMES for batch in (1, 4) if (name, batch) not in FAST]


def build(name: str, batch: int) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """The model, and the shapes of the inputs that it leaves free."""
    if name.startswith("fashion"):
        return onnx.load(REFERENCE / f"{name}.onnx"), {"input": (batch, 1, 28, 28)}
    if name.startswith("light_"):
        return light.light(name.removeprefix("light_"), batch), {}
    if name == "efficientnet_lite0":  # its trained weights
        if not EFFICIENTNET.exists():
            command = [sys.executable, str(ROOT / "scripts" / "convert_efficientnet_lite0"), "-o", str(EFFICIENTNET)]
            subprocess.run(command, check=True)
        model = onnx.load(EFFICIENTNET)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        return model, {}
    return zoo.build(name, batch), {}


def images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "batch"), FAST + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW], ids=lambda v: str(v)
)
def test_a_model_agrees_with_onnx_runtime(name: str, batch: int) -> None:
    model, shapes = build(name, batch)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    artifact = evo_tvm.compile(model, input_shapes=shapes, num_threads=2)
    (spec,) = artifact.manifest.inputs
    inputs = [images(spec.shape, seed) for seed in range(3)]
    expected = [session.run(None, {spec.name: x})[0] for x in inputs]
    largest = max(np.abs(y).max() for y in expected)
    assert np.abs(expected[0] - expected[1]).max() > CHANGES * largest
    for threads in (1, 2):
        with artifact.module(num_threads=threads) as module:
            for x, want in zip(inputs, expected, strict=True):
                got = module(x)
                assert got.shape == want.shape
                assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max(), (name, batch, threads)
