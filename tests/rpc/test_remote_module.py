"""A model at the other end of a session does what it does here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError, BoardError, InputError, UsageError
from evo_tvm.rpc.remote_module import RemoteModule, check_board
from evo_tvm.rpc.session import connect
from evo_tvm.runtime import cpu
from tests.rpc import servers
from tests.rpc.models import awkward
from tests.rpc.servers import Process


@pytest.fixture(scope="module")
def remote(small_evo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteModule]:
    """On a server of its own, which it keeps busy."""
    with servers.server(tmp_path_factory.mktemp("work")) as server, connect(server.address) as session:
        yield RemoteModule(small_evo, session)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)


def test_it_knows_its_board(remote: RemoteModule) -> None:
    assert remote.board.arch == cpu.arch()
    assert remote.board.cpu == cpu.model()
    assert remote.board.features == cpu.features()
    assert remote.board.cores == cpu.usable_cores()
    assert remote.board.server == f"evo_tvm {evo_tvm.__version__}"


def test_outputs_are_those_of_this_machine(remote: RemoteModule, small_evo: Path) -> None:
    here = evo_tvm.load(small_evo)
    assert (remote.inputs, remote.outputs) == (here.inputs, here.outputs)
    for seed in range(3):
        np.testing.assert_array_equal(remote(image(seed)), here(image(seed)))
    strided = np.asfortranarray(image(7))
    np.testing.assert_array_equal(remote.run({"image": strided})["scores"], here(strided))


def test_inputs_that_do_not_fit(remote: RemoteModule) -> None:
    with pytest.raises(InputError, match="wrong shape"):
        remote(image()[:, :2])
    with pytest.raises(InputError, match="wrong dtype"):
        remote(image().astype(np.float64))
    with pytest.raises(InputError, match=re.escape("wrong number of inputs (expected 1, got 2)")):
        remote(image(), image())
    with pytest.raises(InputError, match=re.escape("unknown input 'picture' (expected image, got picture)")):
        remote.run({"picture": image()})
    assert remote(image()).shape == (1, 10)


def test_benchmark(remote: RemoteModule) -> None:
    taken = remote.benchmark(repeat=40, warmup=2, min_time_s=0.01, inputs={"image": image()})
    assert len(taken.samples_ms) >= 40 and 0 < taken.min_ms <= taken.median_ms <= taken.p99_ms < 100
    assert taken.provenance.cpu == remote.board.cpu
    with pytest.raises(UsageError, match="repeat >= 1"):
        remote.benchmark(repeat=0)


def test_profile(remote: RemoteModule) -> None:
    taken = remote.profile(repeat=7)
    assert [kernel.name for kernel in taken.kernels] == [kernel.name for kernel in remote.manifest.kernels]
    assert taken.samples == 7 and taken.total_ms > 0 and all(kernel.min_ms >= 0 for kernel in taken.kernels)
    assert taken.memory_gbytes_per_s is not None and taken.memory_gbytes_per_s > 0.1


def test_models_of_awkward_shapes(server: Process, tmp_path: Path) -> None:
    """Several inputs and outputs, integers, an input that is an output, and a scalar."""
    artifact = evo_tvm.compile(awkward())
    inputs = {"a": np.float32(3.5).reshape(()), "b": np.arange(6, dtype=np.int64).reshape(2, 3)}
    with artifact.module() as here, RemoteModule(artifact, connect(server.address), num_threads=2) as there:
        expected, got = here.run(inputs), there.run(inputs)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype and got[name].shape == value.shape
        np.testing.assert_array_equal(got[name], value)


def test_files_are_sent_once_for_each_content(server: Process, work: Path, small_evo: Path, tmp_path: Path) -> None:
    with RemoteModule(small_evo, connect(server.address)) as module:
        module(image())
    before = {path.name: path.stat().st_ino for path in work.iterdir()}
    sent: list[str] = []
    copy = tmp_path / "copy.evo"
    copy.write_bytes(small_evo.read_bytes())
    with RemoteModule(copy, connect(server.address), progress=lambda text, done, total: sent.append(text)):
        pass
    assert not sent
    assert {path.name: path.stat().st_ino for path in work.iterdir()} == before
    assert all(re.fullmatch(r"[0-9a-f]{64}\.(so|bin)", name) for name in before)


def test_a_closed_module(server: Process, small_evo: Path) -> None:
    module = RemoteModule(small_evo, connect(server.address))
    module.close()
    module.close()
    with pytest.raises(BoardError, match="the session is closed"):
        module(image())


def test_another_architecture(server: Process, small_evo: Path, tmp_path: Path) -> None:
    """By what the file says of itself, before anything is sent."""
    artifact = Artifact.open(small_evo)
    target = replace(artifact.manifest.target, name="cortex-a76", triple="aarch64-linux-gnu", features=("neon",))
    foreign = tmp_path / "foreign.evo"
    replace(artifact, manifest=replace(artifact.manifest, target=target)).save(foreign)
    wanted = rf"{foreign}: compiled for aarch64 \(cortex-a76\), and the board is {cpu.arch()}\nCompile the model for"
    with pytest.raises(ArtifactError, match=wanted):
        RemoteModule(foreign, connect(server.address))
    RemoteModule(small_evo, connect(server.address)).close()  # the board is free again


def test_a_feature_that_the_board_lacks(remote: RemoteModule) -> None:
    target = replace(remote.manifest.target, features=(*remote.manifest.target.features, "sve2"))
    with pytest.raises(ArtifactError, match=r"and the board \(.*\) lacks sve2"):
        check_board(replace(remote.manifest, target=target), remote.board, "m.evo")


def test_a_library_that_cannot_be_loaded(server: Process, small_evo: Path) -> None:
    artifact = replace(Artifact.open(small_evo), library=b"\x7fELF" + bytes(100))
    with pytest.raises(BoardError, match="loading the library failed: ") as raised:
        RemoteModule(artifact, connect(server.address))
    assert str(server.address) in str(raised.value)
