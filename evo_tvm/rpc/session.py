"""A session at a board, from the side that asks. Nothing here waits for longer than its time-out."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from evo_tvm.errors import BoardError, MissingExtraError
from evo_tvm.rpc import tracker as trackers
from evo_tvm.rpc.board_session import FUNCTIONS
from evo_tvm.rpc.protocol import Address
from evo_tvm.runtime import cpu

#: Uploads go in pieces of this size, each of which has the whole time-out.
PIECE_BYTES = 1 << 20
#: How long any single step may take, in seconds.
TIMEOUT_S = 60.0
#: A process that is told to stop, and one that starts, take no longer than this.
_STOP_S, _START_S = 5.0, 60.0

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Board:
    """What a board says of itself. `cpu`: its name for people; `features`: under LLVM's names."""

    server: str
    arch: str
    cpu: str
    cores: int
    load: float
    features: frozenset[str]

    def as_json(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return {**asdict(self), "features": sorted(self.features)}

    @staticmethod
    def from_json(text: str) -> Board:
        """Reads what `describe` on a board gives."""
        fields = json.loads(text)
        arch = fields["arch"]
        return Board(
            server=fields["server"],
            arch=arch,
            cpu=cpu.model_of(arch, cpu.parse_cpuinfo(fields["cpuinfo"])),
            cores=fields["cores"],
            load=fields["load"],
            features=frozenset(fields["features"]),
        )


class Session:
    """An open session; `board` is what is at its other end. Get one from `connect`.

    Each step raises BoardError, which names the board: no answer within `timeout_s` seconds, or the connection was
    lost. The session is over then, and the board free for others. An error that the board itself reports is a
    BoardError too, and leaves the session open.
    """

    def __init__(self, where: str, timeout_s: float = TIMEOUT_S) -> None:
        self.where, self.timeout_s = where, timeout_s
        self._pipe, other = multiprocessing.Pipe()
        command = [sys.executable, "-m", "evo_tvm.rpc.worker", str(other.fileno())]
        self._worker: subprocess.Popen[bytes] | None = subprocess.Popen(
            command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=_quiet()
        )
        other.close()
        self._receive(_START_S, "it starts")
        self.board: Board

    def ask(self, doing: str, method: str, *arguments: object) -> Any:
        """The answer of the worker's `method`; `doing` says in an error what was being done."""
        if self._worker is None:
            raise BoardError("the session is closed", where=self.where, hint="Connect again.")
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise self._lost(doing) from None
        return self._receive(self.timeout_s, doing)

    def call(self, doing: str, function: str, *arguments: object) -> Any:
        """The answer of a function of our servers (see `board_session`)."""
        return self.ask(doing, "call", FUNCTIONS + function, *arguments)

    def upload(self, name: str, data: bytes | memoryview, step: Step | None = None) -> None:
        """Has a file on the board, of a name that stands for its content: sent only where it is not there yet."""
        doing = f"uploading {name}"
        if self.call(doing, "size", name) == len(data):
            return
        for offset in range(0, max(len(data), 1), PIECE_BYTES):
            if step is not None:
                step("uploading", offset, len(data))
            self.call(doing, "append", name, offset, bytes(data[offset : offset + PIECE_BYTES]))
        self.call(doing, "finish", name, len(data))

    def close(self) -> None:
        """Ends the session, which gives the board back; does not wait for a board that hangs."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._pipe.close()
        with suppress(subprocess.TimeoutExpired):
            worker.wait(_STOP_S)
            return
        worker.kill()
        worker.wait()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._kill()
        self.close()

    # ---- Answers ----

    def _receive(self, timeout_s: float, doing: str) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                self._kill()
                raise BoardError(
                    f"no answer within {timeout_s:g} s while {doing}",
                    where=self.where,
                    hint="It hangs, or is cut off, or is slow: --timeout gives it longer.",
                )
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._lost(doing) from None
        except BaseException:  # Ctrl-C: what the worker does now is of no use
            self._kill()
            raise
        if kind == "value":
            return answer
        if kind == "missing":
            self._kill()
            raise MissingExtraError(answer)
        if kind == "lost":
            raise self._lost(doing)
        raise BoardError(f"{doing} failed: {answer}", where=self.where)

    def _lost(self, doing: str) -> BoardError:
        self._kill()
        return BoardError(
            f"the connection was lost while {doing}",
            where=self.where,
            hint="The board, its network or its server went down. See that the server runs there, and try again.",
        )

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None
            self._pipe.close()


def connect(
    rpc: Address | None = None, tracker: Address | None = None, key: str = "", timeout_s: float = TIMEOUT_S
) -> Session:
    """A session at the board that listens at `rpc`, or at one that `tracker` has for `key`.

    `timeout_s`: how long the tracker may take to have a board free, and then any single step.
    Raises BoardError: no board is to be had, it has another key, or its server is not evo_tvm's.
    """
    session = Session(f"board {rpc}" if rpc is not None else f"tracker {tracker}", timeout_s)
    try:
        match_key = key
        if tracker is not None:  # the worker runs already: a board that is given and not used at once is taken back
            lease = trackers.request(tracker, key, timeout_s)
            rpc, match_key = lease.address, lease.match_key
        assert rpc is not None
        session.where = f"board {rpc}" + (f" ({key})" if key else "")
        try:
            session.ask("connecting", "connect", rpc.host, rpc.port, match_key)
        except BoardError as error:
            raise _refused(error, rpc, key) from None
        try:
            session.board = Board.from_json(session.call("asking what it is", "describe"))
        except BoardError as error:
            if "failed" not in error.what:
                raise
            raise BoardError(
                "its server is not evo_tvm's",
                where=session.where,
                hint="Start there rpc_server of evo-tvm board build, or evo-tvm rpc server.",
            ) from None
    except BaseException:
        session.close()
        raise
    return session


def _refused(error: BoardError, address: Address, key: str) -> BoardError:
    """Why there is no session, in the words of this project."""
    where = error.where
    if "cannot find server that matches key" in error.what:
        given = f"the key {key!r}" if key else "no key"
        return BoardError(f"it has another key; {given} was given", where=where, hint="Give its own with --key.")
    if "lost" in error.what:
        wrong = "what listens there is no RPC server, or it went down"
        return BoardError(wrong, where=where, hint="See that the server runs there, and try again.")
    if "Connect to" not in error.what:
        other = "RPC server" in error.what or "RecvAll" in error.what
        return BoardError("what listens there is no RPC server", where=where) if other else error
    reason = "it refuses the connection"
    try:
        socket.create_connection((address.host, address.port), 2).close()
    except OSError as failure:
        reason = (failure.strerror or str(failure)).lower()
    return BoardError(
        f"it cannot be reached: {reason}",
        where=where,
        hint="Start its server: rpc_server in the folder of evo-tvm board build, or evo-tvm rpc server.",
    )


def _quiet() -> int | None:
    """Where a worker's complaints go: TVM's are of no use to people. EVO_TVM_RPC_LOG=1 shows them."""
    return None if os.environ.get("EVO_TVM_RPC_LOG") else subprocess.DEVNULL
