"""ResNet-18 and MobileNetV2 at 224x224 on emulated boards, in float and in int8: minutes each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from evo_tvm.bench import zoo
from tests.emulated.boards import BOARDS, Board, assert_close, assert_exact, quantized, run_both

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=["resnet18", "mobilenetv2"])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return zoo.build(request.param)


@pytest.fixture(scope="module")
def int8_model(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantized(model, np.random.default_rng(1).random((2, 3, 224, 224), np.float32))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a large image lies."""
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((1, 3, 224, 224), np.float32))
    return tmp_path


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_in_float(board: Board, model: onnx.ModelProto, place: Path) -> None:
    (outputs,) = run_both(model, board, place)
    assert_close(*outputs)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_in_int8(board: Board, int8_model: onnx.ModelProto, place: Path) -> None:
    assert_exact(run_both(int8_model, board, place))
