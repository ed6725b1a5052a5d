"""A tracker, seen from a client: it knows boards by their keys and gives each to one client at a time."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from evo_tvm.errors import BoardError
from evo_tvm.rpc.protocol import Address, Code, ask_tracker, greet_tracker

#: A tracker answers at once, unless it is asked for a board.
_ANSWER_S = 10.0


@dataclass(frozen=True)
class Lease:
    """A board that the tracker gave to us: `match_key` opens one session there."""

    address: Address
    match_key: str


@dataclass(frozen=True)
class KeyStatus:
    """The boards of one key: `free` ones, all that are registered, and clients that wait for one."""

    key: str
    free: int
    boards: tuple[Address, ...]
    waiting: int


def request(tracker: Address, key: str, timeout_s: float) -> Lease:
    """A board of this key; waits at most `timeout_s` seconds for one to become free.

    Raises BoardError: the tracker cannot be reached, knows no board of this key, or none became free.
    """
    found = {status.key: status for status in summary(tracker, min(timeout_s, _ANSWER_S))}
    known = sorted(status.key for status in found.values() if status.boards)
    if key not in known:
        raise BoardError(
            f"no board has the key {key!r}",
            where=f"tracker {tracker}",
            hint=f"Keys of its boards: {', '.join(known) or 'it has none'}. On the board, start the server with: "
            f"--tracker HOST:PORT --key {key}",
        )
    deadline = time.monotonic() + timeout_s
    with _connected(tracker, timeout_s) as sock:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            answer = ask_tracker(sock, Code.REQUEST, key, _user(), 1)
        except TimeoutError:
            boards = ", ".join(map(str, found[key].boards))
            raise BoardError(
                f"no board {key!r} became free within {timeout_s:g} s",
                where=f"tracker {tracker}",
                hint=f"In use: {boards}. Wait longer with --timeout, or see: evo-tvm rpc status --tracker {tracker}",
            ) from None
    if answer[0] != Code.SUCCESS:
        raise BoardError(f"it refuses to give a board {key!r}", where=f"tracker {tracker}")
    host, port, match_key = answer[1]
    return Lease(Address(host, int(port)), match_key)


def summary(tracker: Address, timeout_s: float = _ANSWER_S) -> tuple[KeyStatus, ...]:
    """What the tracker knows, by key. Raises BoardError: it cannot be reached, or is no tracker."""
    with _connected(tracker, timeout_s) as sock:
        answer = ask_tracker(sock, Code.SUMMARY)
    queues, servers = answer[1]["queue_info"], answer[1]["server_info"]
    boards: dict[str, list[Address]] = {}
    for server in servers:
        boards.setdefault(server["key"].removeprefix("server:"), []).append(Address(*server["addr"]))
    return tuple(
        KeyStatus(
            key,
            queues.get(key, {}).get("free", 0),
            tuple(sorted(boards.get(key, ()), key=str)),
            queues.get(key, {}).get("pending", 0),
        )
        for key in sorted(queues.keys() | boards.keys())
    )


@contextmanager
def _connected(tracker: Address, timeout_s: float) -> Iterator[socket.socket]:
    """A connection to the tracker, the errors of which are BoardErrors; TimeoutError passes while it is asked."""
    try:
        sock = socket.create_connection((tracker.host, tracker.port), timeout_s)
    except OSError as error:
        raise _unreachable(tracker, error) from None
    with sock:
        try:
            greet_tracker(sock)
            yield sock
        except OSError as error:
            raise _unreachable(tracker, error) from None


def _unreachable(tracker: Address, error: OSError) -> BoardError:
    reason = "it does not answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
    return BoardError(
        f"the tracker cannot be reached: {reason}",
        where=f"tracker {tracker}",
        hint="Start it with: evo-tvm rpc tracker",
    )


def _user() -> str:
    with suppress(Exception):  # a user without a name
        return getpass.getuser()
    return ""
