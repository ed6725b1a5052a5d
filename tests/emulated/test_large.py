"""ResNet-18 and MobileNetV2 at 224x224, and the large reference model, on emulated boards in float and in int8: minutes
each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from evo_tvm.bench import zoo
from tests.emulated.boards import (
    A76,
    BOARDS,
    RV128,
    Board,
    assert_close,
    assert_exact,
    quantized,
    run_both,
    run_over_rpc,
)
from tests.emulated.conftest import DATA
from tests.rpc import servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=["resnet18", "mobilenetv2", "fashion_resnet32"])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    reference = DATA / "models" / f"{request.param}.onnx"
    return onnx.load(reference) if reference.exists() else zoo.build(request.param)


@pytest.fixture(scope="module")
def images(model: onnx.ModelProto) -> np.ndarray:
    """Three: random numbers, or what the reference model was trained on."""
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    if channels == 3:
        return np.random.default_rng(0).random((3, 3, 224, 224), np.float32)
    with np.load(DATA / "fashion_calib.npz") as data:
        return (data["images"][:3, np.newaxis] / 255).astype(np.float32)


@pytest.fixture(scope="module")
def int8_model(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    return quantized(model, images[1:])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_in_float(board: Board, model: onnx.ModelProto, images: np.ndarray, server: servers.Process) -> None:
    (outputs,) = run_over_rpc(model, board, server.address, images[:1])
    assert_close(*outputs)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_in_int8(board: Board, int8_model: onnx.ModelProto, images: np.ndarray, server: servers.Process) -> None:
    assert_exact(run_over_rpc(int8_model, board, server.address, images[:1]))


@pytest.mark.parametrize("board", [A76, RV128], ids=lambda board: board.name)
def test_evo_run_of_a_folder(board: Board, board_folders: Callable[[Board], Path], tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((1, 3, 224, 224), np.float32))
    (outputs,) = run_both(zoo.build("resnet18"), board, tmp_path, board_folders(board) / "evo-run")
    assert_close(*outputs)
