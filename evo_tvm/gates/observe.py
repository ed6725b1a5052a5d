"""What held-back samples go through: with each strictness of the gates that skip, and at each exit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from evo_tvm.gates.explore import pooled
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import Array, forward, softmax
from evo_tvm.gates.samples import Samples
from evo_tvm.gates.thresholds import NEVER_SKIP, Outcomes

Progress = Callable[[str, int, int], None]


class GateRun(Protocol):
    """A gate's decisions in a run."""

    @property
    def name(self) -> str: ...
    @property
    def on(self) -> Array: ...


class Observed(Protocol):
    """A loaded model with gates that skip, and with the features of exits as further outputs."""

    def set_thresholds(self, thresholds: Mapping[str, float]) -> None: ...
    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]: ...
    def gate_log(self) -> Sequence[GateRun]: ...


def observe(
    module: Observed,
    output: str,
    skips: Sequence[str],
    exits: Sequence[Hook],
    thresholds: Sequence[float],
    samples: Samples,
    wanted: Array | None,
    plain: Array | None,
    progress: Progress,
    text: str,
) -> tuple[Outcomes, Array]:
    """The outcomes of all samples with these thresholds of the gates `skips`, and the classes found, int64 [N].

    wanted: int64 [N], the right classes; None: those that are found count as right.
    plain: bool [N], what is right without gates; None: these are the outcomes without.
    """
    count = len(samples)
    if skips:
        module.set_thresholds(dict(zip(skips, thresholds, strict=True)))
    mask, found = np.ones((count, len(skips)), bool), np.zeros(count, np.int64)
    seen = {hook.feature: np.zeros((count, hook.weights[0].shape[0]), np.float32) for hook in exits}
    skipping = any(t > NEVER_SKIP for t in thresholds)
    for i, (feed, _) in enumerate(samples):
        values = module.run(feed)
        found[i] = values[output].argmax()
        for name, rows in seen.items():
            rows[i] = pooled(values[name])
        if skipping:
            on = {record.name: bool(record.on[0]) for record in module.gate_log()}
            mask[i] = [on[name] for name in skips]
        if i % 64 == 0:
            progress(text, i, count)
    right = found if wanted is None else wanted
    logits = [forward(hook.weights, seen[hook.feature]) for hook in exits]
    empty = np.zeros((count, 0))
    return Outcomes(
        tuple(thresholds),
        mask,
        found == right,
        np.stack([softmax(z).max(axis=1) for z in logits], axis=1) if exits else empty,
        np.stack([z.argmax(axis=1) == right for z in logits], axis=1) if exits else empty.astype(bool),
        found == right if plain is None else plain,
    ), found
