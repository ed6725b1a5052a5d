"""The server that `evo-tvm board build` makes, where things go wrong: on an emulated board, with the same messages as
the server in Python (tests/rpc/test_failures.py)."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.errors import BoardError
from evo_tvm.rpc.protocol import Address
from evo_tvm.rpc.remote_module import RemoteModule
from evo_tvm.rpc.session import connect
from tests.emulated.boards import A76, RV128, TIMEOUT_S, Board, assert_close
from tests.emulated.conftest import StartServer
from tests.rpc import servers

pytestmark = pytest.mark.timeout(1800)  # the server for RISC-V is compiled once: minutes of CPU time

BOARD_IDS = {"argvalues": [A76, RV128], "ids": lambda board: board.name}


@pytest.fixture
def artifact(board: Board, float_model: onnx.ModelProto) -> Artifact:
    return evo_tvm.compile(float_model, board.target, input_shapes={"input": (1, 1, 28, 28)})


@pytest.mark.parametrize("board", **BOARD_IDS)
def test_a_server_killed_in_the_middle_of_a_benchmark(
    board: Board, artifact: Artifact, server: servers.Process
) -> None:
    module = RemoteModule(artifact, connect(server.address, timeout_s=TIMEOUT_S))
    measured = iter([lambda: os.kill(server.process.pid, signal.SIGKILL)])
    with pytest.raises(BoardError) as raised:
        module.benchmark(min_time_s=TIMEOUT_S, progress=lambda *_: next(measured, lambda: None)())
    assert str(raised.value) == (
        f"board {server.address}: the connection was lost while measuring\n"
        "The board, its network or its server went down. See that the server runs there, and try again."
    )


@pytest.mark.parametrize("board", **BOARD_IDS)
def test_a_full_disk(board: Board, artifact: Artifact, start_server: StartServer, tmp_path: Path) -> None:
    limit = len(artifact.library) // 2
    with start_server(board, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) as server:
        with pytest.raises(BoardError) as raised:
            RemoteModule(artifact, connect(server.address, timeout_s=TIMEOUT_S))
        assert f"board {server.address}: uploading" in str(raised.value)
        assert f"cannot write to {tmp_path / 'work'}: File too large (" in str(raised.value)
        assert not list((tmp_path / "work").iterdir())
        connect(server.address, timeout_s=TIMEOUT_S).close()


@pytest.mark.parametrize("board", **BOARD_IDS)
def test_a_wrong_key(board: Board, start_server: StartServer) -> None:
    with start_server(board, "--key", "rpi4") as server:
        with pytest.raises(BoardError) as raised:
            connect(server.address, key="rpi5", timeout_s=TIMEOUT_S)
        assert str(raised.value) == (
            f"board {server.address} (rpi5): it has another key; the key 'rpi5' was given\nGive its own with --key."
        )
        connect(server.address, key="rpi4", timeout_s=TIMEOUT_S).close()


@pytest.mark.parametrize("board", **BOARD_IDS)
def test_two_clients_at_once_over_one_tracker(
    board: Board, artifact: Artifact, float_model: onnx.ModelProto, start_server: StartServer
) -> None:
    pytest.importorskip("tornado", reason='no tornado: pip install "evo_tvm[rpc]"')
    images = np.random.default_rng(0).standard_normal((2, 2, 1, 1, 28, 28)).astype(np.float32)
    with evo_tvm.compile(float_model, input_shapes={"input": (1, 1, 28, 28)}).module() as here:
        expected = [[here(image) for image in some] for some in images]
    results: list[list[np.ndarray]] = [[], []]

    def client(number: int, tracker: Address) -> None:
        for image in images[number]:  # a session each, so that they take turns
            with RemoteModule(artifact, connect(tracker=tracker, key="shared", timeout_s=TIMEOUT_S)) as module:
                results[number].append(module(image))

    with servers.tracker() as tracker, start_server(board, "--tracker", tracker.address, "--key", "shared") as server:
        server.wait_for("registered")
        threads = [threading.Thread(target=client, args=(number, tracker.address)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for got, wanted in zip(results, expected, strict=True):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_close(one, other)
