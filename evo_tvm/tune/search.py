"""Random search: of each workload and algorithm the default, random configurations, then neighbours of the best."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evo_tvm.algorithms import ALGORITHMS, Algorithm
from evo_tvm.decide import config_fields, config_text
from evo_tvm.errors import UsageError
from evo_tvm.runtime import cpu
from evo_tvm.target import Target
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import Record, append, check_writable, read_records
from evo_tvm.tune.measure import Candidate, Effort, Measurer, Result
from evo_tvm.tune.revision import revision_of
from evo_tvm.workload import Workload

Progress = Callable[[str, int, int], None]

#: Kernels that are built, and then timed beside each other, at a time; and the memory that their weights may take.
_BATCH, _BATCH_BYTES = 12, 1 << 30
#: How many bytes a kernel may make of one byte of weights: Winograd's F(4, 3), and what it is made of.
_GROWTH = 5
#: The share of the trials that is random; the others are neighbours of the best.
_RANDOM_SHARE = 0.6
#: An algorithm whose best is so many times slower than another's is given up after so many trials, or a quarter.
_HOPELESS, _FAIR_TRIALS = 1.5, 8
#: So many of each algorithm are measured again, longer, beside those of the other algorithms.
_FINALISTS = 3
_FINAL_EFFORT = Effort(min_rounds=10, max_rounds=40, seconds_each=0.1)
#: What that takes, compared with measuring a configuration for the first time.
_FINAL_COST = 0.7


@dataclass(frozen=True)
class Tuned:
    """What was found for one workload and algorithm; times in milliseconds, None where it could not be measured.

    trials: configurations that the log has by now, failures among them.
    """

    workload: Workload
    algorithm: str
    default_ms: float | None
    best_ms: float | None
    config: str
    trials: int
    failures: int

    @property
    def speed_up(self) -> float | None:
        """How many times faster the best is than the default."""
        return self.default_ms / self.best_ms if self.default_ms and self.best_ms else None

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "workload": self.workload.key,
            "algorithm": self.algorithm,
            "default_ms": self.default_ms,
            "best_ms": self.best_ms,
            "speed_up": self.speed_up,
            "config": self.config,
            "trials": self.trials,
            "failures": self.failures,
        }


class _Space:
    """The configurations of one algorithm for one workload: which were measured, and which to try next."""

    def __init__(self, workload: Workload, algorithm: Algorithm, target: Target, threads: int, trials: int, seed: int):
        self.workload, self.algorithm = workload, algorithm
        self.default = algorithm.default(workload, target, threads)
        self.all = dict.fromkeys([self.default, *algorithm.space(workload, target, threads)])
        self.trials = min(trials, len(self.all))
        self.measured: dict[Any, float] = {}
        self.final: dict[Any, float] = {}
        self.fresh = False  # whether there are measurements later than the final ones
        self._order = list(self.all)[1:]
        random.Random(f"{seed} {workload.key} {algorithm.name}").shuffle(self._order)
        self._order.insert(0, self.default)

    def take(self, config: Any, latency_ms: float, final: bool) -> None:
        """Notes a measurement; infinity is a failure."""
        found = self.final if final else self.measured
        found[config] = min(latency_ms, found.get(config, float("inf")))
        self.fresh = not final

    @property
    def left(self) -> int:
        return max(0, self.trials - len(self.measured))

    def next(self, count: int) -> list[Any]:
        """At most `count` configurations that were not measured; the best ones' neighbours once it is their turn."""
        count = min(count, self.left)
        found: list[Any] = []
        if len(self.measured) >= self.trials * _RANDOM_SHARE:
            for best in self.best(_FINALISTS):
                found += [c for c in self._order if _is_neighbour(c, best) and c not in self.measured]
                if len(found) >= count:
                    break
        found += [c for c in self._order if c not in self.measured]
        return list(dict.fromkeys(found))[:count]

    def hopeless(self, fastest_ms: float) -> bool:
        """Whether enough was tried to see that another algorithm, whose best is `fastest_ms`, stays ahead."""
        best = min(self.measured.values(), default=0.0)
        return len(self.measured) >= max(_FAIR_TRIALS, self.trials // 4) and best > _HOPELESS * fastest_ms

    def best(self, count: int) -> list[Any]:
        """The fastest of those that work."""
        working = [config for config, ms in self.measured.items() if ms < float("inf")]
        return sorted(working, key=self.measured.__getitem__)[:count]

    def finalists(self) -> list[Any]:
        """The best, the default, the next best: what to measure again, the most important first."""
        best = self.best(_FINALISTS)
        default = [self.default] if self.measured.get(self.default, float("inf")) < float("inf") else []
        return list(dict.fromkeys([*best[:1], *default, *best[1:]]))

    def tuned(self) -> Tuned:
        """What was found; the times of the last measurement, where there is one."""
        final = {config: ms for config, ms in self.final.items() if ms < float("inf")}
        times = final or {config: ms for config, ms in self.measured.items() if ms < float("inf")}
        best = min(times, key=times.__getitem__, default=None)
        return Tuned(
            self.workload,
            self.algorithm.name,
            times.get(self.default),  # None where that was measured at another time: the two do not compare
            None if best is None else times[best],
            config_text(best),
            len(self.measured),
            sum(ms == float("inf") for ms in self.measured.values()),
        )


def _is_neighbour(a: Any, b: Any) -> bool:
    """Whether they differ in one field."""
    fields, others = config_fields(a), config_fields(b)
    return len([name for name in fields if fields[name] != others[name]]) == 1


class _Tuner:
    def __init__(
        self, target: Target, threads: int, folder: Path, measurer: Measurer, progress: Progress, total: int
    ) -> None:
        self.target, self.threads, self.folder, self.measurer = target, threads, folder, measurer
        self.progress, self.total, self.done, self.spent_s = progress, total, 0, 0.0
        self.provenance = {
            "evo_tvm": version("evo_tvm"),
            "tvm": version("apache-tvm"),
            "cpu": cpu.model(),
            "cores": cpu.usable_cores(),
        }

    def turn(self, spaces: Sequence[_Space]) -> bool:
        """Measures the next configurations of one workload; False where there are none left."""
        fastest = min(ms for space in spaces for ms in (*space.measured.values(), float("inf")))
        open_spaces = [space for space in spaces if space.left and not space.hopeless(fastest)]
        begun = all(space.measured for space in spaces)  # first the defaults of all workloads
        share = max(1, _batch(spaces[0].workload) // max(1, len(open_spaces))) if begun else 1
        picked = [(space, config) for space in open_spaces for config in space.next(share)]
        if picked:
            begin = time.monotonic()
            self._measure(picked, None)
            self.spent_s += time.monotonic() - begin
            self.done += len(picked)
            self.progress(_status(spaces), self.done, self.total)
        return bool(picked)

    def finish(self, spaces: Sequence[_Space]) -> None:
        """Measures the best of each algorithm again, then its default and the next best while memory allows for them,
        all beside each other."""
        ranked = [space.finalists() for space in spaces]
        order = [(space, c[k]) for k in range(_FINALISTS + 1) for space, c in zip(spaces, ranked, strict=True) if c[k:]]
        least = sum(bool(finalists) for finalists in ranked)
        limit = _batch(spaces[0].workload, 2 * _BATCH)
        picked = order[: max(least, limit)]
        for start in range(0, len(picked), limit):
            self._measure(picked[start : start + limit], _FINAL_EFFORT)
        self.progress(_status(spaces), self.done, self.total)

    def final_seconds(self, tasks: Sequence[Sequence[_Space]]) -> float:
        """How long `finish` will take, by what measuring has taken so far."""
        count = sum(len(space.finalists()) for spaces in tasks for space in spaces if space.fresh)
        return count * _FINAL_COST * self.spent_s / max(1, self.done)

    def _measure(self, picked: Sequence[tuple[_Space, Any]], effort: Effort | None) -> None:
        candidates = [Candidate(space.algorithm.name, config) for space, config in picked]
        workload = picked[0][0].workload
        for (space, config), result in zip(picked, self.measurer.measure(workload, candidates, effort), strict=True):
            record = self._record(space, config, result, effort is not None)
            append(self.folder, record)
            space.take(config, record.latency_ms, effort is not None)

    def _record(self, space: _Space, config: Any, result: Result, final: bool) -> Record:
        operator, name = space.workload.operator, space.algorithm.name
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return Record(
            space.workload,
            log_name(self.target),
            name,
            config_fields(config),
            revision_of(self.target.isa, operator, name),
            result.samples_ms,
            result.error,
            threads=self.threads,
            provenance={**self.provenance, "date": date, **({"final": True} if final else {})},
        )


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
) -> tuple[Tuned, ...]:
    """Measures up to `trials` configurations of each workload and algorithm on this machine; each goes into the log
    in `folder` at once, and what is there already is not measured again.

    seconds: stop about then; all workloads get their share. algorithms: these alone. seed: of the random choice.

    Raises UsageError: an algorithm that does not exist, a log that cannot be written, a target that is not this
    machine.
    """
    begin = time.monotonic()
    _check(target, algorithms)
    check_writable(folder, log_name(target))
    tasks = []
    for workload in dict.fromkeys(workloads):
        spaces = [
            _Space(workload, algorithm, target, num_threads, trials, seed)
            for name, algorithm in ALGORITHMS.get(workload.operator, {}).items()
            if (not algorithms or name in algorithms) and algorithm.refusal(workload, target) is None
        ]
        if spaces:
            tasks.append(spaces)
    _recall(tasks, folder, log_name(target), num_threads)
    total = sum(space.left for spaces in tasks for space in spaces)
    with Measurer(target, num_threads) as measurer:
        tuner = _Tuner(target, num_threads, folder, measurer, progress or (lambda text, done, total: None), total)
        waiting = list(range(len(tasks)))
        while waiting:
            for number in list(waiting):
                if seconds is not None and time.monotonic() - begin + tuner.final_seconds(tasks) > seconds:
                    waiting.clear()
                    break
                if not tuner.turn(tasks[number]):
                    waiting.remove(number)
        for spaces in tasks:
            if any(space.fresh for space in spaces):
                tuner.finish(spaces)
    return tuple(space.tuned() for spaces in tasks for space in spaces if space.measured)


def _recall(tasks: Sequence[Sequence[_Space]], folder: Path, target: str, threads: int) -> None:
    """Takes what the log has of these workloads, unless it is stale."""
    spaces = {(space.workload.key, space.algorithm.name): space for spaces in tasks for space in spaces}
    for record in read_records(folder, target):
        space = spaces.get((record.workload.key, record.algorithm))
        if space is not None and record.threads == threads and record.measured == "time" and not record.stale:
            config = space.algorithm.config_type(**record.config)
            space.take(config, record.latency_ms, bool(record.provenance.get("final")))


def _check(target: Target, algorithms: Sequence[str]) -> None:
    known = sorted({name for named in ALGORITHMS.values() for name in named})
    for name in algorithms:
        if name not in known:
            raise UsageError(f"unknown algorithm {name}", where="--algorithm", hint=f"Known: {', '.join(known)}.")
    missing = [feature for feature in target.required_features if feature not in cpu.features()]
    if target.arch != cpu.arch() or missing:
        raise UsageError(
            f"this machine ({cpu.model()}) cannot run kernels for {target.name}",
            where="--target",
            hint="Tune on the machine that the model is for, with --target host.",
        )


def _batch(workload: Workload, most: int = _BATCH) -> int:
    """How many kernels of the workload to have at a time."""
    weights = sum(4 * math.prod(shape) for shape in workload.shapes[1:])
    return max(1, min(most, _BATCH_BYTES // max(1, _GROWTH * weights)))


def _status(spaces: Sequence[_Space]) -> str:
    """ "conv2d 1x64x56x56 64x64x3x3: winograd4 0.73 ms" """
    workload = spaces[0].workload
    times = {s.algorithm.name: min(s.measured.values(), default=float("inf")) for s in spaces}
    best = min(times, key=times.__getitem__)
    shapes = " ".join("x".join(map(str, shape)) for shape in workload.shapes)
    return f"{workload.operator} {shapes}: {best} {times[best]:.3g} ms"
