"""The RPC server of a board with Python: one session at a time, each in a process of its own.

The program that `evo-tvm board build` makes, for boards without Python, does the same in C++ (board/rpc_server).
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from evo_tvm.rpc.board_session import prepare_to_serve, serve
from evo_tvm.rpc.protocol import (
    MAGIC,
    MAX_KEY_BYTES,
    MISMATCH,
    Address,
    Code,
    ask_tracker,
    greet_tracker,
    listen,
    receive_number,
    receive_text,
    send_number,
    send_text,
)
from evo_tvm.runtime.fork import fork

#: How long a client may take for its handshake, and a session for its end after its client is gone.
HANDSHAKE_S, GRACE_S = 10.0, 2.0
#: How often the tracker is asked whether the board was given away, and for how many times it may stay unused then.
_ASK_S, _UNUSED = 2.0, 5
_TRACKER_S, _RETRY_S = 10.0, 5.0

Say = Callable[[str], None]


class Server:
    """Listens at `address`, port 0 being any free one, for clients that know `key`, or that `tracker` sends.

    `folder`: where uploaded files are kept. `say` gets a line for each event.
    Raises BoardError: the address cannot be had, or the folder not written. MissingExtraError: TVM is not installed.
    """

    def __init__(self, address: Address, key: str, tracker: Address | None, folder: Path, say: Say) -> None:
        self._key, self._tracker_address, self._folder, self._say = key, tracker, folder.absolute(), say
        prepare_to_serve(folder)
        self._tracker: socket.socket | None = None
        self._listener = listen(address, "server")
        self.address = Address(address.host, self._listener.getsockname()[1])

    def serve_forever(self) -> None:
        """Serves one client after the other, until the process ends."""
        while True:
            client, name = self._next_client()
            with client:
                self._say(f"session of {name} begins")
                self._say(f"session of {name} {self._run_session(client)}")

    # ---- Until a client is there ----

    def _next_client(self) -> tuple[socket.socket, str]:
        """The next client that has the right key, and its address as text."""
        match_key = self._register()
        unused = 0
        while True:
            waiting = [self._listener] if self._tracker is None else [self._listener, self._tracker]
            ready, _, _ = select.select(waiting, [], [], None if self._tracker is None else _ASK_S)
            if self._listener in ready:
                client = self._greet(match_key)
                if client is not None:
                    return client
            elif self._tracker is not None:
                pending = None if ready else self._ask(Code.GET_PENDING_MATCHKEYS)  # what is ready is its end
                unused = unused + 1 if pending is not None and match_key not in pending else 0
                if pending is None or unused >= _UNUSED:
                    match_key, unused = self._register(lost=pending is None), 0

    def _greet(self, match_key: str) -> tuple[socket.socket, str] | None:
        """Accepts a client; None where it does not speak the protocol, or has another key."""
        client, peer = self._listener.accept()
        name = str(Address(*peer[:2]))
        client.settimeout(HANDSHAKE_S)
        try:
            if receive_number(client) == MAGIC:
                asked = receive_text(client, MAX_KEY_BYTES).split(" ")[0]
                if asked == f"client:{match_key}":
                    send_number(client, MAGIC)
                    send_text(client, f"server:{self._key}")
                    client.settimeout(None)
                    return client, name
                send_number(client, MISMATCH)
                self._say(f"refused {name}: it has another key")
        except OSError:
            pass
        client.close()
        return None

    def _register(self, lost: bool = False) -> str:
        """The key that a client must have: our own, or a fresh one that the tracker hands out. Waits for the tracker
        as long as it takes."""
        if self._tracker_address is None:
            return self._key
        if lost and self._tracker is not None:
            self._tracker.close()
            self._tracker = None
        said = False
        while True:
            match_key = f"{self._key}:{random.SystemRandom().random()}"
            if self._tracker is None:
                self._tracker = self._connect_tracker()
            port = self.address.port
            if self._tracker is not None and self._ask(Code.PUT, self._key, (port, match_key), None) == Code.SUCCESS:
                return match_key
            if not said:
                self._say(f"the tracker {self._tracker_address} cannot be reached; trying again")
                said = True
            self._tracker = None
            time.sleep(_RETRY_S)

    def _connect_tracker(self) -> socket.socket | None:
        assert self._tracker_address is not None
        with suppress(OSError):
            sock = socket.create_connection((self._tracker_address.host, self._tracker_address.port), _TRACKER_S)
            with suppress(OSError):
                greet_tracker(sock)
                information = {"key": f"server:{self._key}", "addr": (None, self.address.port)}
                if ask_tracker(sock, Code.UPDATE_INFO, information) == Code.SUCCESS:
                    self._say(f"registered at the tracker {self._tracker_address} as {self._key!r}")
                    return sock
            sock.close()
        return None

    def _ask(self, *message: object) -> Any:
        """The tracker's answer; None where it gives none."""
        with suppress(OSError):
            if self._tracker is not None:
                return ask_tracker(self._tracker, *message)
        return None

    # ---- A session ----

    def _run_session(self, client: socket.socket) -> str:
        """Serves the client in a child process until either is gone; how it ended."""
        for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
            client.setsockopt(socket.IPPROTO_TCP, option, value)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        alive, hold = os.pipe()  # the child holds an end, so that its death is seen at the other
        sys.stdout.flush()
        child = fork()
        if child == 0:
            self._listener.close()
            if self._tracker is not None:
                self._tracker.close()
            os.close(alive)
            serve(client.fileno(), self._folder)
        os.close(hold)
        try:
            watch = select.poll()
            watch.register(alive, select.POLLHUP)
            watch.register(client, select.POLLRDHUP)
            if all(descriptor != alive for descriptor, _ in watch.poll()):
                watch.unregister(client)
                if not watch.poll(GRACE_S * 1000):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    return f"ended: its client is gone, and it still ran {GRACE_S:g} s later"
            _, status = os.waitpid(child, 0)
        except BaseException:
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
            raise
        finally:
            os.close(alive)
        code = os.waitstatus_to_exitcode(status)
        return "ended" if code == 0 else f"died with {f'signal {-code}' if code < 0 else f'status {code}'}"
