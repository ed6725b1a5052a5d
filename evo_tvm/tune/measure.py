"""Builds kernels and times them side by side, in a process of their own that may crash or hang."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from evo_tvm.errors import CompileError
from evo_tvm.executor.cache import Cache
from evo_tvm.executor.workers import worker_count
from evo_tvm.kernels.elementwise import FINITE
from evo_tvm.runtime import cpu
from evo_tvm.target import Target
from evo_tvm.tune.build_batch import Batch, being_built, build_batch
from evo_tvm.tune.forked import Forked
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.tune.timer import WAITING
from evo_tvm.workload import Fused, Workload

#: max |difference| / max |result| between configurations: what Winograd may lose, and no more.
TOLERANCE = 1e-3
#: How samples are taken, in logs: 1, where it is not given: without care for the clock that wide vectors slow down; 2:
#: with care for it, while neighbours on the other half of a core that did not multiply went unnoticed, and with weights
#: that were in no cache; 3: such neighbours are noticed, and weights are in the last cache.
TIMER = 3
#: A call that takes longer hangs.
TIMEOUT_S = 10.0
#: So does a compiler that takes longer for one kernel.
BUILD_TIMEOUT_S = 60.0
#: On a crowded machine a call is waited for until it has had as much CPU time, or so many times longer.
_PATIENCE = 10
#: Jobs that wait to be timed while no more are begun.
_BUILT_AHEAD = 2
#: Of the support code, compiled once.
_CACHE_BYTES = 64 << 20


@dataclass(frozen=True)
class Effort:
    """How often each kernel is timed at quick moments of the machine: until the two shortest samples agree, within
    these numbers. What takes long is given up earlier."""

    min_rounds: int = 5
    max_rounds: int = 20


@dataclass(frozen=True)
class Result:
    """The samples of one candidate in milliseconds, or why there are none. slowness: of the machine at the shortest
    sample, in parts of its usual time for fixed arithmetic; 1 at a quick moment."""

    samples_ms: tuple[float, ...] = ()
    error: str = ""
    slowness: float = 1.0


@dataclass(frozen=True)
class Job:
    """Candidates that are built together, and timed beside each other, on each number of threads.

    skip: those that only say what is correct: the first of a workload that ever runs does.
    """

    candidates: tuple[Candidate, ...]
    threads: tuple[int, ...] = (1,)
    effort: Effort = Effort()
    skip: frozenset[int] = frozenset()


#: For each number of threads, the result of each candidate in order. Nothing of those that were skipped.
Results = dict[int, dict[int, Result]]


@dataclass(frozen=True)
class Priority:
    """Where and how the timing process runs: on these cores alone (a single thread on the first of them), with this
    real-time priority (0: none).

    lock: a file that is locked meanwhile, for programs that measure side by side.
    """

    cores: tuple[int, ...] = ()
    realtime: int = 0
    lock: str = ""


@dataclass
class _Work:
    """A job on its way: built by `process` first, then timed.

    errors: of candidates that are out. waiting_until: when the process that is at it counts as hanging.
    """

    job: Job
    folder: Path
    errors: dict[int, str] = field(default_factory=dict)
    process: Forked[Batch] | None = None
    batch: Batch | None = None
    waiting_until: float = 0.0
    calls: int = -1
    worked: float = 0.0
    patience: int = 0


def _cpu_seconds(pid: int) -> float:
    """What a process has had of all cores."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def provenance() -> dict[str, Any]:
    """Where this machine's figures come from."""
    return {
        "evo_tvm": version("evo_tvm"),
        "tvm": version("apache-tvm"),
        "cpu": cpu.model(),
        "cores": cpu.usable_cores(),
        "timer": TIMER,
    }


class Measurer:
    """Measures candidates on this machine. To be used as a context: leaving it ends its processes and removes its
    files.

    While some kernels are timed, the next are built by other processes, one a core.
    """

    def __init__(
        self,
        target: Target,
        timeout_s: float = TIMEOUT_S,
        build_timeout_s: float = BUILD_TIMEOUT_S,
        priority: Priority | None = None,
    ) -> None:
        self.target, self.timeout_s, self.build_timeout_s = target, timeout_s, build_timeout_s
        self.priority = priority or Priority()
        self.metric = "time"
        self.provenance: dict[str, Any] = provenance()
        self._timer: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="evo_tvm_tune_")
        root = Path(self._folder.name)
        self._cache = Cache(root / "cache", _CACHE_BYTES)
        self._here_file = root / "here"
        self._here = np.memmap(self._here_file, np.int64, "w+", shape=(2,))
        self._references: dict[Fused, Path] = {}
        self._building: list[_Work] = []
        self._built: deque[_Work] = deque()
        self._timing: _Work | None = None
        self._count = 0

    def __enter__(self) -> Measurer:
        self.target.tvm()  # made before the forks, once
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for work in self._building:
            assert work.process is not None
            work.process.end()
        self._end_timer()
        self._folder.cleanup()

    def measure(
        self, candidates: Sequence[Candidate], effort: Effort | None = None, num_threads: int = 1
    ) -> list[Result]:
        """The result of each candidate, in order. The first of a workload that ever runs says what is correct."""
        jobs = iter([Job(tuple(candidates), (num_threads,), effort or Effort())])
        ((_, results),) = self.run(lambda: next(jobs, None))
        return [results[num_threads][i] for i in range(len(candidates))]

    def run(self, propose: Callable[[], Job | None]) -> Iterator[tuple[Job, Results]]:
        """The results of each job that `propose` names, as they come. It is asked whenever there is room for another
        job; where it has none (None), again after the next result. It ends with the last result.
        """
        while True:
            self._fill(propose)
            if self._timing is None and self._built:
                done = self._start_timing(self._built.popleft())
            elif self._timing is None and not self._building:
                return
            else:
                done = self._wait()
            if done is not None:
                job, results = done
                yield job, results

    def _fill(self, propose: Callable[[], Job | None]) -> None:
        while len(self._building) < worker_count() and len(self._built) < _BUILT_AHEAD:
            job = propose()
            if job is None:
                return
            self._count += 1
            folder = Path(self._folder.name) / str(self._count)
            folder.mkdir()
            self._build(_Work(job, folder))

    def _wait(self) -> tuple[Job, Results] | None:
        """Until something happens. The results of the job that was timed, if that is it."""
        works = [*self._building, *([self._timing] if self._timing is not None else [])]
        timeout = max(0.0, min(work.waiting_until for work in works) - time.monotonic())
        sources: dict[Any, _Work] = {work.process.connection: work for work in self._building if work.process}
        if self._timing is not None:
            assert self._timer is not None and self._timer.stdout is not None
            sources[self._timer.stdout] = self._timing
        ready = {id(sources[source]) for source in wait(list(sources), timeout)}
        for work in list(self._building):
            if id(work) in ready or time.monotonic() > work.waiting_until:
                self._building.remove(work)
                self._take_built(work, id(work) in ready)
        if self._timing is not None and (id(self._timing) in ready or time.monotonic() > self._timing.waiting_until):
            return self._take_timed(self._timing, id(self._timing) in ready)
        return None

    # ---- Building ----

    def _build(self, work: _Work) -> None:
        left = {i: c for i, c in enumerate(work.job.candidates) if i not in work.errors}
        work.process = Forked(lambda: build_batch(left, self.target, self._cache, work.folder))
        work.waiting_until = time.monotonic() + self.build_timeout_s * (1 + len(left))
        self._building.append(work)

    def _take_built(self, work: _Work, ready: bool) -> None:
        assert work.process is not None
        try:
            if not ready:
                raise CompileError(f"the compiler did not return within {self.build_timeout_s:g} s")
            work.batch = work.process.result()
            work.errors |= work.batch.errors
            self._built.append(work)
        except CompileError as error:  # one of them did it: the others once more
            work.process.end()
            work.errors[being_built(work.folder)] = error.what.splitlines()[0]
            self._build(work)

    # ---- Timing ----

    def _start_timing(self, work: _Work) -> tuple[Job, Results] | None:
        """None; the results where no kernel is left to time."""
        assert work.batch is not None
        job, batch = work.job, work.batch
        kernels = [kernel for kernel in batch.kernels if kernel["candidate"] not in work.errors]
        if not kernels:
            return self._finish(work, {threads: {} for threads in job.threads})
        work.calls, work.patience, self._timing = -1, _PATIENCE, work
        workloads = {kernel["candidate"]: job.candidates[kernel["candidate"]].workload for kernel in kernels}
        request = {
            **asdict(batch),
            "kernels": kernels,
            "threads": job.threads,
            "evict_bytes": self.target.evicting_bytes,
            "min_rounds": job.effort.min_rounds,
            "max_rounds": job.effort.max_rounds,
            "references": {number: str(self._reference(workload)) for number, workload in workloads.items()},
            "tolerances": {
                number: TOLERANCE if FINITE.issuperset((*workload.between, *workload.epilogue)) else float("inf")
                for number, workload in workloads.items()
            },
            "skip": sorted(job.skip),
        }
        timer = self._timer or self._start_timer()
        assert timer.stdin is not None
        work.waiting_until = time.monotonic() + self.timeout_s
        with suppress(BrokenPipeError):  # it died: `_take_timed` finds out
            timer.stdin.write(json.dumps(request) + "\n")
            timer.stdin.flush()
        return None

    def _take_timed(self, work: _Work, ready: bool) -> tuple[Job, Results] | None:
        """The results; None where it goes on, maybe with one candidate less."""
        timer = self._timer
        assert timer is not None and timer.stdout is not None
        if not ready:
            calls = int(self._here[1])
            worked = _cpu_seconds(timer.pid)
            if calls != work.calls or int(self._here[0]) == WAITING:
                work.calls, work.worked, work.patience = calls, worked, _PATIENCE
            elif worked - work.worked < self.timeout_s and work.patience:  # others have the cores
                work.patience -= 1
            else:
                work.patience = -1
            if work.patience >= 0:
                work.waiting_until = time.monotonic() + self.timeout_s
                return None
            self._end_timer()
            return self._blame(work, f"it did not return within {self.timeout_s:g} s")
        line = timer.stdout.readline()
        if not line:
            status = timer.wait()
            self._end_timer()
            name = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
            return self._blame(work, f"it {name}")
        answer = json.loads(line)
        work.errors |= {int(number): text for number, text in answer["errors"].items()}
        timed = {
            int(threads): {
                int(number): Result(tuple(samples), slowness=found["slowness"][number])
                for number, samples in found["samples"].items()
            }
            for threads, found in answer["timed"].items()
        }
        return self._finish(work, timed)

    def _finish(self, work: _Work, timed: Mapping[int, Mapping[int, Result]]) -> tuple[Job, Results]:
        """The results of a job, by threads and number: what was timed, and what failed."""
        self._timing = None
        shutil.rmtree(work.folder, ignore_errors=True)
        failed = {number: Result(error=text) for number, text in work.errors.items()}
        return work.job, {threads: {**failed, **found} for threads, found in timed.items()}

    def _blame(self, work: _Work, error: str) -> tuple[Job, Results] | None:
        """What was running is out, the others are timed once more; all are out where nothing was."""
        numbers = range(len(work.job.candidates))
        running = int(self._here[0])
        for number in [running] if running in numbers and running not in work.errors else numbers:
            work.errors.setdefault(number, error)
        return self._start_timing(work)

    def _reference(self, workload: Workload) -> Path:
        if workload.kernel not in self._references:
            self._references[workload.kernel] = Path(self._folder.name) / f"reference_{len(self._references)}.npy"
        return self._references[workload.kernel]

    def known(self, workload: Workload) -> bool:
        """Whether it is known what is correct."""
        return self._reference(workload).exists()

    def forget(self, workload: Workload) -> None:
        """Drops what is correct: it takes as much room as the result."""
        self._reference(workload).unlink(missing_ok=True)

    def _start_timer(self) -> subprocess.Popen[str]:
        self._here[0] = WAITING
        self._timer = subprocess.Popen(
            [sys.executable, "-m", "evo_tvm.tune.timer", str(self._here_file), json.dumps(asdict(self.priority))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the C library's last words: how it died is told in the log
            text=True,
            start_new_session=True,  # Ctrl-C is for us; we end it
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._timer

    def _end_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        timer.kill()
        timer.wait()
        for stream in (timer.stdin, timer.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
