"""The small reference model over RPC on emulated boards, against this machine's results, and what a board refuses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.errors import ArtifactError
from evo_tvm.rpc.remote_module import RemoteModule
from evo_tvm.rpc.session import connect
from tests.emulated.boards import (
    A72,
    A76,
    BOARDS,
    RV128,
    RV256,
    TIMEOUT_S,
    U74,
    Board,
    assert_close,
    assert_exact,
    run_over_rpc,
)
from tests.rpc import servers

pytestmark = pytest.mark.timeout(1800)  # the server for RISC-V is compiled once: minutes of CPU time

#: libc, and what comes with it; the libraries in the folder need the C++ library of the board.
OF_THE_SYSTEM = re.compile(r"(lib(c|m|dl|pthread|stdc\+\+|gcc_s)\.so\.\d+|ld-linux-\S+|libtvm_\w+\.so)")


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_reference_model_over_rpc(
    board: Board, server: servers.Process, float_model: onnx.ModelProto, int8_model: onnx.ModelProto, folder: Path
) -> None:
    image = np.load(folder / "image.npy")
    ((logits, expected),) = run_over_rpc(float_model, board, server.address, image)
    assert logits.shape == (1, 10)
    assert_close(logits, expected)
    assert_exact(run_over_rpc(int8_model, board, server.address, image))


@pytest.mark.parametrize("board", [A76, RV256], ids=lambda board: board.name)
def test_what_a_board_measures(board: Board, server: servers.Process, float_model: onnx.ModelProto) -> None:
    artifact = evo_tvm.compile(float_model, board.target, input_shapes={"input": (1, 1, 28, 28)})
    with RemoteModule(artifact, connect(server.address, timeout_s=TIMEOUT_S)) as there:
        assert (there.board.arch, there.board.cpu) == (board.arch, f"emulated {board.arch}")
        profile = there.profile(repeat=1, warmup=0)
        assert [kernel.name for kernel in profile.kernels] == [k.name for k in artifact.manifest.kernels]
        assert there.benchmark(repeat=2, warmup=0, min_time_s=0).min_ms > 0


@pytest.mark.parametrize(
    ("board", "target", "text"),
    [
        (A76, "sifive-u74", "compiled for riscv64 (sifive-u74), and the board is aarch64"),
        (U74, "cortex-a72", "compiled for aarch64 (cortex-a72), and the board is riscv64"),
        (
            A72,
            "cortex-a76",
            "compiled for cortex-a76, and the board (emulated aarch64) lacks dotprod, fullfp16, rdm, lse, rcpc",
        ),
        (U74, "rv64gcv", "compiled for rv64gcv, and the board (emulated riscv64) lacks v, vectors of exactly 128 bits"),
        (RV256, "rv64gcv", "compiled for rv64gcv, and the board (emulated riscv64) lacks vectors of exactly 128 bits"),
        (
            RV128,
            "rv64gcv+zvl256b",
            "compiled for rv64gcv+zvl256b, and the board (emulated riscv64) lacks zvl256b, vectors of exactly 256 bits",
        ),
    ],
)
def test_a_model_for_another_cpu(
    board: Board, server: servers.Process, target: str, text: str, small_onnx: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.evo"
    evo_tvm.compile(small_onnx, target).save(path)
    with pytest.raises(ArtifactError) as raised:
        RemoteModule(path, connect(server.address, timeout_s=TIMEOUT_S))
    advice = "Compile the model for the board: evo-tvm targets lists what there is."
    assert str(raised.value) == f"{path}: {text}\n{advice}"


@pytest.mark.parametrize("board", [A76, RV128], ids=lambda board: board.name)
def test_the_folder_of_a_board(board: Board, board_folders: Callable[[Board], Path]) -> None:
    folder = board_folders(board)
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in files) < 15e6
    assert {path.name for path in files} >= {"evo-run", "rpc_server", "README"}
    for path in files - {folder / "README"}:
        needed = needed_libraries(path)
        assert needed and all(OF_THE_SYSTEM.fullmatch(name) for name in needed), (path, needed)
    few = re.compile(r"lib(c|m|pthread)\.so\.\d+|ld-linux-\S+")
    assert all(few.fullmatch(name) for name in needed_libraries(folder / "evo-run"))


def needed_libraries(path: Path) -> list[str]:
    listed = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"Shared library: \[(.*)\]", listed)
