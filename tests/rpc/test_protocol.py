"""Addresses, and what a tracker that is none leads to."""

from __future__ import annotations

import socket
import threading

import pytest

from evo_tvm.errors import BoardError, UsageError
from evo_tvm.rpc.protocol import Address, Code, ask_tracker, greet_tracker, receive_text, send_number, send_text
from evo_tvm.rpc.tracker import summary


@pytest.mark.parametrize(
    "text, host, port, local",
    [
        ("board:9090", "board", 9090, False),
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        ("[fe80::1]:80", "fe80::1", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, local: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_local) == (host, port, local)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["board", ":9090", "board:", "board:70000", "board:9o", "board:-1", "board:\u0661", ""]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        Address.parse(text, "--rpc")


def test_texts_are_behind_their_length_and_have_a_limit() -> None:
    left, right = socket.socketpair()
    with left, right:
        send_text(left, "käse")
        assert receive_text(right, 5) == "käse"
        send_text(left, "käse!")
        with pytest.raises(ConnectionError, match="not of this protocol"):
            receive_text(right, 5)
        send_number(left, -1)
        right.recv(6)
        with pytest.raises(ConnectionError):
            receive_text(right, 5)
        left.close()
        with pytest.raises(ConnectionResetError, match="was closed"):
            receive_text(right, 5)


def test_a_tracker_that_is_none() -> None:
    left, right = socket.socketpair()
    with left, right:
        send_number(right, 7)
        with pytest.raises(ConnectionError, match="not a tracker"):
            greet_tracker(left)
        send_text(right, "{")
        with pytest.raises(ConnectionError, match="not a tracker"):
            ask_tracker(left, Code.SUMMARY)


def test_a_tracker_that_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BoardError, match=rf"tracker 127.0.0.1:{port}: .*refused\nStart it with: evo-tvm rpc tracker"):
        summary(Address("127.0.0.1", port))


def test_a_tracker_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(BoardError, match="it does not answer"):
            summary(Address(*listener.getsockname()), 0.2)


def test_a_tracker_that_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close()).start()
        with pytest.raises(BoardError, match=r"cannot be reached: (the connection was closed|connection reset)"):
            summary(Address(*listener.getsockname()), 5)
