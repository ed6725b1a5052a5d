"""Functions of TIR, for which there is no schedule of our own: TVM's MetaSchedule, with our builder and our clock.

Shao et al., "Tensor Program Optimization with Probabilistic Programs" (NeurIPS 2022). It makes the candidates, and
learns; they are built and measured as our own are. None of its files are used, and `RemoveBuildArtifact`, which deletes
the folder that a built kernel lies in, is left out.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from evo_tvm.executor.workers import worker_count
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import append, read_records
from evo_tvm.tune.measure import Effort, Job, Measurer, Result
from evo_tvm.tune.one_kernel import KERNEL, Candidate
from evo_tvm.tune.recorded import recorded
from evo_tvm.tune.revision import METASCHEDULE
from evo_tvm.tune.search import Progress
from evo_tvm.tune.space import Tuned
from evo_tvm.workload import Workload

#: Candidates that are measured before its model learns of them.
_BATCH = 16
_EFFORT = Effort(min_rounds=5, max_rounds=8)

#: A schedule's trace as JSON, and what it takes.
Report = Callable[[str, Result], None]


class _Stop(Exception):
    """Time is up."""


def tune_functions(
    plain: Sequence[Candidate],
    target: Target,
    num_threads: int,
    folder: Path,
    trials: int,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> tuple[Tuned, ...]:
    """Measures up to `trials` schedules of each function that `fixed_kernels.functions` gives; each goes into the log
    in `folder` at once. Those of which the log has as many already are left alone. seconds: stop about then.

    Raises UsageError: the log cannot be written.
    """
    until = float("inf") if seconds is None else time.monotonic() + seconds
    times: dict[Workload, list[float]] = {candidate.workload: [] for candidate in plain}
    for record in read_records(folder, log_name(target)):
        if record.algorithm == METASCHEDULE and record.threads == num_threads and not record.stale:
            if record.workload in times:
                times[record.workload].append(record.latency_ms)
    unique = {candidate.workload: candidate for candidate in plain}
    total = sum(max(0, trials - len(found)) for found in times.values())
    done, found = 0, []
    with Measurer(target) as measurer:
        for workload, candidate in unique.items():
            before = times[workload]

            def report(trace: str, result: Result, workload: Workload = workload, before: list[float] = before) -> None:
                nonlocal done
                source = {**measurer.provenance, "trace": trace}
                record = recorded(Candidate(workload, METASCHEDULE), target, result, source, threads=num_threads)
                append(folder, record)
                before.append(record.latency_ms)
                done += 1
                if progress is not None:
                    progress(f"function {workload.key}: {min(before):.3g} ms", done, total)

            if len(before) < trials and time.monotonic() < until:
                tune_function(candidate, target, num_threads, trials - len(before), measurer, report, until)
            if before:
                best, failures = min(before), before.count(float("inf"))
                known = best if best < float("inf") else None
                found.append(Tuned(workload, METASCHEDULE, None, known, "", len(before), failures))
    return tuple(found)


def tune_function(
    plain: Candidate,
    target: Target,
    num_threads: int,
    trials: int,
    measurer: Measurer,
    report: Report,
    until: float = float("inf"),
) -> None:
    """Measures up to `trials` schedules of the candidate's function, of which `report` hears one by one.

    plain: the kernel with its default schedule, which says what is correct. until: of `time.monotonic()`.
    """
    functions: dict[str, tirx.PrimFunc] = {}
    callbacks = [_Report(report), ms.measure_callback.AddToDatabase(), ms.measure_callback.UpdateCostModel()]
    runner = _Runner(functions, plain, num_threads, measurer, until)
    fields = {name: value for name, value in target.tvm().export().items() if name not in ("tag", "keys")}
    with tempfile.TemporaryDirectory(prefix="evo_tvm_metaschedule_") as folder, _quiet():
        try:
            ms.tune_tir(
                function_of(plain).with_attr("global_symbol", "main"),
                tvm.target.Target({**fields, "num-cores": num_threads}),
                folder,
                trials,
                num_trials_per_iter=min(_BATCH, trials),
                builder=_Builder(functions),
                runner=runner,
                database="memory",
                measure_callbacks=callbacks,
                num_tuning_cores=worker_count(),
            )
        except Exception:  # TVM may make an error of its own of `_Stop`
            if not runner.stopped:
                raise


@contextmanager
def _quiet() -> Iterator[None]:
    """MetaSchedule logs a table after each batch, whatever its logger's level."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def function_of(candidate: Candidate) -> tirx.PrimFunc:
    """The function of a candidate's kernel, as TE has it."""
    assert candidate.graph is not None
    (func,) = (group.anchor.attrs["func"] for group in candidate.graph.groups if group.name == KERNEL)
    return func


@derived_object
class _Builder(ms.builder.PyBuilder):
    """Keeps candidates for the runner, which builds them."""

    def __init__(self, functions: dict[str, tirx.PrimFunc]) -> None:
        super().__init__()
        self.functions = functions

    def build(self, build_inputs: Sequence[Any]) -> list[Any]:
        names = [str(len(self.functions) + number) for number in range(len(build_inputs))]
        for name, asked in zip(names, build_inputs, strict=True):
            self.functions[name] = asked.mod["main"]
        return [ms.builder.BuilderResult(name, None) for name in names]


@derived_object
class _Future(ms.runner.PyRunnerFuture):
    def __init__(self, result: Result) -> None:
        super().__init__()
        self.measured = result

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        samples = [ms_ / 1e3 for ms_ in self.measured.samples_ms]
        return ms.runner.RunnerResult(samples or None, None if samples else self.measured.error)


@derived_object
class _Runner(ms.runner.PyRunner):
    def __init__(
        self,
        functions: dict[str, tirx.PrimFunc],
        plain: Candidate,
        num_threads: int,
        measurer: Measurer,
        until: float,
    ) -> None:
        super().__init__()
        self.functions, self.plain, self.num_threads = functions, plain, num_threads
        self.measurer, self.until = measurer, until
        #: Whether it ended the search because time was up: what it raised then is no error.
        self.stopped = False

    def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
        self.stopped = time.monotonic() > self.until
        if self.stopped:
            raise _Stop
        tried = [self.functions.pop(str(asked.artifact_path)) for asked in runner_inputs]
        made = [Candidate(self.plain.workload, METASCHEDULE, None, self.plain.graph, func) for func in tried]
        job = Job((self.plain, *made), (self.num_threads,), _EFFORT, frozenset({0}))
        waiting = iter([job])
        ((_, results),) = self.measurer.run(lambda: next(waiting, None))
        return [_Future(results[self.num_threads][1 + number]) for number in range(len(made))]


@derived_object
class _Report(ms.measure_callback.PyMeasureCallback):
    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def apply(
        self,
        task_scheduler: Any,
        task_id: int,
        measure_candidates: Sequence[Any],
        builder_results: Sequence[Any],
        runner_results: Sequence[Any],
    ) -> None:
        for candidate, result in zip(measure_candidates, runner_results, strict=True):
            samples = tuple(float(seconds) * 1e3 for seconds in result.run_secs or ())
            trace = json.dumps(_plain(candidate.sch.trace.as_json()), separators=(",", ":"))
            self.report(trace, Result(samples, "" if samples else str(result.error_msg)))


def _plain(item: Any) -> Any:
    """TVM's containers and numbers as Python's."""
    if isinstance(item, tirx.IntImm | tirx.FloatImm):
        return item.value
    if isinstance(item, str):
        return str(item)
    if isinstance(item, int | float) or item is None:
        return item
    if hasattr(item, "items"):
        return {_plain(name): _plain(part) for name, part in item.items()}
    return [_plain(part) for part in item]
