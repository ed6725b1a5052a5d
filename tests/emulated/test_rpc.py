"""The small reference model over RPC on emulated boards, against this machine's results.

The server is built as `evo-tvm board build` does, which takes minutes of CPU time for RISC-V; what was compiled stays
in the user's own cache.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.board.build import build_board
from evo_tvm.errors import ArtifactError, EvoError
from evo_tvm.executor.cache import Cache
from evo_tvm.rpc.remote_module import RemoteModule
from evo_tvm.rpc.session import connect
from evo_tvm.target import resolve
from tests.emulated.boards import A72, A76, BOARDS, RV128, U74, Board, assert_close, assert_exact
from tests.rpc import servers

TIMEOUT_S = 300.0
#: libc, and what comes with it; the libraries in the folder need the C++ library of the board.
OF_THE_SYSTEM = re.compile(r"(lib(c|m|dl|pthread|stdc\+\+|gcc_s)\.so\.\d+|ld-linux-\S+|libtvm_\w+\.so)")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each architecture, once it was made."""
    return {}


def board_folder(board: Board, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    board.require()
    if board.arch not in built:
        folder = tmp_path_factory.mktemp("board") / board.arch
        try:
            build_board(resolve(board.target), folder, cache=Cache(Path.home() / ".cache" / "evo_tvm"))
        except EvoError as error:
            if "pip cannot download" not in str(error):
                raise
            pytest.skip(f"no server for {board.name}: {error}")
        built[board.arch] = folder
    return built[board.arch]


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    built: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[servers.Process]:
    """The server of the test's `board`, emulated."""
    board = request.getfixturevalue("board")
    program = board_folder(board, built, tmp_path_factory) / "rpc_server"
    emulator = [f"qemu-{board.arch}", "-cpu", board.cpu, "-L", board.sysroot]
    with servers.running([*emulator, program, "--port", 0, "--work", tmp_path / "work"]) as process:
        yield process


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_reference_model_over_rpc(
    board: Board, server: servers.Process, float_model: onnx.ModelProto, int8_model: onnx.ModelProto, folder: Path
) -> None:
    inputs = {"input": np.load(folder / "image.npy")}
    shapes = {"input": inputs["input"].shape}
    for model in (float_model, int8_model):
        with evo_tvm.compile(model, input_shapes=shapes).module() as here:
            expected = here.run(inputs)
        artifact = evo_tvm.compile(model, board.target, input_shapes=shapes)
        with RemoteModule(artifact, connect(server.address, timeout_s=TIMEOUT_S), num_threads=2) as there:
            assert (there.board.arch, there.board.cpu) == (board.arch, f"emulated {board.arch}")
            outputs = there.run(inputs)
            pairs = [(outputs[name], value) for name, value in expected.items()]
            if model is int8_model:
                assert_exact(pairs)
            else:
                assert_close(*pairs[0])
            profile = there.profile(repeat=1, warmup=0, inputs=inputs)
            assert [kernel.name for kernel in profile.kernels] == [k.name for k in artifact.manifest.kernels]
            assert there.benchmark(repeat=2, warmup=0, min_time_s=0, inputs=inputs).min_ms > 0


@pytest.mark.parametrize("board", [A76, U74], ids=lambda board: board.name)
def test_a_model_of_another_architecture(board: Board, server: servers.Process, small_evo: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"compiled for \w+ \(.*\), and the board is {board.arch}"):
        RemoteModule(small_evo, connect(server.address, timeout_s=TIMEOUT_S))


@pytest.mark.parametrize("board", [A72, U74], ids=lambda board: board.name)
def test_a_model_for_a_better_cpu(board: Board, server: servers.Process, float_model: onnx.ModelProto) -> None:
    better = {"aarch64": A76, "riscv64": RV128}[board.arch]
    artifact: Artifact = evo_tvm.compile(float_model, better.target, input_shapes={"input": (1, 1, 28, 28)})
    with pytest.raises(ArtifactError, match=rf"and the board \(emulated {board.arch}\) lacks .*(dotprod|\bv\b)"):
        RemoteModule(artifact, connect(server.address, timeout_s=TIMEOUT_S))


@pytest.mark.parametrize("board", [A76, RV128], ids=lambda board: board.name)
def test_the_folder_of_a_board(board: Board, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = board_folder(board, built, tmp_path_factory)
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
