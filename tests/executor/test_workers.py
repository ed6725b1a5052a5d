"""Jobs on forked processes: all are done, a failure names its job, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evo_tvm.errors import CompileError, TargetError, UsageError
from evo_tvm.executor import build, workers
from evo_tvm.executor.workers import Workers, worker_count
from evo_tvm.pipeline import compile

NAMES = [f"layer {i}" for i in range(20)]


def run(work: Callable[[int], object], count: int = 20) -> dict[int, object]:
    with Workers(work, NAMES[:count], range(count)) as started:
        return dict(started.results())


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(params=["1", "3"])
def jobs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("EVO_TVM_JOBS", request.param)
    return int(request.param)


def test_every_job_is_done_once_elsewhere(jobs: int) -> None:
    def work(job: int) -> tuple[int, bytes]:
        time.sleep(0.01)  # so that no process can take all
        return os.getpid(), bytes([job]) * 100_000

    results = run(work)
    assert sorted(results) == list(range(20))
    assert all(result[1] == bytes([job]) * 100_000 for job, result in results.items())  # type: ignore[index]
    pids = {result[0] for result in results.values()}  # type: ignore[index]
    assert len(pids) == jobs and os.getpid() not in pids and not any(map(alive, pids))


def test_no_jobs() -> None:
    assert run(lambda job: job, 0) == {}


def test_a_crash_names_its_job(jobs: int) -> None:
    def work(job: int) -> int:
        if job == 7:
            os.kill(os.getpid(), signal.SIGSEGV)
        return job

    with pytest.raises(CompileError) as error:
        run(work)
    assert str(error.value) == (
        "layer 7: a kernel could not be compiled: the compiler crashed (SIGSEGV)\n"
        "This is a fault of evo_tvm. Please report it with the model."
    )


def test_an_exit_names_its_job(jobs: int) -> None:
    with pytest.raises(CompileError, match=r"^layer 0: a kernel could not be compiled: the compiler ended with status"):
        run(lambda job: os._exit(3))


def test_an_exception_names_its_job_and_keeps_its_traceback(jobs: int) -> None:
    def work(job: int) -> int:
        return 1 // (job - 4)

    with pytest.raises(CompileError, match=r"layer 4: .*ZeroDivisionError: integer division") as error:
        run(work)
    assert "return 1 // (job - 4)" in error.value.__notes__[0]


def test_an_error_of_ours_stays_what_it_is(jobs: int) -> None:
    def work(job: int) -> int:
        raise TargetError("no such CPU", where="here", expected=1, got="2", hint="Try again.")

    with pytest.raises(TargetError) as error:
        run(work)
    assert str(error.value) == "here: no such CPU (expected 1, got 2)\nTry again."


def test_a_job_that_hangs(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setattr(workers, "TIMEOUT_S", 0.2)
    start = time.monotonic()
    with pytest.raises(CompileError, match="layer 0: a kernel could not be compiled: the compiler was silent for"):
        run(lambda job: time.sleep(60))
    assert time.monotonic() - start < 10


def test_leaving_early_ends_the_processes(jobs: int) -> None:
    with pytest.raises(KeyboardInterrupt), Workers(lambda job: time.sleep(60), NAMES, range(20)) as started:
        pids = [worker.pid for worker in started._workers]
        assert len(pids) == jobs and all(map(alive, pids))
        raise KeyboardInterrupt
    assert not any(map(alive, pids))


PROGRAM = """
import os, time
from evo_tvm.executor.workers import Workers
def work(job):
    os.write(1, f"{os.getpid()}\\n".encode())  # whole: two of them write at once
    time.sleep(0.5)
with Workers(work, ["x"] * 100, range(100)) as workers:
    list(workers.results())
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nobody_outlives_the_compiler(end: signal.Signals) -> None:
    """Ctrl-C goes to the whole group, and the parent ends its children; killed, it leaves them a closed pipe."""
    environment = os.environ | {"EVO_TVM_JOBS": "2"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert parent.stdout
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    if end == signal.SIGINT:
        os.killpg(parent.pid, end)
    else:
        parent.kill()
    parent.wait(10)
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVO_TVM_JOBS", raising=False)
    assert worker_count() == len(os.sched_getaffinity(0))
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("EVO_TVM_JOBS", wrong)
        with pytest.raises(UsageError, match="EVO_TVM_JOBS is wrong"):
            worker_count()


def test_a_crash_in_the_code_generator(small_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole compile: the message names the layer."""
    monkeypatch.setenv("EVO_TVM_CACHE", "off")
    monkeypatch.setattr(build, "build_object", lambda *arguments: os.abort())
    with pytest.raises(CompileError, match=r"^(conv|pool|dense|.*): a kernel could not .* crashed \(SIGABRT\)"):
        compile(small_onnx)
