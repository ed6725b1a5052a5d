"""What `gate` found: which gates pay, what they give, and the curve; plain data, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evo_tvm.gates.costs import Costs
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.thresholds import NEVER_LEAVE, NEVER_SKIP, Choice


@dataclass(frozen=True)
class GateFinding:
    """A gate that was tried. saved, own: shares of the model's time that it saves on average, and that its hook takes
    when asked. rate: the share of samples that leave or skip here. reason: why it is not attached; "" where it is."""

    name: str
    kind: str
    site: str
    threshold: float
    rate: float
    saved: float
    own: float
    parameters: int
    reason: str

    @property
    def attached(self) -> bool:
        """Whether the compiled model has it."""
        return not self.reason


@dataclass(frozen=True)
class KindFinding:
    """What gates of one kind give alone, on the held-back samples, by the times of kernels."""

    kind: str
    latency: float
    accuracy: float


@dataclass(frozen=True)
class GateReport:
    """metric: "accuracy", against labels, or "agreement" with the whole model. samples: held-back ones. ungated: what
    the model has without gates, of the metric. predicted, measured: accuracy, and latency as a share of the model's
    without gates: by outcomes and times of kernels, and by running the compiled model. share: what hooks have of the
    model's parameters. full_ms: the time of the model without gates. absent: kinds that the model has no site for.
    """

    metric: str
    max_drop: float
    samples: int
    learnt_from: int
    ungated: float
    predicted: tuple[float, float]
    measured: tuple[float, float]
    share: float
    full_ms: float
    gates: tuple[GateFinding, ...]
    kinds: tuple[KindFinding, ...]
    curve: tuple[Choice, ...]
    absent: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """In what JSON has."""
        return {
            **{k: v for k, v in asdict(self).items() if k not in ("predicted", "measured", "gates", "curve")},
            "predicted": dict(zip(("accuracy", "latency"), self.predicted, strict=True)),
            "measured": dict(zip(("accuracy", "latency"), self.measured, strict=True)),
            "gates": [{**asdict(gate), "attached": gate.attached} for gate in self.gates],
            "curve": [{"latency": p.latency, "accuracy": p.accuracy} for p in self.curve],
        }


def findings(hooks: Sequence[Hook], names: Sequence[str], costs: Costs, choice: Choice) -> tuple[GateFinding, ...]:
    """Which gates pay with this choice, and why others do not. A gate that skips pays where what it saves on average is
    more than its hook takes; an exit, where the search kept it."""
    found, skip, leave = [], 0, 0
    for hook, name in zip(hooks, names, strict=True):
        parameters = sum(int(w.size) for w in hook.weights)
        if hook.kind == "exit":
            threshold, rate = choice.exit_thresholds[leave], choice.taken[leave]
            own, saved = float(costs.exit_hooks[leave]), rate * float(costs.whole[-1] - costs.whole[leave])
            reason = "" if threshold < NEVER_LEAVE else "the other exits do better without it"
            leave += 1
        else:
            threshold, rate = choice.skip_thresholds[skip], choice.skipped[skip]
            own, saved = float(costs.skip_hooks[skip]), rate * float(costs.blocks[-1, skip])
            reason = "" if saved > own else f"saves {saved:.2%} of the time, and its hook takes {own:.2%}"
            if hook.kind == "precision" and rate == 1:
                reason = "integers do for every sample"
            elif threshold <= NEVER_SKIP:
                reason = "costs more accuracy for the time that it saves than the others do"
            skip += 1
        found.append(GateFinding(name, hook.kind, hook.site, threshold, rate, saved, own, parameters, reason))
    return tuple(found)


def without_gates(found: Sequence[GateFinding], reason: str) -> tuple[GateFinding, ...]:
    """None of those that were to be attached is."""
    return tuple(replace(one, reason=reason) if one.attached else one for one in found)
