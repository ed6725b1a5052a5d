"""bench, profile, run and rpc on the command line, as people use them."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.rpc.protocol import Address
from tests.command_line import evo, evo_apart
from tests.rpc import servers


@pytest.fixture(scope="module")
def board(tracker: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Process]:
    """A server that is registered at the tracker as "desk"."""
    work = tmp_path_factory.mktemp("work")
    with servers.server(work, "--tracker", tracker, "--key", "desk") as process:
        process.wait_for("registered at the tracker")
        yield process


def test_bench_directly(server: servers.Process, small_evo: Path) -> None:
    done = evo("bench", small_evo, "--rpc", server.address, "--rounds", 1)
    assert done.status == 0, done.err
    assert re.search(r"min ms +median ms +p90 ms +p99 ms +runs", done.out)
    assert "outputs agree with this machine: difference 0" in done.out


def test_bench_through_a_tracker(board: servers.Process, tracker: Address, small_evo: Path) -> None:
    done = evo("bench", small_evo, "--tracker", tracker, "--key", "desk", "--rounds", 2, "--threads", 2, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["difference"] == 0 and found["provenance"]["threads"] == 2
    assert found["min_ms"] <= found["median_ms"] <= found["p90_ms"] <= found["p99_ms"]
    assert len(found["samples_ms"]) >= 6 and found["board"]["arch"] == os.uname().machine


def test_profile(server: servers.Process, small_evo: Path) -> None:
    done = evo("profile", small_evo, "--rpc", server.address, "--repeat", 3, "--json")
    assert done.status == 0, done.err
    assert len(json.loads(done.out)["kernels"]) >= 3


def test_run_compares_with_this_machine_or_a_file(server: servers.Process, small_evo: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "y.npz"
    done = evo("run", small_evo, "--random", 3, "--rpc", server.address, "-o", outputs)
    assert done.status == 0, done.err
    assert "outputs agree with this machine: difference 0" in done.out
    done = evo("run", small_evo, "--random", 3, "--reference", outputs)  # here, against what the board gave
    assert done.status == 0 and f"outputs agree with {outputs}" in done.out
    with np.load(outputs) as arrays:
        np.savez(tmp_path / "wrong.npz", scores=arrays["scores"] * 1.01)
    done = evo("run", small_evo, "--random", 3, "--rpc", server.address, "--reference", tmp_path / "wrong.npz")
    assert done.status == 1
    assert "the outputs are not those of the reference (expected a difference of at most 0.0001, got 0.0099" in done.err


def test_a_reference_that_is_compiled_for_this_machine(
    server: servers.Process, small_evo: Path, small_onnx: Path
) -> None:
    done = evo("bench", small_evo, "--rpc", server.address, "--rounds", 1, "--reference", small_onnx, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["difference"] <= 1e-4


def test_status(board: servers.Process, tracker: Address) -> None:
    done = evo("rpc", "status", "--tracker", tracker, "--json")
    assert done.status == 0, done.err
    (desk,) = (status for status in json.loads(done.out) if status["key"] == "desk")
    assert desk == {"key": "desk", "free": 1, "boards": [str(board.address)], "waiting": 0}
    assert re.search(rf"desk +1 +1 +0 +{board.address}", evo("rpc", "status", "--tracker", tracker).out)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--rpc", "a:1", "--tracker", "b:2", "--key", "k"], "--rpc and --tracker exclude each other"),
        (["--tracker", "b:2"], "a tracker needs the key of a board\nUse --key NAME; keys are listed by: evo-tvm rpc"),
        (["--key", "k"], "--key needs --rpc or --tracker"),
        (["--rpc", "board"], "--rpc: this is no address (expected HOST:PORT, got 'board')"),
    ],
)
def test_options_that_do_not_fit(small_evo: Path, options: list[str], message: str) -> None:
    done = evo("bench", small_evo, *options)
    assert done.status == 2 and message in done.err


@pytest.mark.parametrize(
    "options, status, message",
    [
        (["--tracker", "127.0.0.1:1"], 2, "a board at a tracker needs a key"),
        (["--key", "two words"], 2, "a key has neither spaces nor colons"),
        (["--key", "a:b"], 2, "a key has neither spaces nor colons"),
        (["--work", "/proc/nothing"], 1, "/proc/nothing: uploads cannot be kept there: no such file"),
        (["--host", "192.0.2.1"], 1, "192.0.2.1:9090: the server cannot listen there: cannot assign requested address"),
    ],
)
def test_servers_that_cannot_be(tmp_path: Path, options: list[str], status: int, message: str) -> None:
    work = [] if "--work" in options else ["--work", tmp_path]
    done = evo("rpc", "server", *work, *options)
    assert done.status == status and message in done.err


def test_a_server_that_is_open_to_the_network_says_so(tmp_path: Path) -> None:
    with servers.server(tmp_path, "--host", "0.0.0.0") as server:
        server.wait_for("warning: open to the network at 0.0.0.0:0: whoever reaches it can run anything as this user")
        server.wait_for("listening on 0.0.0.0:")


def test_ctrl_c_ends_a_server(tmp_path: Path) -> None:
    with servers.server(tmp_path) as server:
        assert server.address.port
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 130


def test_a_port_that_is_taken(server: servers.Process, tmp_path: Path) -> None:
    done = evo_apart("rpc", "server", "--work", tmp_path, "--port", server.address.port)
    assert done.status == 1
    assert f"{server.address}: the server cannot listen there: address already in use\nChoose another" in done.err
