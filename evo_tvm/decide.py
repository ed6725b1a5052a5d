"""Which algorithm and configuration each kernel gets, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.workload import Workload

#: An algorithm that only an estimate speaks for has to promise this much before it displaces the first one.
_WORTH = 0.85


@dataclass(frozen=True)
class Considered:
    """An algorithm that was weighed: why it was refused, or its time in milliseconds and where that comes from.

    source: "log", a measurement of this workload on this target; or "rule", the analytic estimate.
    """

    algorithm: str
    refused: str = ""
    config: Any = None
    latency_ms: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Decision:
    """The algorithm and configuration of one kernel. reason: "measured", "estimated", "asked for" or "the only one"."""

    algorithm: str
    config: Any
    reason: str
    considered: tuple[Considered, ...]


def decide(
    workload: Workload, target: Target, num_threads: int, log: Log, asked: str | None = None, where: str = ""
) -> Decision:
    """The fastest algorithm by the log, where it has what the analytic rule takes, else the one of the rule.

    asked: take this algorithm, in its best configuration. where: the layer, for messages.

    Raises UsageError: the algorithm that is asked for does not exist, or does not fit; those that fit are named.
    """
    algorithms = ALGORITHMS[workload.operator]
    considered = tuple(_consider(workload, name, target, num_threads, log) for name in algorithms)
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


def _consider(workload: Workload, name: str, target: Target, num_threads: int, log: Log) -> Considered:
    algorithm = ALGORITHMS[workload.operator][name]
    refused = algorithm.refusal(workload, target)
    if refused is not None:
        return Considered(name, refused)
    found = log.best(target, num_threads, workload, name)
    if found is not None:
        return Considered(name, "", algorithm.config_type(**found.config), found.latency_ms, "log")
    config = algorithm.default(workload, target, num_threads)
    return Considered(name, "", config, _estimate_ms(workload, name, config, target, num_threads), "rule")


def _estimate_ms(workload: Workload, name: str, config: Any, target: Target, num_threads: int) -> float:
    algorithm = ALGORITHMS[workload.operator][name]
    cycles = algorithm.cycles(workload, config, target, num_threads)
    return (cycles + algorithm.border_cycles(workload, config, target)) / target.clock_hz * 1e3


def config_text(config: Any) -> str:
    """A configuration as profiles and logs show it: "oc_tile=2,oh_tile=1"; empty for None."""
    return "" if config is None else ",".join(f"{name}={value}" for name, value in config_fields(config).items())


def config_fields(config: Any) -> Mapping[str, Any]:
    """The tunables of a configuration by name."""
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
