"""What held-back samples go through with any thresholds, each way through the model being computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from evo_tvm.gates.explore import pooled
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import Array, as_logits, forward, softmax
from evo_tvm.gates.samples import Samples
from evo_tvm.gates.thresholds import NEVER_SKIP, Outcomes

Progress = Callable[[str, int, int], None]

#: Samples that take no more memory than this are read once.
_KEPT_BYTES = 256e6


class GateRun(Protocol):
    """A gate's scores and decisions in a run."""

    @property
    def name(self) -> str: ...
    @property
    def scores(self) -> Array: ...
    @property
    def on(self) -> Array: ...


class Observed(Protocol):
    """A loaded model with gates that leave out work, and with the features of exits as further outputs."""

    def set_thresholds(self, thresholds: Mapping[str, float]) -> None: ...
    def run(self, inputs: Mapping[str, object]) -> dict[str, Array]: ...
    def gate_log(self) -> Sequence[GateRun]: ...


class Observer:
    """Remembers each sample's ways through the gates.

    A way holds for any thresholds that decide so all along: of what it saw there the scores are known. So a sample runs
    again only where other thresholds lead it elsewhere.
    """

    def __init__(
        self,
        module: Observed,
        output: str,
        gates: Mapping[str, int],
        exits: Sequence[Hook],
        samples: Samples,
        progress: Progress,
    ) -> None:
        """gates: how many decisions each gate that leaves out work makes, by name."""
        self._module, self._output, self.gates, self._exits = module, output, dict(gates), tuple(exits)
        self._progress, self._count = progress, len(samples)
        feed_bytes = sum(array.nbytes for array in next(iter(samples))[0].values())
        self._samples = [*samples] if feed_bytes * self._count <= _KEPT_BYTES else samples
        self._gate = np.repeat(np.arange(len(gates)), list(gates.values()))  # [slots]
        self._ways: list[dict[str, Array]] = []
        whole = self._rows(np.full(len(gates), NEVER_SKIP))
        self._plain = whole["logits"].argmax(axis=1)
        labelled = samples.labels is not None
        self._right = np.array([label for _, label in samples]) if labelled else self._plain
        self.plain = np.asarray(self._plain == self._right)
        self._beliefs = calibrated(whole["logits"], float(self.plain.mean())) if labelled else None

    def outcomes(self, thresholds: Sequence[float]) -> Outcomes:
        """With these thresholds of the gates, in order."""
        rows = self._rows(np.asarray(thresholds))
        found, count = rows["logits"].argmax(axis=1), len(self.plain)
        right = (found == self._right).astype(float)
        if self._beliefs is not None:
            # As labels have it on average, and without their noise: see `calibrated`.
            numbers = np.arange(count)
            right = self.plain + (self._beliefs[numbers, found] - self._beliefs[numbers, self._plain]).astype(float)
        on, owners = rows["on"], np.arange(len(self.gates))
        decisions = np.maximum((self._gate[:, None] == owners).sum(axis=0), 1)
        return Outcomes(
            tuple(float(t) for t in thresholds),
            on @ (self._gate[:, None] == owners) / decisions,
            right,
            softmax(rows["exits"]).max(axis=2, initial=0),
            np.zeros((count, 0), bool) if not self._exits else rows["exits"].argmax(axis=2) == self._right[:, None],
            self.plain,
        )

    def scores(self, thresholds: Sequence[float], gate: int) -> Array:
        """What this gate, by number, found with these thresholds where it was asked: float32, of all its decisions."""
        found = self._rows(np.asarray(thresholds))["scores"][:, self._gate == gate].ravel()
        return np.asarray(found[~np.isnan(found)])

    def _rows(self, thresholds: Array) -> dict[str, Array]:
        """What each sample goes through."""
        count = self._count
        limits = thresholds.astype(np.float32)[self._gate]
        chosen: dict[str, Array] = {}
        missing = np.ones(count, bool)
        for way in self._ways:
            known = np.isnan(way["scores"]) | ((way["scores"] > limits) == way["on"].astype(bool))
            holds = known.all(axis=1)
            self._put(chosen, {name: values[holds] for name, values in way.items()}, count)
            missing[way["sample"][holds]] = False
        if missing.any():
            self._ways.append(self._run(thresholds, missing))
            self._put(chosen, self._ways[-1], count)
        return chosen

    @staticmethod
    def _put(chosen: dict[str, Array], way: Mapping[str, Array], count: int) -> None:
        for name, values in way.items():
            chosen.setdefault(name, np.zeros((count, *values.shape[1:]), values.dtype))[way["sample"]] = values

    def _run(self, thresholds: Array, missing: Array) -> dict[str, Array]:
        if self.gates:
            self._module.set_thresholds(dict(zip(self.gates, thresholds.tolist(), strict=True)))
        rows: list[tuple[int, Array, Array, Array, list[Array]]] = []
        wanted = ((i, feed) for i, (feed, _) in enumerate(self._samples) if missing[i])
        for number, feed in wanted:
            values = self._module.run(feed)
            log = {record.name: record for record in self._module.gate_log()} if self.gates else {}
            scores = np.concatenate([np.zeros(0, np.float32), *(log[name].scores for name in self.gates)])
            on = np.concatenate([np.zeros(0, bool), *(log[name].on for name in self.gates)])
            seen = [pooled(values[hook.feature]) for hook in self._exits]
            rows.append((number, scores, on | np.isnan(scores), values[self._output].reshape(-1), seen))
            if len(rows) % 64 == 1:
                self._progress("run held-back samples", number, len(missing))
        numbers, scores_, on_, outputs, seen_ = zip(*rows, strict=True)
        exits = [
            forward(hook.weights, np.stack(some))
            for hook, some in zip(self._exits, zip(*seen_, strict=True), strict=True)
        ]
        return {
            "sample": np.array(numbers),
            "scores": np.stack(scores_),
            "on": np.stack(on_).astype(float),
            "logits": as_logits(np.stack(outputs)),
            "exits": np.stack(exits, axis=1) if exits else np.zeros((len(rows), 0, 1)),
        }


def calibrated(logits: Array, accuracy: float) -> Array:
    """How probable each class is [N, classes]: the softmax at the temperature at which confidence is the accuracy.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017). Of a sample that is answered otherwise than
    before, this says how much worse that is, where labels say that one of the two is right, or none, by chance: means
    over samples agree, and vary far less.
    """
    low, high = -3.0, 3.0
    for _ in range(30):
        middle = (low + high) / 2
        sure = softmax(logits / 10**middle).max(axis=1).mean()
        low, high = (middle, high) if sure > accuracy else (low, middle)
    return softmax(logits / 10**low)
