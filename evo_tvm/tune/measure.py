"""Builds kernels and times them side by side, in a process of their own that may crash or hang."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from evo_tvm.errors import CompileError
from evo_tvm.executor.cache import Cache
from evo_tvm.executor.workers import Workers
from evo_tvm.kernels.elementwise import FINITE
from evo_tvm.target import Target
from evo_tvm.tune.one_kernel import OneKernel, build_one
from evo_tvm.workload import Workload

#: max |difference| / max |result| between configurations: what Winograd may lose, and no more.
TOLERANCE = 1e-3
#: A call that takes longer hangs.
TIMEOUT_S = 10.0
#: For kernels that may be measured again.
_CACHE_BYTES = 512 << 20
#: Of the last cache where its size is not known.
_LAST_CACHE_BYTES = 32 << 20


@dataclass(frozen=True)
class Candidate:
    """What may be measured."""

    algorithm: str
    config: Any


@dataclass(frozen=True)
class Effort:
    """How long kernels are timed: rounds over all of them, and seconds for each, whichever lasts longer."""

    min_rounds: int = 5
    max_rounds: int = 20
    seconds_each: float = 0.02


@dataclass(frozen=True)
class Result:
    """The samples of one candidate in milliseconds, or why there are none."""

    samples_ms: tuple[float, ...] = ()
    error: str = ""


class Measurer:
    """Measures candidates on this machine. To be used as a context: leaving it ends its process and removes its files.

    Kernels are built first, on all cores, then timed with nothing else going on.
    """

    def __init__(self, target: Target, num_threads: int = 1, timeout_s: float = TIMEOUT_S) -> None:
        self.target, self.num_threads, self.timeout_s = target, num_threads, timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="evo_tvm_tune_")
        root = Path(self._folder.name)
        self._cache = Cache(root / "cache", _CACHE_BYTES)
        self._here_file = root / "here"
        self._here = np.memmap(self._here_file, np.int64, "w+", shape=(2,))
        self._references: dict[Workload, Path] = {}

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._folder.cleanup()

    def measure(
        self, workload: Workload, candidates: Sequence[Candidate], effort: Effort | None = None
    ) -> list[Result]:
        """The result of each candidate, in order. The first that ever runs of a workload says what is correct."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            built = self._build(workload, candidates, Path(folder))
            numbers = [i for i, made in enumerate(built) if isinstance(made, OneKernel)]
            results = {i: Result(error=str(made)) for i, made in enumerate(built) if i not in numbers}
            kernels = [made for made in built if isinstance(made, OneKernel)]
            timed = self._time(workload, kernels, effort or Effort())
            results |= dict(zip(numbers, timed, strict=True))
        return [results[i] for i in range(len(candidates))]

    # ---- Building ----

    def _build(self, workload: Workload, candidates: Sequence[Candidate], folder: Path) -> list[OneKernel | str]:
        """Each candidate's kernel, or why there is none."""
        found: dict[int, OneKernel | str] = {}
        names = [f"{c.algorithm} {c.config}" for c in candidates]

        def work(job: int) -> OneKernel | str:
            candidate = candidates[job]
            try:
                return build_one(
                    workload,
                    candidate.algorithm,
                    candidate.config,
                    self.target,
                    self.num_threads,
                    self._cache,
                    folder,
                    str(job),
                )
            except Exception as error:  # a configuration that does not fit ends in any of TVM's errors
                return f"{type(error).__name__}: {_first_line(error)}"
            finally:
                self._cache.trim()

        self.target.tvm()  # made before the fork, once
        with suppress(CompileError), Workers(work, names, range(len(names))) as workers:
            found.update(workers.results())
        for job in [i for i in range(len(names)) if i not in found]:  # a process died: each by itself
            try:
                with Workers(work, names, [job]) as workers:
                    found.update(workers.results())
            except CompileError as error:
                found[job] = error.what
        return [found[i] for i in range(len(names))]

    # ---- Timing ----

    def _time(self, workload: Workload, kernels: Sequence[OneKernel], effort: Effort) -> list[Result]:
        results: dict[int, Result] = {}
        while waiting := [i for i in range(len(kernels)) if i not in results]:
            request = {
                "kernels": [astuple(kernels[i]) for i in waiting],
                "threads": self.num_threads,
                "evict_bytes": 2 * max(self.target.l3_bytes or _LAST_CACHE_BYTES, self.target.l2_bytes),
                "min_rounds": effort.min_rounds,
                "max_rounds": effort.max_rounds,
                "seconds": effort.seconds_each * len(waiting),
                "reference": str(self._reference(workload)),
                "tolerance": TOLERANCE if FINITE.issuperset(workload.epilogue) else float("inf"),
            }
            answer = self._ask(request)
            if isinstance(answer, str):
                results[waiting[int(self._here[0])]] = Result(error=answer)
                continue
            for number, text in answer["errors"].items():
                results[waiting[int(number)]] = Result(error=text)
            for number, samples in answer["samples"].items():
                results[waiting[int(number)]] = Result(tuple(samples))
        return [results[i] for i in range(len(kernels))]

    def _reference(self, workload: Workload) -> Path:
        if workload not in self._references:
            self._references[workload] = Path(self._folder.name) / f"reference_{len(self._references)}.npy"
        return self._references[workload]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | str:
        """The timer's answer, or how it ended; then `_here` tells which kernel it was at."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            calls = -1
            while not select.select([process.stdout], [], [], self.timeout_s)[0]:
                if calls == int(self._here[1]):
                    self._end()
                    return f"it did not return within {self.timeout_s:g} s"
                calls = int(self._here[1])
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = process.wait()
        self._end()
        return f"it crashed ({signal.Signals(-status).name})" if status < 0 else f"it ended with status {status}"

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evo_tvm.tune.timer", str(self._here_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the C library's last words: how it died is told in the log
            text=True,
            start_new_session=True,  # Ctrl-C is for us; we end it
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:200]
