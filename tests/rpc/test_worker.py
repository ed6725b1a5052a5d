"""How the process at the other end of a session reads what TVM's client says."""

from __future__ import annotations

import pytest

from evo_tvm.rpc.worker import _LOST, _text

FROM_BOARD = "Error caught from RPC call: "


@pytest.mark.parametrize(
    "said",
    [
        "Check failed: (code == RPCCode::kReturn) is false: code=1",
        "Check failed: (code == RPCCode::kReturn) is false: code=kShutdown",
        "Socket SockChannel::Recv Error: Connection reset by peer",
        "Socket SockChannel::Send Error: Broken pipe",
    ],
)
def test_a_connection_that_is_gone(said: str) -> None:
    assert _LOST.search(said)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (f"RPCError: {FROM_BOARD}cannot write to /work:\n no space left", "cannot write to /work: no space left"),
        (f"{FROM_BOARD}Check failed: (n == 0) is false: a kernel failed with code=12", "a kernel failed with code=12"),
    ],
)
def test_an_error_of_the_board(said: str, text: str) -> None:
    assert _LOST.search(said) is None and _text(RuntimeError(said)) == text
