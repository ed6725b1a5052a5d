"""A predictor's choice among the configurations of a kernel."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.predict.features import rule_cycles
from evo_tvm.predict.model import Prediction, Predictor
from evo_tvm.target import Target
from evo_tvm.workload import Fused, Workload

#: Configurations of a kernel and algorithm that are compared: the quickest by the analytic rule, and random ones.
_BY_RULE, _RANDOM = 24, 24
#: Of larger spaces this many are looked at.
_LOOKED_AT = 256
#: What is predicted has to be this much faster than the rule's choice to displace it.
_WORTH = 0.97


@dataclass(frozen=True)
class Ranked:
    """A configuration and what is predicted of it."""

    algorithm: str
    config: Any
    prediction: Prediction


class Ranking:
    """What `predictor` takes for each workload and algorithm; nothing where it is None, or has no data.

    left_out: says of a workload and an algorithm that they need no prediction.
    """

    def __init__(
        self,
        predictor: Predictor | None,
        target: Target,
        num_threads: int,
        left_out: Callable[[Workload, str], bool] = lambda workload, algorithm: False,
    ) -> None:
        # Configurations were compared by themselves; what corrects for whole models has seen one of each kernel.
        self.predictor = predictor.source or predictor if predictor is not None else None
        self.target, self.num_threads, self.left_out = target, num_threads, left_out
        self._found: dict[tuple[Fused, str], list[Ranked]] = {}

    def prepare(self, workloads: Iterable[Workload]) -> None:
        """Ranks the configurations of all of them in one prediction."""
        if self.predictor is None:
            return
        wanted = {
            (workload.kernel, name): workload
            for workload in workloads
            for name, algorithm in ALGORITHMS.get(workload.operator, {}).items()
            if (workload.kernel, name) not in self._found
            and not self.predictor.why_not(workload, name, self.target, self.num_threads)
            and algorithm.refusal(workload, self.target) is None
            and not self.left_out(workload, name)
        }
        kernels = [
            (workload, name, config)
            for (_, name), workload in wanted.items()
            for config in candidates(workload, name, self.target, self.num_threads)
        ]
        if not kernels:
            return
        predicted = self.predictor.predict(kernels, self.target, self.num_threads)
        rows = zip(kernels, predicted, strict=True)
        for key, group in itertools.groupby(rows, key=lambda row: (row[0][0].kernel, row[0][1])):
            self._found[key] = _ordered([Ranked(key[1], config, prediction) for (_, _, config), prediction in group])

    def ranked(self, workload: Workload, algorithm: str) -> list[Ranked]:
        """Configurations from the quickest on; none where nothing can be predicted."""
        key = (workload.kernel, algorithm)
        if key not in self._found:
            self.prepare([workload])
        return self._found.setdefault(key, [])

    def best(self, workload: Workload, algorithm: str) -> Ranked | None:
        """The first of them."""
        return next(iter(self.ranked(workload, algorithm)), None)


def candidates(workload: Workload, algorithm: str, target: Target, num_threads: int) -> list[Any]:
    """Configurations to compare, always the same: the rule's own, others that it thinks well of, and random ones."""
    found = ALGORITHMS[workload.operator][algorithm]
    default = found.default(workload, target, num_threads)
    space = [config for config in found.space(workload, target, num_threads) if config != default]
    rng = random.Random(f"{workload.key} {algorithm}")
    if len(space) > _BY_RULE + _RANDOM:
        space = rng.sample(space, min(len(space), _LOOKED_AT))
        space.sort(key=lambda config: rule_cycles(workload, algorithm, config, target, num_threads))
        rest = space[_BY_RULE:]
        space = space[:_BY_RULE] + rng.sample(rest, min(len(rest), _RANDOM))
    return [default, *space]


def _ordered(ranked: list[Ranked]) -> list[Ranked]:
    """The quickest first; the rule's own, which comes first here, before what is hardly better."""
    default = ranked[0]
    return sorted(ranked, key=lambda r: r.prediction.value * (_WORTH if r is default else 1.0))
