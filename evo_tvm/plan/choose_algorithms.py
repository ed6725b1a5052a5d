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
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.workload import Workload, workload_of


@dataclass(frozen=True)
class Explained:
    """What was decided for one layer."""

    layer: str
    workload: Workload
    decision: Decision

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
        }


def choose_algorithms(
    graph: Graph, target: Target, num_threads: int, log: Log, asked: Mapping[str, str]
) -> tuple[Graph, tuple[Explained, ...]]:
    """Decides for each operator that has algorithms. asked: layer's name -> algorithm's name.

    Raises UsageError: no such layer, no such algorithm, or one that does not fit.
    """
    groups, explained, known = [], [], set()
    for group in graph.groups:
        if group.anchor.kind not in ALGORITHMS:
            groups.append(group)
            continue
        known.add(group.name)
        workload = workload_of(graph, group)
        decision = decide(workload, target, num_threads, log, asked.get(group.name), group.name)
        groups.append(apply_decision(group, workload, decision))
        explained.append(Explained(group.name, workload, decision))
    unknown = sorted(set(asked) - known)
    if unknown:
        raise UsageError(
            f"no layer {unknown[0]} that has a choice of algorithms",
            where="--algorithm",
            hint=f"Layers: {', '.join(sorted(known)) or 'none'}.",
        )
    return graph.with_groups(groups), tuple(explained)


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
