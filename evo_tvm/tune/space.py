"""The configurations of one algorithm for one workload: which were measured, and which to try next."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evo_tvm.algorithms import Algorithm
from evo_tvm.decide import config_fields, config_text
from evo_tvm.target import Target
from evo_tvm.tune.guide import Guide
from evo_tvm.workload import Workload

#: Random configurations before the search is guided: so many, or this share of the trials.
_RANDOM_LEAST, _RANDOM_SHARE = 8, 0.2
#: The share of the guided trials that is random all the same.
_EPSILON = 0.1
#: Of the evolution: configurations in a generation, generations, and the chance that a child has one parent alone.
_POPULATION, _GENERATIONS, _MUTATION = 64, 4, 0.6
#: An algorithm whose best is so many times slower than another's is given up after so many trials, or a quarter.
_HOPELESS, _FAIR_TRIALS = 1.5, 8
#: So many of each algorithm are measured again, longer, beside those of the other algorithms.
FINALISTS = 3


@dataclass(frozen=True)
class Tuned:
    """What was found for one workload and algorithm; times in milliseconds, None where it could not be measured.

    Of an emulated board thousands of instructions take the place of times. trials: configurations that the log has by
    now, failures among them.
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


class Space:
    """Random first, then evolution: children of the best, which the guide takes to be fast, and some at random."""

    def __init__(
        self,
        workload: Workload,
        algorithm: Algorithm,
        target: Target,
        threads: int,
        trials: int,
        seed: int,
        guide: Guide | None = None,
    ) -> None:
        self.workload, self.algorithm, self.guide = workload, algorithm, guide
        self.default = algorithm.default(workload, target, threads)
        self.all = dict.fromkeys([self.default, *algorithm.space(workload, target, threads)])
        self.trials = min(trials, len(self.all))
        self.measured: dict[Any, float] = {}
        self.final: dict[Any, float] = {}
        self.fresh = False  # whether there are measurements later than the final ones
        self.under_way: set[Any] = set()
        self._rng = random.Random(f"{seed} {workload.key} {algorithm.name}")
        self._order = list(self.all)[1:]
        self._rng.shuffle(self._order)
        values: dict[str, dict[Any, None]] = defaultdict(dict)
        for config in self.all:
            for name, value in config_fields(config).items():
                values[name][value] = None
        self._values = {name: list(known) for name, known in values.items() if len(known) > 1}

    def take(self, config: Any, latency_ms: float, final: bool) -> None:
        """Notes a measurement; infinity is a failure."""
        found = self.final if final else self.measured
        found[config] = min(latency_ms, found.get(config, float("inf")))
        self.fresh = not final
        self.under_way.discard(config)

    @property
    def left(self) -> int:
        """Trials that may still be begun."""
        return max(0, self.trials - len(self.measured) - len(self.under_way))

    def next(self, count: int) -> list[Any]:
        """At most `count` configurations that were not tried; they are under way from now on."""
        count = min(count, self.left)
        found: list[Any] = []
        if self.default not in self.measured and self.default not in self.under_way:
            found = [self.default][:count]
        tried = len(self.measured) + len(self.under_way)
        start = max(_RANDOM_LEAST, int(self.trials * _RANDOM_SHARE))
        if tried >= start:
            found += self._evolve(count - len(found))
        known = {*self.measured, *self.under_way, *found}
        found += [config for config in self._order if config not in known][: count - len(found)]
        self.under_way.update(found)
        return found

    def _evolve(self, count: int) -> list[Any]:
        """The most promising of some generations; some of `count` are left to chance."""
        count -= sum(self._rng.random() < _EPSILON for _ in range(count))
        known = {*self.measured, *self.under_way}
        population = self.best(_POPULATION // 2) or [self.default]
        population += self._rng.sample(self._order, min(_POPULATION // 2, len(self._order)))
        seen: dict[Any, float] = {}
        for _ in range(_GENERATIONS):
            children = {self._child(population) for _ in range(_POPULATION)}
            fresh = [config for config in children if config in self.all and config not in seen]
            seen.update(zip(fresh, self._judge(fresh), strict=True))
            population = sorted(seen, key=seen.__getitem__)[:_POPULATION] + self.best(_POPULATION // 4)
        return [config for config in sorted(seen, key=seen.__getitem__) if config not in known][:count]

    def _child(self, population: Sequence[Any]) -> Any:
        """Of one parent with one or two fields changed, or of two parents' fields."""
        fields = dict(config_fields(self._rng.choice(population)))
        if self._rng.random() >= _MUTATION:
            other = config_fields(self._rng.choice(population))
            fields = {name: self._rng.choice((value, other[name])) for name, value in fields.items()}
        elif self._values:
            for name in self._rng.sample(list(self._values), min(len(self._values), self._rng.choice((1, 1, 2)))):
                fields[name] = self._rng.choice(self._values[name])
        return self.algorithm.config_type(**fields)

    def _judge(self, configs: Sequence[Any]) -> Sequence[float]:
        """What to expect of each, the lower the better; before anything was learnt all are alike."""
        points = [(self.workload, self.algorithm.name, config) for config in configs]
        found = self.guide.predict(points) if self.guide is not None else None
        return [self._rng.random() for _ in configs] if found is None else found.tolist()

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
        best = self.best(FINALISTS)
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
