"""The little of TVM's RPC that is not in its runtime library: addresses, the handshake, and the tracker's messages.

A session begins with the client's magic number and key, each a 32-bit length or number before the text, and the
server's answer. A tracker exchanges JSON texts, each behind its length, that begin with one of the codes below.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from evo_tvm.errors import BoardError, UsageError

MAGIC, MISMATCH = 0xFF271, 0xFF273
TRACKER_MAGIC = 0x2F271
#: A client's key, and a tracker's message, are never longer than this.
MAX_KEY_BYTES, MAX_MESSAGE_BYTES = 4096, 1 << 20

_NUMBER = struct.Struct("<i")


class Code(IntEnum):
    """What a message to a tracker asks for; its answers begin with SUCCESS or FAIL."""

    FAIL = -1
    SUCCESS = 0
    PUT = 3
    REQUEST = 4
    UPDATE_INFO = 5
    SUMMARY = 6
    GET_PENDING_MATCHKEYS = 7


@dataclass(frozen=True)
class Address:
    """Where a server or a tracker listens."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @staticmethod
    def parse(text: str, where: str = "address") -> Address:
        """ "board:9090", "[::1]:9090". Raises UsageError: a text of another form, naming `where`."""
        host, _, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise UsageError("this is no address", where=where, expected="HOST:PORT", got=repr(text))
        return Address(host, int(port))


def listen(address: Address, what: str) -> socket.socket:
    """A socket that listens at `address`; port 0 is any free one. Raises BoardError, naming `what`: not to be had."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address.host, address.port), family=family, backlog=64)
    except OSError as error:
        code = error.errno or 0  # those of getaddrinfo are below 0
        reason = (os.strerror(code) if code > 0 else error.strerror or str(error)).lower()
        raise BoardError(
            f"the {what} cannot listen there: {reason}", where=address, hint="Choose another --port or --host."
        ) from None


def send_number(sock: socket.socket, number: int) -> None:
    sock.sendall(_NUMBER.pack(number))


def receive_number(sock: socket.socket) -> int:
    return int(_NUMBER.unpack(receive(sock, _NUMBER.size))[0])


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises ConnectionError: the other side closed before; OSError as sockets do."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise ConnectionResetError("the connection was closed")
        parts += part
    return bytes(parts)


def send_text(sock: socket.socket, text: str) -> None:
    data = text.encode()
    sock.sendall(_NUMBER.pack(len(data)) + data)


def receive_text(sock: socket.socket, limit: int) -> str:
    """Raises ConnectionError: the connection was closed, or that is no such text; OSError as sockets do."""
    size = receive_number(sock)
    if not 0 <= size <= limit:
        raise ConnectionAbortedError("what came is not of this protocol")
    return receive(sock, size).decode(errors="replace")


def greet_tracker(sock: socket.socket) -> None:
    """Begins to talk to a tracker. Raises ConnectionError: it is none."""
    send_number(sock, TRACKER_MAGIC)
    if receive_number(sock) != TRACKER_MAGIC:
        raise ConnectionAbortedError("it is not a tracker")


def ask_tracker(sock: socket.socket, *message: object) -> Any:
    """The answer to a message, its code first. Raises ConnectionError: it is no tracker's; OSError as sockets do."""
    send_text(sock, json.dumps(message))
    return receive_answer(sock)


def receive_answer(sock: socket.socket) -> Any:
    """Raises as `ask_tracker`."""
    try:
        return json.loads(receive_text(sock, MAX_MESSAGE_BYTES))
    except ValueError:
        raise ConnectionAbortedError("it is not a tracker") from None
