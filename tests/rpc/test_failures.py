"""Boards that vanish, hang, are full or refuse: each a message that names the board, in time, and no hang."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import evo_tvm
from evo_tvm.errors import BoardError
from evo_tvm.rpc.protocol import Address
from evo_tvm.rpc.remote_module import RemoteModule
from evo_tvm.rpc.session import connect
from evo_tvm.rpc.tracker import request, summary
from tests.rpc import servers
from tests.rpc.models import slow


@pytest.fixture(scope="module")
def slow_evo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "slow.evo"
    evo_tvm.compile(slow()).save(path)
    return path


def benchmark(module: RemoteModule, then: Callable[[], object]) -> None:
    """Measures for a minute; `then` is called once, after the first runs."""
    once = iter([then])
    module.benchmark(min_time_s=60, progress=lambda *_: next(once, lambda: None)())


def test_a_server_killed_in_the_middle_of_a_benchmark(slow_evo: Path, tmp_path: Path) -> None:
    with servers.server(tmp_path) as server:
        module = RemoteModule(slow_evo, connect(server.address))
        begin = time.monotonic()
        with pytest.raises(BoardError) as raised:
            benchmark(module, lambda: os.kill(server.process.pid, signal.SIGKILL))
    assert str(raised.value) == (
        f"board {server.address}: the connection was lost while measuring\n"
        "The board, its network or its server went down. See that the server runs there, and try again."
    )
    assert time.monotonic() - begin < 30
    with pytest.raises(BoardError, match="the session is closed"):
        module.benchmark()


def test_a_session_killed_leaves_the_server(slow_evo: Path, tmp_path: Path) -> None:
    with servers.server(tmp_path) as server:
        module = RemoteModule(slow_evo, connect(server.address))
        with pytest.raises(BoardError, match="the connection was lost while measuring"):
            benchmark(module, lambda: server.signal_sessions(signal.SIGSEGV))
        server.wait_for(f"died with signal {int(signal.SIGSEGV)}")
        with RemoteModule(slow_evo, connect(server.address)) as again:
            again.benchmark(repeat=1, min_time_s=0)


def test_a_board_that_hangs_is_given_up_and_freed(slow_evo: Path, tmp_path: Path) -> None:
    with servers.server(tmp_path) as server:
        session = connect(server.address)
        module = RemoteModule(slow_evo, session)

        def hang() -> None:
            session.timeout_s = 2
            server.signal_sessions(signal.SIGSTOP)

        begin = time.monotonic()
        with pytest.raises(BoardError, match=f"{server.address}: no answer within 2 s while measuring\nIt hangs, or"):
            benchmark(module, hang)
        assert time.monotonic() - begin < 30
        server.wait_for("its client is gone, and it still ran 2 s later")
        connect(server.address, timeout_s=20).close()


def test_a_client_that_vanishes_frees_the_board(slow_evo: Path, tmp_path: Path) -> None:
    with servers.server(tmp_path) as server:
        session = connect(server.address)
        assert session._worker is not None
        session._worker.kill()
        server.wait_for(" ended")
        with pytest.raises(BoardError, match="lost while asking"):
            session.call("asking", "describe")
        connect(server.address).close()


def test_a_busy_board(server: servers.Process) -> None:
    with connect(server.address):
        with pytest.raises(BoardError, match="no answer within 1 s while connecting"):
            connect(server.address, timeout_s=1)


def test_a_full_disk_on_the_board(slow_evo: Path, tmp_path: Path) -> None:
    limit = 300_000
    with servers.server(tmp_path, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) as server:
        with pytest.raises(BoardError) as raised:
            RemoteModule(slow_evo, connect(server.address))
        assert f"board {server.address}: uploading" in str(raised.value)
        assert f"cannot write to {tmp_path}: file too large (" in str(raised.value)
        assert "MB free)" in str(raised.value)
        assert not list(tmp_path.glob("*.part"))
        connect(server.address).close()


def test_a_disk_without_space(slow_evo: Path, tmp_path: Path) -> None:
    """A disk of its own, in the server's own view of the machine."""
    view = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = [*view, 'mount -t tmpfs -o size=300k none "$0" && exec "$@"', tmp_path]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("this system lets no user mount a disk")
    with servers.running([*mount, *servers.EVO, "rpc", "server", "--port", 0, "--work", tmp_path]) as server:
        with pytest.raises(BoardError) as raised:
            RemoteModule(slow_evo, connect(server.address))
        assert str(raised.value).startswith(f"board {server.address}: uploading ")
        assert str(raised.value).endswith(f"cannot write to {tmp_path}: no space left on device (0 MB free)")
        connect(server.address).close()


def test_a_wrong_key(tmp_path: Path) -> None:
    with servers.server(tmp_path, "--key", "rpi4") as server:
        for given, text in (("rpi5", "the key 'rpi5' was given"), ("", "no key was given")):
            with pytest.raises(BoardError, match=f"it has another key; {text}\nGive its own with --key"):
                connect(server.address, key=given)
        server.wait_for("it has another key")
        connect(server.address, key="rpi4").close()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
    with pytest.raises(
        BoardError, match=f"board {address}: it cannot be reached: connection refused\nStart its server"
    ):
        connect(address)


def test_another_kind_of_server(tracker: Address) -> None:
    with pytest.raises(BoardError, match=f"board {tracker}: what listens there is no RPC server"):
        connect(tracker)


# ---- Through a tracker ----


def test_a_key_that_no_board_has(tracker: Address, tmp_path: Path) -> None:
    with servers.server(tmp_path, "--tracker", tracker, "--key", "known") as server:
        server.wait_for("registered")
        with pytest.raises(BoardError, match=f"tracker {tracker}: no board has the key 'other'\n.*its boards: .*known"):
            request(tracker, "other", 5)


def test_no_free_board(tracker: Address, tmp_path: Path) -> None:
    with servers.server(tmp_path, "--tracker", tracker, "--key", "single") as server:
        server.wait_for("registered")
        with connect(tracker=tracker, key="single"):
            begin = time.monotonic()
            with pytest.raises(BoardError, match=r"no board 'single' became free within 1 s\nIn use: 127.0.0.1:\d+"):
                connect(tracker=tracker, key="single", timeout_s=1)
            assert time.monotonic() - begin < 10
        with connect(tracker=tracker, key="single"):  # who gave up does not get it after all
            pass


def test_two_clients_at_once_both_get_right_results(tracker: Address, small_evo: Path, tmp_path: Path) -> None:
    here = evo_tvm.load(small_evo)
    images = np.random.default_rng(0).standard_normal((2, 8, 1, 3, 16, 16)).astype(np.float32)
    expected = [[here(image) for image in some] for some in images]
    results: list[list[np.ndarray]] = [[], []]

    def client(number: int) -> None:
        for image in images[number]:  # a session each, so that they take turns
            with RemoteModule(small_evo, connect(tracker=tracker, key="shared", timeout_s=120)) as module:
                results[number].append(module(image))

    with servers.server(tmp_path, "--tracker", tracker, "--key", "shared") as server:
        server.wait_for("registered")
        threads = [threading.Thread(target=client, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(results, expected)


def test_a_board_that_was_given_away_and_never_used_comes_back(tracker: Address, tmp_path: Path) -> None:
    with servers.server(tmp_path, "--tracker", tracker, "--key", "forgotten") as server:
        server.wait_for("registered")
        request(tracker, "forgotten", 5)
        with connect(tracker=tracker, key="forgotten", timeout_s=60) as session:
            assert session.where == f"board {server.address} (forgotten)"


def test_a_board_that_is_gone_is_no_longer_listed(tracker: Address, tmp_path: Path) -> None:
    with servers.server(tmp_path, "--tracker", tracker, "--key", "brief") as server:
        server.wait_for("registered")
        (status,) = (status for status in summary(tracker) if status.key == "brief")
        assert (status.free, status.boards, status.waiting) == (1, (server.address,), 0)
    end = time.monotonic() + 10
    while any(status.boards for status in summary(tracker) if status.key == "brief"):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_server_waits_for_its_tracker(small_evo: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
    with servers.server(tmp_path, "--tracker", address, "--key", "early") as server:
        server.wait_for(f"the tracker {address} cannot be reached; trying again")
        with servers.running([*servers.EVO, "rpc", "tracker", "--port", address.port]) as late:
            assert late.address == address
            server.wait_for("registered at the tracker")
            connect(tracker=address, key="early").close()
