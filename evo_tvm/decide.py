"""Which algorithm and configuration each kernel gets, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.graph import Graph, Group
from evo_tvm.predict.features import rule_cycles
from evo_tvm.predict.folders import predictor_of
from evo_tvm.predict.model import Predictor
from evo_tvm.predict.rank import Ranking
from evo_tvm.target import Target
from evo_tvm.tune.log import Log, log_of
from evo_tvm.workload import Workload, workload_of

#: An algorithm that only an estimate speaks for has to promise this much before it displaces the first one.
_WORTH = 0.85
#: So has one that is predicted, before it displaces one that was measured.
_WORTH_TRYING = 0.9


@dataclass(frozen=True)
class Knowledge:
    """What decisions are made from, beside the analytic rule: measurements, and what was learnt from them."""

    log: Log = field(default_factory=Log)
    predictor: Predictor | None = None

    @staticmethod
    def of(target: Target) -> Knowledge:
        """What is shipped for the target, and what the user has."""
        return Knowledge(log_of(target), predictor_of(target))

    def ranking(self, target: Target, num_threads: int) -> Ranking:
        """What the predictor says of kernels that were not measured."""

        def measured(workload: Workload, algorithm: str) -> bool:
            return self.log.best(target, num_threads, workload, algorithm) is not None

        return Ranking(self.predictor, target, num_threads, measured)


@dataclass(frozen=True)
class Considered:
    """An algorithm that was weighed: why it was refused, or its time in milliseconds and where that comes from.

    source: "log", a measurement of this workload on this target; "predictor", learnt from those of others; or "rule",
    the analytic estimate.
    """

    algorithm: str
    refused: str = ""
    config: Any = None
    latency_ms: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Decision:
    """The algorithm and configuration of one kernel. reason: "measured", "predicted", "estimated", "asked for" or "the
    only one"."""

    algorithm: str
    config: Any
    reason: str
    considered: tuple[Considered, ...]

    @property
    def taken(self) -> Considered | None:
        """What was decided for, as it was considered."""
        return next((c for c in self.considered if c.algorithm == self.algorithm and not c.refused), None)


@dataclass(frozen=True)
class Known:
    """What kernels take together. measured: all of them; else some are predicted."""

    ms: float
    measured: bool


#: Kernels of a graph -> what they take; None where nobody knows.
Times = Callable[[Graph, Sequence[Group]], Known | None]


def decide(
    workload: Workload,
    target: Target,
    num_threads: int,
    log: Log,
    asked: str | None = None,
    where: str = "",
    ranking: Ranking | None = None,
) -> Decision:
    """The fastest algorithm by what was measured of it, else predicted. Where the predictor has no data of some, the
    fastest by the log, if it has what the analytic rule takes, else the one of the rule.

    asked: take this algorithm, in its best configuration. where: the layer, for messages. ranking: what is predicted.

    Raises UsageError: the algorithm that is asked for does not exist, or does not fit; those that fit are named.
    """
    algorithms = ALGORITHMS[workload.operator]
    ranking = ranking or Ranking(None, target, num_threads)
    considered = tuple(_consider(workload, name, target, num_threads, log, ranking) for name in algorithms)
    fitting = [c for c in considered if not c.refused]
    if asked is not None:
        taken = next((c for c in fitting if c.algorithm == asked), None)
        if taken is None:
            refused = {c.algorithm: c.refused for c in considered}.get(asked)
            raise UsageError(
                f"algorithm {asked} does not fit {workload.operator}: {refused}"
                if refused
                else f"unknown algorithm {asked} for {workload.operator}",
                where=where,
                hint=f"Those that fit: {', '.join(c.algorithm for c in fitting)}.",
            )
        return Decision(asked, taken.config, "asked for", considered)
    if len(fitting) == 1:
        return Decision(fitting[0].algorithm, fitting[0].config, "the only one", considered)
    if all(c.source != "rule" for c in fitting):
        return _fastest(fitting, considered)
    # Measured and estimated times do not compare: where what is estimated best was never measured, estimates decide.
    estimates = {
        c.algorithm: c.latency_ms
        if c.source == "rule"
        else _estimate_ms(workload, c.algorithm, c.config, target, num_threads)
        for c in fitting
    }
    name = min(estimates, key=lambda n: estimates[n] * (1.0 if n == fitting[0].algorithm else 1 / _WORTH))
    best = next(c for c in fitting if c.algorithm == name)
    if best.source == "log":
        best = min((c for c in fitting if c.source == "log"), key=lambda c: c.latency_ms)
        return Decision(best.algorithm, best.config, "measured", considered)
    return Decision(best.algorithm, best.config, "estimated", considered)


def known_times(target: Target, num_threads: int, log: Log, ranking: Ranking) -> Times:
    """What kernels with a choice of algorithms take together, each with what is decided for it; None where one of them
    was neither measured nor can be predicted."""

    def times(graph: Graph, groups: Sequence[Group]) -> Known | None:
        workloads = [workload_of(graph, group) for group in groups if group.anchor.kind in ALGORITHMS]
        ranking.prepare(workloads)
        taken = [decide(workload, target, num_threads, log, ranking=ranking).taken for workload in workloads]
        if any(each is None or each.source == "rule" for each in taken):
            return None
        found = [each for each in taken if each is not None]
        return Known(sum(each.latency_ms for each in found), all(each.source == "log" for each in found))

    return times


def compared(
    workloads: Sequence[Workload], taken: Sequence[Considered], target: Target, num_threads: int
) -> list[float]:
    """What each of `workloads` takes as considered, in milliseconds that compare: where one is an estimate, all are."""
    if all(each.source != "rule" for each in taken):
        return [each.latency_ms for each in taken]
    return [
        _estimate_ms(workload, each.algorithm, each.config, target, num_threads)
        for workload, each in zip(workloads, taken, strict=True)
    ]


def _fastest(fitting: Sequence[Considered], considered: tuple[Considered, ...]) -> Decision:
    """Of those that were measured or predicted: what is predicted only has to be clearly faster."""
    best = min(fitting, key=lambda c: c.latency_ms / (1.0 if c.source == "log" else _WORTH_TRYING))
    if all(c.source == "predictor" for c in fitting):
        best = min(fitting, key=lambda c: c.latency_ms)
    return Decision(best.algorithm, best.config, "measured" if best.source == "log" else "predicted", considered)


def _consider(
    workload: Workload, name: str, target: Target, num_threads: int, log: Log, ranking: Ranking
) -> Considered:
    algorithm = ALGORITHMS[workload.operator][name]
    refused = algorithm.refusal(workload, target)
    if refused is not None:
        return Considered(name, refused)
    return configure(workload, name, target, num_threads, log, ranking)


def configure(
    workload: Workload, name: str, target: Target, num_threads: int, log: Log, ranking: Ranking
) -> Considered:
    """An algorithm that fits in the best configuration that is known: measured, else predicted, else the rule's."""
    algorithm = ALGORITHMS[workload.operator][name]
    found = log.best(target, num_threads, workload, name)
    if found is not None:
        config = algorithm.config_type(**found.config)
        return Considered(name, "", config, found.latency_ms, "log")
    ranked = ranking.best(workload, name)
    if ranked is not None:
        return Considered(name, "", ranked.config, ranked.prediction.value, "predictor")
    config = algorithm.default(workload, target, num_threads)
    return Considered(name, "", config, _estimate_ms(workload, name, config, target, num_threads), "rule")


def _estimate_ms(workload: Workload, name: str, config: Any, target: Target, num_threads: int) -> float:
    return rule_cycles(workload, name, config, target, num_threads) / target.clock_hz * 1e3


def config_text(config: Any) -> str:
    """A configuration as profiles and logs show it: "oc_tile=2,oh_tile=1"; empty for None."""
    return "" if config is None else ",".join(f"{name}={value}" for name, value in config_fields(config).items())


def config_fields(config: Any) -> Mapping[str, Any]:
    """The tunables of a configuration by name."""
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
