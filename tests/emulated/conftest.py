"""The small reference model, one image for it, and servers on emulated boards.

A server is built as `evo-tvm board build` does, which takes minutes of CPU time for RISC-V.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.emulated.boards import Board, build_folder, quantized
from tests.rpc import servers

#: Starts the server of a board with options, and ends it with the block.
StartServer = Callable[..., AbstractContextManager[servers.Process]]

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


@pytest.fixture(scope="session")
def board_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Board], Path]:
    """The folder of a board; boards of one architecture share it."""
    made = tmp_path_factory.mktemp("board_folders")
    return lambda board: build_folder(board, made / board.arch)


@pytest.fixture
def start_server(board_folders: Callable[[Board], Path], tmp_path: Path) -> StartServer:
    """`rpc_server` of an emulated board, at a free port; tmp_path/work keeps uploads."""

    def start(board: Board, *options: object, **process: object) -> AbstractContextManager[servers.Process]:
        program = board_folders(board) / "rpc_server"
        return servers.running(board.command(program, "--port", 0, "--work", tmp_path / "work", *options), **process)

    return start


@pytest.fixture
def server(board: Board, start_server: StartServer) -> Iterator[servers.Process]:
    """The server of the test's `board`."""
    with start_server(board) as process:
        yield process
