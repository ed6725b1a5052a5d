"""RPC servers and trackers in processes of their own, each at a free port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

from evo_tvm.rpc.protocol import Address

EVO = [sys.executable, "-m", "evo_tvm.cli"]


@dataclass
class Process:
    """A server that listens at `address`; `lines`: what it printed so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def address(self) -> Address:
        line = self.wait_for("listening on ")
        return Address.parse(line.rpartition(" ")[2].replace("0.0.0.0", "127.0.0.1"))

    def wait_for(self, text: str, seconds: float = 300) -> str:
        """The first line with `text`, once it is there."""
        end = time.monotonic() + seconds
        while True:
            for line in list(self.lines):
                if text in line:
                    return line
            assert self.process.poll() is None and time.monotonic() < end, (text, self.lines)
            time.sleep(0.02)

    def signal_sessions(self, number: signal.Signals) -> None:
        """Sends a signal to the processes that serve a client now."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            for child in file.read().split():
                os.kill(int(child), number)


@contextmanager
def running(command: Sequence[object], before: Callable[[], None] | None = None) -> Iterator[Process]:
    """A server that ends with the block. `before` is called in its process before it starts."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=before,
        start_new_session=True,
    )
    made = Process(process)

    def read() -> None:
        for line in process.stdout or ():
            made.lines.append(line.rstrip())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()


def server(work: object, *options: object, before: Callable[[], None] | None = None) -> AbstractContextManager[Process]:
    """`evo-tvm rpc server` at a free port."""
    return running([*EVO, "rpc", "server", "--port", 0, "--work", work, *options], before)


def tracker() -> AbstractContextManager[Process]:
    """`evo-tvm rpc tracker` at a free port."""
    return running([*EVO, "rpc", "tracker", "--port", 0])
