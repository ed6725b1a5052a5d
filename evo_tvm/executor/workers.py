"""Jobs on forked processes, one a core: a crash in native code costs one process, and tells which job it was.

A fork of a process that has imported TVM starts in 10 ms, where a fresh one would import it for a second, and it has
the jobs' objects already. TVM starts no threads by itself, so nothing but the interpreter is there to be forked.
"""

from __future__ import annotations

import gc
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

from evo_tvm.errors import CompileError, EvoError, UsageError
from evo_tvm.runtime.cpu import usable_cores
from evo_tvm.runtime.fork import fork

#: How many processes compile at a time, where not as many as there are usable cores.
VARIABLE = "EVO_TVM_JOBS"
#: No kernel takes anything like this: a worker that is silent for so long hangs.
TIMEOUT_S = 600.0

_T = TypeVar("_T")


@dataclass
class _Worker:
    pid: int
    connection: Connection
    job: int | None = None


class Workers(Generic[_T]):
    """Runs `work(job)` for every number below `len(names)`, on processes that are forked when the block is entered.

    `order`: the jobs, best those first that take longest. `names`: what errors call a job. What `work` returns is
    pickled. Leaving the block ends the processes, whatever the reason.
    """

    def __init__(self, work: Callable[[int], _T], names: Sequence[str], order: Sequence[int]) -> None:
        self._work, self._names = work, names
        self._waiting = list(reversed(order))
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers[_T]:
        try:
            for _ in range(min(worker_count(), len(self._waiting))):
                self._workers.append(self._fork())
                self._give(self._workers[-1])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.connection.close()
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers:
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
        self._workers = []

    def results(self) -> Iterator[tuple[int, _T]]:
        """(job, result) of each, as they end. Raises CompileError: the job failed, or its process died or hangs."""
        while busy := [worker for worker in self._workers if worker.job is not None]:
            ready = wait([worker.connection for worker in busy], TIMEOUT_S)
            if not ready:
                raise self._failed(busy[0], f"the compiler was silent for {TIMEOUT_S:.0f} s")
            for worker in busy:
                if worker.connection in ready:
                    job = worker.job
                    assert job is not None
                    result = self._receive(worker)
                    self._give(worker)
                    yield job, result

    def _give(self, worker: _Worker) -> None:
        worker.job = self._waiting.pop() if self._waiting else None
        if worker.job is not None:
            with suppress(BrokenPipeError):  # it died: `results` finds out
                worker.connection.send(worker.job)

    def _receive(self, worker: _Worker) -> _T:
        try:
            result, error, trace = worker.connection.recv()
        except (EOFError, OSError):
            _, status = os.waitpid(worker.pid, 0)
            self._workers.remove(worker)
            raise self._failed(worker, f"the compiler {_death(status)}") from None
        if error is not None:
            if not isinstance(error, EvoError):
                error = self._failed(worker, error)
            error.add_note(trace)
            raise error
        return result  # type: ignore[no-any-return]

    def _failed(self, worker: _Worker, what: str) -> CompileError:
        assert worker.job is not None
        return CompileError(
            f"a kernel could not be compiled: {what}",
            where=self._names[worker.job],
            hint="This is a fault of evo_tvm. Please report it with the model.",
        )

    def _fork(self) -> _Worker:
        ours, theirs = Pipe()
        pid = fork()
        if pid == 0:
            status = 1
            try:
                gc.disable()  # to collect would copy memory that the processes share
                for connection in (ours, *(worker.connection for worker in self._workers)):
                    connection.close()
                self._serve(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return _Worker(pid, ours)

    def _serve(self, connection: Connection) -> None:
        """The life of a worker: ends with the parent, or when the parent closes the pipe."""
        with suppress(EOFError, OSError):
            while True:
                reply: tuple[Any, Any, str]
                job = connection.recv()
                try:
                    reply = (self._work(job), None, "")
                except EvoError as error:
                    reply = (None, _Portable(error), traceback.format_exc())
                except Exception as error:
                    reply = (None, f"{type(error).__name__}: {error}", traceback.format_exc())
                connection.send(reply)


class _Portable:
    """Pickles an EvoError, which takes its arguments by name."""

    def __init__(self, error: EvoError) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        e = self.error
        texts = (None if part is None else str(part) for part in (e.where, e.expected, e.got, e.hint))
        return _rebuild, (type(e), e.what, *texts)


def _rebuild(kind: type[EvoError], what: str, where: str, expected: str, got: str, hint: str) -> EvoError:
    return kind(what, where=where, expected=expected, got=got, hint=hint)


def worker_count() -> int:
    """As many as EVO_TVM_JOBS says, else as there are cores that this process may use."""
    given = os.environ.get(VARIABLE)
    if not given:
        return usable_cores()
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"{VARIABLE} is wrong", expected="a number of processes, at least 1", got=repr(given))
    return int(given)


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"crashed ({signal.Signals(os.WTERMSIG(status)).name})"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
