"""`evo_tvm.predict`: what a model takes on a target, before anything is compiled for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo_tvm.decide import Knowledge, config_text
from evo_tvm.errors import UsageError
from evo_tvm.executor.plan_program import plan_program
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.pipeline import clean, plan
from evo_tvm.plan.storage import Placement
from evo_tvm.predict.model import Prediction, Predictor, load_predictor, total
from evo_tvm.predict.predict_groups import NO_PREDICTOR, kernel_of
from evo_tvm.target import Target, resolve
from evo_tvm.tune.folders import log_name

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class LayerPrediction:
    """One kernel that a run calls. layer: the ONNX node that it is named after; source, reason: of the prediction, see
    `evo_tvm.predict.model.Prediction`."""

    layer: str
    operator: str
    algorithm: str
    config: str
    latency_ms: float
    low_ms: float
    high_ms: float
    source: str
    reason: str


@dataclass(frozen=True)
class ModelPrediction:
    """What one run takes. Nine of ten times lie between `low_ms` and `high_ms`.

    layers: all kernels in the order of calls; none is left out of the sum. call_ms: what a run takes beside them.
    arena_bytes: memory for activations; weights_bytes: constants, as the compiled file holds them; prepared_bytes: what
    loading makes of them. unknown: what the predictor has no data for, and why; those kernels have estimates.
    """

    target: str
    num_threads: int
    layers: tuple[LayerPrediction, ...]
    call_ms: float
    latency_ms: float
    low_ms: float
    high_ms: float
    arena_bytes: int
    weights_bytes: int
    prepared_bytes: int
    unknown: Mapping[str, int]

    def meets(self, budget_ms: float) -> str:
        """Whether a run takes at most so long: "yes", "no", or that it is too near to tell, "probably" and "hardly"."""
        if self.latency_ms <= budget_ms:
            return "yes" if self.high_ms <= budget_ms else "probably"
        return "no" if self.low_ms > budget_ms else "hardly"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def predict(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | Target = "host",
    num_threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    predictor: str | os.PathLike[str] | None = None,
) -> ModelPrediction:
    """What a run of the model takes on a target, from what was measured there: milliseconds and bytes.

    Nothing is compiled: the model is imported and its kernels are chosen as `compile` chooses them. Quantized models
    are predicted in integers. model, target, num_threads, input_shapes: as for `compile`. predictor: a file, in place
    of the one that lies with the tuning logs.

    Raises ModelError, UnsupportedOperatorError, TargetError; UsageError: a number that is too small, a predictor that
    cannot be used.
    """
    if num_threads < 1:
        raise UsageError("num_threads is too small", expected="at least 1", got=num_threads)
    resolved = target if isinstance(target, Target) else resolve(target)
    knowledge = Knowledge.of(resolved)
    if predictor is not None:
        knowledge = replace(knowledge, predictor=load_predictor(Path(predictor), log_name(resolved)))
    known = knowledge.predictor
    planned = plan(clean(model, input_shapes), resolved, num_threads, known=knowledge)
    graph, placement = planned.graph, Placement(planned.graph)
    layers = []
    for group, found in zip(planned.kernels, planned.predictions, strict=True):
        _, algorithm, config = kernel_of(graph, group)
        operator = "+".join(op.kind for op in group.ops)
        times = found.value, found.low, found.high
        layers.append(
            LayerPrediction(group.name, operator, algorithm, config_text(config), *times, found.source, found.reason)
        )
    lowered = [lower_group(graph, placement, g, resolved.lanes_f32, resolved.signed_bytes) for g in planned.kernels]
    program = plan_program(graph, lowered, [f"kernel_{i}" for i in range(len(lowered))])
    call_ms = known.call_ms + known.step_ms * len(layers) if known is not None else 0.0
    whole = total(planned.predictions)
    return ModelPrediction(
        target=resolved.name,
        num_threads=num_threads,
        layers=tuple(layers),
        call_ms=call_ms,
        latency_ms=whole.value + call_ms,
        low_ms=whole.low + call_ms,
        high_ms=whole.high + call_ms,
        arena_bytes=program.arena_bytes,
        weights_bytes=len(program.weights),
        prepared_bytes=program.prepared_bytes,
        unknown=_unknown(planned.predictions, known),
    )


def _unknown(predictions: Sequence[Prediction], predictor: Predictor | None) -> dict[str, int]:
    """Why kernels are estimated -> how many."""
    if predictor is None:
        return {NO_PREDICTOR: len(predictions)}
    reasons = [p.reason for p in predictions if p.source == "rule"]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
