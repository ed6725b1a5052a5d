"""The small reference model, and one image for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.emulated.boards import quantized

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where image.npy lies, and where programs are built once for all tests."""
    path = tmp_path_factory.mktemp("boards")
    with np.load(DATA / "fashion_test.npz") as data:
        image = (data["images"][:1, np.newaxis] / 255).astype(np.float32)
    np.save(path / "image.npy", image)
    return path


@pytest.fixture(scope="session")
def float_model() -> onnx.ModelProto:
    """ResNet-8, whose batch is free."""
    return onnx.load(DATA / "models" / "fashion_small.onnx")


@pytest.fixture(scope="session")
def int8_model(float_model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in int8; its last integer tensor is an output, too."""
    with np.load(DATA / "fashion_calib.npz") as data:
        return quantized(float_model, (data["images"][:16, np.newaxis] / 255).astype(np.float32))
