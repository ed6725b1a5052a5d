"""A call in a forked process: one that crashes or hangs costs that process alone."""

from __future__ import annotations

import gc
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Generic, TypeVar

from evo_tvm.errors import CompileError
from evo_tvm.runtime.fork import fork

_T = TypeVar("_T")


class Forked(Generic[_T]):
    """`work()` runs in a child of this process, from the start. What it returns is pickled.

    connection: becomes ready once `result` does not wait any more. started: `time.monotonic()` of then.
    """

    def __init__(self, work: Callable[[], _T]) -> None:
        self.connection, theirs = Pipe()
        self.started = time.monotonic()
        self.pid = fork()
        if self.pid == 0:
            status = 1
            try:
                gc.disable()  # to collect would copy memory that the processes share
                os.setpgid(0, 0)  # and what we start with us
                self.connection.close()
                _serve(work, theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()

    def result(self) -> _T:
        """Raises CompileError: the call failed, or the process died."""
        try:
            value, error = self.connection.recv()
        except (EOFError, OSError):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # what it started; how it died itself is settled
            _, status = os.waitpid(self.pid, 0)
            self.connection.close()
            raise CompileError(f"the compiler {_death(status)}") from None
        self.end()
        if error is not None:
            raise CompileError(error)
        return value  # type: ignore[no-any-return]

    def end(self) -> None:
        """Ends the process, whatever it is at, and those that it started."""
        self.connection.close()
        for kill in (os.killpg, os.kill):  # it may have been too early for a group of its own
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(work: Callable[[], _T], connection: Connection) -> None:
    with suppress(BrokenPipeError):
        try:
            connection.send((work(), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"crashed ({signal.Signals(os.WTERMSIG(status)).name})"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
