"""operator => operator with attributes "algorithm" and "config": how its kernel computes it.

The choice comes before the layouts, since some algorithms read further beyond the image than its padding ("border").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import Decision, config_text, decide
from evo_tvm.errors import UsageError
from evo_tvm.graph import Graph, Group
from evo_tvm.predict.model import Prediction
from evo_tvm.predict.rank import Ranking
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.tune.revision import METASCHEDULE
from evo_tvm.workload import Workload, workload_of

#: Asked for instead of a layer's name: every layer that the algorithm fits.
EVERY_LAYER = "*"


@dataclass(frozen=True)
class Explained:
    """What was decided for one layer. prediction: of the kernel within its model."""

    layer: str
    workload: Workload
    decision: Decision
    prediction: Prediction | None = None

    def as_json(self) -> dict[str, Any]:
        """What the manifest keeps, and `--explain` shows."""
        decision = self.decision
        return {
            "layer": self.layer,
            "workload": self.workload.key,
            "algorithm": decision.algorithm,
            "config": config_text(decision.config),
            "reason": decision.reason,
            "considered": [
                {"algorithm": c.algorithm, "refused": c.refused}
                if c.refused
                else {
                    "algorithm": c.algorithm,
                    "config": config_text(c.config),
                    "latency_ms": c.latency_ms,
                    "source": c.source,
                }
                for c in decision.considered
            ],
            **self._times(),
        }

    def _times(self) -> dict[str, Any]:
        """What was measured, and what is predicted, of what was taken, in milliseconds."""
        taken, predicted = self.decision.taken, self.prediction
        found: dict[str, Any] = {}
        if taken is not None and taken.source == "log":
            found["measured_ms"] = taken.latency_ms
        if predicted is not None and predicted.source == "predictor":
            found |= {"predicted_ms": predicted.value, "predicted_between_ms": [predicted.low, predicted.high]}
        return found


def choose_algorithms(
    graph: Graph,
    target: Target,
    num_threads: int,
    log: Log,
    asked: Mapping[str, str],
    ranking: Ranking | None = None,
) -> tuple[Graph, tuple[Explained, ...]]:
    """Decides for each operator that has algorithms. asked: layer's name -> algorithm's name; "*" stands for all layers
    that are not named and that the algorithm fits. ranking: what is predicted of configurations that were not measured.

    Raises UsageError: no such layer, no such algorithm, or one that does not fit, "*" one that fits no layer.
    """
    if ranking is not None:
        ranking.prepare([workload_of(graph, group) for group in graph.groups if group.anchor.kind in ALGORITHMS])
    groups, explained, known, fitted = [], [], {EVERY_LAYER}, False
    for group in graph.groups:
        if group.anchor.kind not in ALGORITHMS:
            groups.append(_as_measured(graph, group, target, num_threads, log))
            continue
        known.add(group.name)
        workload = workload_of(graph, group)
        fits = _fits(asked.get(EVERY_LAYER), workload, target)
        fitted = fitted or fits
        wanted = asked.get(group.name, asked[EVERY_LAYER] if fits else None)
        decision = decide(workload, target, num_threads, log, wanted, group.name, ranking)
        groups.append(apply_decision(group, workload, decision))
        explained.append(Explained(group.name, workload, decision))
    unknown = sorted(set(asked) - known)
    if unknown:
        raise UsageError(
            f"no layer {unknown[0]} that has a choice of algorithms",
            where="--algorithm",
            hint=f"Layers: {', '.join(sorted(known - {EVERY_LAYER})) or 'none'}.",
        )
    if EVERY_LAYER in asked and not fitted:
        operators = sorted({e.workload.operator for e in explained})
        raise UsageError(
            f"algorithm {asked[EVERY_LAYER]} fits no layer of this model",
            where="--algorithm",
            hint="; ".join(f"{operator}: {', '.join(ALGORITHMS[operator])}" for operator in operators)
            or "No layer has algorithms to choose from.",
        )
    return graph.with_groups(groups), tuple(explained)


def _fits(name: str | None, workload: Workload, target: Target) -> bool:
    """Whether the operator has the algorithm, and it computes this workload."""
    algorithm = ALGORITHMS[workload.operator].get(name) if name is not None else None
    return algorithm is not None and algorithm.refusal(workload, target) is None


def _as_measured(graph: Graph, group: Group, target: Target, num_threads: int, log: Log) -> Group:
    """A function of TIR with the schedule that was measured to be fastest, as a trace; any other group as it is."""
    if group.anchor.kind != "tir":
        return group
    found = log.best(target, num_threads, workload_of(graph, group), METASCHEDULE)
    if found is None:
        return group
    attrs = {**group.anchor.attrs, "trace": found.provenance["trace"]}
    return replace(group, ops=(replace(group.anchor, attrs=attrs), *group.ops[1:]))


def apply_decision(group: Group, workload: Workload, decision: Decision) -> Group:
    """The group, computed as was decided."""
    algorithm = ALGORITHMS[workload.operator][decision.algorithm]
    attrs = {
        **group.anchor.attrs,
        "algorithm": decision.algorithm,
        "config": decision.config,
        "border": algorithm.border(workload, decision.config),
    }
    return replace(group, ops=(replace(group.anchor, attrs=attrs), *group.ops[1:]))
