"""The search over all workloads: they take turns, and what one is built of is built while another is timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.runtime import cpu
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.guide import Guide
from evo_tvm.tune.log import Record, append, check_writable, read_records
from evo_tvm.tune.measure import Effort, Job, Measurer, Result, Results
from evo_tvm.tune.one_kernel import Candidate
from evo_tvm.tune.recorded import recorded
from evo_tvm.tune.space import FINALISTS, Space, Tuned
from evo_tvm.workload import Workload

#: (what was found, done, total)
Progress = Callable[[str, int, int], None]

#: Kernels that are built, and then timed beside each other, at a time; and the memory that their weights may take.
_BATCH, _BATCH_BYTES = 8, 1 << 30
#: Jobs of one workload that may be under way: what is learnt of the first comes too late for the second.
_UNDER_WAY = 2
#: How many bytes a kernel may make of one byte of weights: Winograd's F(4, 3), and what it is made of.
_GROWTH = 5
_EFFORT = Effort(min_rounds=5, max_rounds=8)
_FINAL_EFFORT = Effort(min_rounds=10, max_rounds=40)
#: What that takes, compared with measuring a configuration for the first time.
_FINAL_COST = 0.7


class AnyMeasurer(Protocol):
    """What the search needs of `Measurer`; another may measure on a board.

    metric: what its figures are, see `Record`. provenance: of its figures.
    """

    metric: str
    provenance: dict[str, Any]

    def run(self, propose: Callable[[], Job | None]) -> Iterator[tuple[Job, Results]]:
        """See `Measurer.run`."""

    def known(self, workload: Workload) -> bool:
        """See `Measurer.known`."""


@dataclass
class _Task:
    """A workload with all the algorithms that fit."""

    spaces: list[Space]
    under_way: int = 0

    @property
    def workload(self) -> Workload:
        return self.spaces[0].workload

    def pick(self) -> list[tuple[Space, Any]]:
        """The next configurations: first the default of each algorithm, then shares of a batch."""
        fastest = min(ms for space in self.spaces for ms in (*space.measured.values(), float("inf")))
        running = [space for space in self.spaces if space.left and not space.hopeless(fastest)]
        begun = all(space.measured for space in self.spaces)
        share = max(1, batch_size(self.workload) // max(1, len(running))) if begun else 1
        return [(space, config) for space in running for config in space.next(share)]

    def finalists(self) -> list[list[tuple[Space, Any]]]:
        """The best of each algorithm, then its default and the next best while memory allows for them, in batches
        that are measured beside each other."""
        ranked = [space.finalists() for space in self.spaces]
        order = [(s, c[k]) for k in range(FINALISTS + 1) for s, c in zip(self.spaces, ranked, strict=True) if c[k:]]
        least = sum(bool(finalists) for finalists in ranked)
        limit = batch_size(self.workload, 3 * _BATCH)
        picked = order[: max(least, limit)]
        return [picked[start : start + limit] for start in range(0, len(picked), limit)]


class _Tuner:
    def __init__(
        self,
        tasks: Sequence[_Task],
        target: Target,
        threads: int,
        folder: Path,
        measurer: AnyMeasurer,
        guide: Guide,
        progress: Progress,
        until: float,
    ) -> None:
        self.tasks, self.target, self.threads, self.folder = list(tasks), target, threads, folder
        self.measurer, self.guide, self.progress, self.until = measurer, guide, progress, until
        self.total = sum(space.left for task in tasks for space in task.spaces)
        self.done, self.begin = 0, time.monotonic()
        self._waiting = list(tasks)  # in turn
        self._open: dict[int, tuple[_Task, list[tuple[Space, Any] | None], bool]] = {}
        self._finals: list[tuple[_Task, list[tuple[Space, Any]]]] = []

    def run(self) -> None:
        for job, results in self.measurer.run(self.propose):
            self.take(job, results[self.threads])

    def propose(self) -> Job | None:
        """The next job: of the workload whose turn it is; at the end of each its finalists."""
        for task in list(self._waiting):
            if task.under_way >= _UNDER_WAY or (task.under_way and not all(s.measured for s in task.spaces)):
                continue
            self._waiting.remove(task)
            picked = [] if self._late() else task.pick()
            if picked:
                self._waiting.append(task)
                return self._job(task, picked, final=False)
            if task.under_way:
                self._waiting.append(task)
            elif any(space.fresh for space in task.spaces):
                self._finals += [(task, batch) for batch in task.finalists()]
        if self._finals:
            task, batch = self._finals.pop(0)
            return self._job(task, batch, final=True)
        return None

    def _late(self) -> bool:
        """Whether what is left of the time goes to the finals."""
        spent = (time.monotonic() - self.begin) / max(1, self.done)
        count = sum(len(space.finalists()) for task in self.tasks for space in task.spaces if space.fresh)
        return time.monotonic() + count * _FINAL_COST * spent > self.until

    def _job(self, task: _Task, picked: Sequence[tuple[Space, Any]], final: bool) -> Job:
        candidates = [Candidate(task.workload, space.algorithm.name, config) for space, config in picked]
        whose: list[tuple[Space, Any] | None] = list(picked)
        skip: frozenset[int] = frozenset()
        first = task.spaces[0]
        if not self.measurer.known(task.workload) and first.default in first.measured:
            candidates.insert(0, Candidate(task.workload, first.algorithm.name, first.default))
            whose.insert(0, None)  # it only says what is correct
            skip = frozenset({0})
        task.under_way += 1
        job = Job(tuple(candidates), (self.threads,), _FINAL_EFFORT if final else _EFFORT, skip)
        self._open[id(job)] = task, whose, final
        return job

    def take(self, job: Job, results: dict[int, Result]) -> None:
        """Logs what was measured, and learns from it."""
        task, whose, final = self._open.pop(id(job))
        task.under_way -= 1
        points, values = [], []
        for number, (candidate, owner) in enumerate(zip(job.candidates, whose, strict=True)):
            if owner is None:
                continue
            space, config = owner
            record = self._record(candidate, results[number], final)
            append(self.folder, record)
            space.take(config, record.latency_ms, final)
            points.append((candidate.workload, candidate.algorithm, config))
            values.append(record.latency_ms)
        if not final:
            self.guide.add(points, values)
            self.done += len(points)
        self.progress(self._status(task), self.done, self.total)

    def _record(self, candidate: Candidate, result: Result, final: bool) -> Record:
        source = {**self.measurer.provenance, **({"final": True} if final else {})}
        return recorded(candidate, self.target, result, source, threads=self.threads, measured=self.measurer.metric)

    def _status(self, task: _Task) -> str:
        """ "conv2d 1x64x56x56 64x64x3x3: winograd4 0.73 ms, 12 min left" """
        times = {s.algorithm.name: min(s.measured.values(), default=float("inf")) for s in task.spaces}
        best = min(times, key=times.__getitem__)
        shapes = " ".join("x".join(map(str, shape)) for shape in task.workload.shapes)
        unit = {"time": "ms", "instructions": "thousand instructions"}.get(self.measurer.metric, "emulated ms")
        left = (time.monotonic() - self.begin) * (self.total - self.done) / max(1, self.done)
        left = min(left, max(0.0, self.until - time.monotonic()))
        return f"{task.workload.operator} {shapes}: {best} {times[best]:.3g} {unit}, {_duration(left)} left"


def search(
    workloads: Sequence[Workload],
    target: Target,
    num_threads: int,
    folder: Path,
    trials: int,
    seconds: float | None = None,
    algorithms: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
    measurer: AbstractContextManager[AnyMeasurer] | None = None,
    space: type[Space] = Space,
) -> tuple[Tuned, ...]:
    """Measures up to `trials` configurations of each workload and algorithm; each goes into the log in `folder` at
    once, and what is there already is not measured again.

    seconds: stop about then; all workloads get their share. algorithms: these alone. seed: of the random choice.
    measurer: in place of this machine's. space: what picks configurations.

    Raises UsageError: an algorithm that does not exist, a log that cannot be written, a target that is not this
    machine.
    """
    begin = time.monotonic()
    _check(algorithms)
    if measurer is None:
        _check_machine(target)
    check_writable(folder, log_name(target))
    guide = Guide(target, num_threads)
    tasks = []
    for workload in dict.fromkeys(workloads):
        spaces = [
            space(workload, algorithm, target, num_threads, trials, seed, guide)
            for name, algorithm in ALGORITHMS.get(workload.operator, {}).items()
            if (not algorithms or name in algorithms) and algorithm.refusal(workload, target) is None
        ]
        if spaces:
            tasks.append(_Task(spaces))
    until = math.inf if seconds is None else begin + seconds
    with measurer or Measurer(target) as opened:
        _recall(tasks, folder, log_name(target), num_threads, opened.metric, guide)
        silent: Progress = lambda text, done, total: None  # noqa: E731
        _Tuner(tasks, target, num_threads, folder, opened, guide, progress or silent, until).run()
    return tuple(each.tuned() for task in tasks for each in task.spaces if each.measured)


def _recall(tasks: Sequence[_Task], folder: Path, target: str, threads: int, metric: str, guide: Guide) -> None:
    """Takes what the log has of these workloads, unless it is stale; of others the guide learns."""
    spaces = {(space.workload.key, space.algorithm.name): space for task in tasks for space in task.spaces}
    points, values = [], []
    for record in read_records(folder, target):
        algorithm = ALGORITHMS.get(record.workload.operator, {}).get(record.algorithm)
        if record.threads != threads or record.measured != metric or record.stale or algorithm is None:
            continue
        config, final = algorithm.config_type(**record.config), bool(record.provenance.get("final"))
        space = spaces.get((record.workload.key, record.algorithm))
        if space is not None:
            space.take(config, record.latency_ms, final)
        if not final:
            points.append((record.workload, record.algorithm, config))
            values.append(record.latency_ms)
    guide.add(points, values)


def _check(algorithms: Sequence[str]) -> None:
    known = sorted({name for named in ALGORITHMS.values() for name in named})
    for name in algorithms:
        if name not in known:
            raise UsageError(f"unknown algorithm {name}", where="--algorithm", hint=f"Known: {', '.join(known)}.")


def _check_machine(target: Target) -> None:
    missing = [feature for feature in target.required_features if feature not in cpu.features()]
    if target.arch != cpu.arch() or missing:
        raise UsageError(
            f"this machine ({cpu.model()}) cannot run kernels for {target.name}",
            where="--target",
            hint="Tune on the machine that the model is for, with --target host, or on a board, with --rpc.",
        )


def batch_size(workload: Workload, most: int = _BATCH) -> int:
    """How many kernels of the workload to have at a time."""
    weights = sum(4 * math.prod(shape) for shape in workload.shapes[1:])
    return max(1, min(most, _BATCH_BYTES // max(1, _GROWTH * weights)))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
