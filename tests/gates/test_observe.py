"""Ways through the gates: computed once each, and what is said of an answer that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import as_logits, softmax
from evo_tvm.gates.observe import Observer, calibrated
from evo_tvm.gates.samples import open_samples
from evo_tvm.gates.thresholds import NEVER_SKIP
from evo_tvm.quantize.calibration_data import ModelInput

COUNT = 300
GATES = {"a": 1, "b": 3}


@dataclass
class Record:
    name: str
    scores: np.ndarray
    on: np.ndarray


class Fake:
    """Scores of "b" are higher where "a" is on; the answer follows from the input and from how much is on."""

    def __init__(self) -> None:
        self.thresholds: dict[str, float] = {}
        self.runs = 0
        self.log: list[Record] = []

    def set_thresholds(self, thresholds: Mapping[str, float]) -> None:
        self.thresholds = dict(thresholds)

    def run(self, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        self.runs += 1
        x = np.asarray(inputs["x"])[0]
        a = x[:1]
        on_a = a > np.float32(self.thresholds["a"])
        b = x[1:4] + on_a if on_a[0] else np.full(3, np.nan, np.float32)  # not asked where "a" is off
        on_b = b > np.float32(self.thresholds["b"])
        self.log = [Record("a", a, on_a), Record("b", b, on_b)]
        logits = x[4:7] + np.array([0, 0, 2 - on_a[0] - on_b.mean()])
        return {"y": logits[None].astype(np.float32), "f": x[None, :2]}

    def gate_log(self) -> Sequence[Record]:
        return self.log


def observer(fake: Fake, labels: np.ndarray | None = None, exits: Sequence[Hook] = ()) -> Observer:
    x = np.random.default_rng(0).standard_normal((COUNT, 7)).astype(np.float32)
    samples = open_samples(list(x), labels, (ModelInput("x", (1, 7), "float32"),))
    return Observer(fake, "y", GATES, exits, samples, lambda text, done, total: None)


def wanted(thresholds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Shares on, and answers, one run for each sample."""
    fake = Fake()
    fake.set_thresholds(dict(zip(GATES, thresholds, strict=True)))
    masks, answers = [], []
    for x in np.random.default_rng(0).standard_normal((COUNT, 7)).astype(np.float32):
        answers.append(int(fake.run({"x": x[None]})["y"].argmax()))
        a, b = fake.log
        masks.append([float(a.on[0]), float(np.where(np.isnan(b.scores), 1, b.on).mean())])
    return np.array(masks), np.array(answers)


@pytest.mark.parametrize("thresholds", [(0.0, NEVER_SKIP), (NEVER_SKIP, 0.4), (0.3, 0.1), (9.0, 9.0)])
def test_outcomes_are_those_of_a_run_with_these_thresholds(thresholds: tuple[float, float]) -> None:
    seen = observer(Fake())
    for others in ((0.1, -0.5), (1.0, 0.2), thresholds):
        seen.outcomes(others)
    found = seen.outcomes(thresholds)
    masks, answers = wanted(thresholds)
    np.testing.assert_allclose(found.mask, masks)
    _, plain = wanted((NEVER_SKIP, NEVER_SKIP))
    np.testing.assert_array_equal(found.right, answers == plain)
    assert found.skip_thresholds == thresholds and found.plain.all()


def test_a_sample_runs_again_only_where_it_goes_another_way() -> None:
    fake = Fake()
    seen = observer(fake)
    assert fake.runs == COUNT
    first = seen.outcomes((NEVER_SKIP, -0.5))
    assert fake.runs - COUNT == (first.mask < 1).any(axis=1).sum() < COUNT
    before = fake.runs
    for thresholds in ((NEVER_SKIP, -0.5), (NEVER_SKIP, NEVER_SKIP)):
        seen.outcomes(thresholds)
    assert fake.runs == before


def test_labels_count_where_the_answer_stays_and_beliefs_where_it_changes() -> None:
    _, answers = wanted((NEVER_SKIP, NEVER_SKIP))
    labels = np.where(np.arange(COUNT) % 4 == 0, (answers + 1) % 3, answers)
    seen = observer(Fake(), labels)
    assert seen.plain.mean() == 0.75
    found = seen.outcomes((0.5, 0.5))
    _, now = wanted((0.5, 0.5))
    same = now == answers
    assert 0 < same.sum() < COUNT
    np.testing.assert_array_equal(found.right[same], seen.plain[same])
    assert (found.right[~same] < seen.plain[~same]).all()


def test_exits_are_judged_by_their_hooks() -> None:
    weights = np.random.default_rng(2).standard_normal((2, 3)).astype(np.float32), np.zeros(3, np.float32)
    found = observer(Fake(), exits=[Hook("f", "exit", "f", weights, 1.0)]).outcomes((NEVER_SKIP, NEVER_SKIP))
    x = np.random.default_rng(0).standard_normal((COUNT, 7)).astype(np.float32)
    likely = softmax(x[:, :2] @ weights[0])
    np.testing.assert_allclose(found.scores[:, 0], likely.max(axis=1), rtol=1e-5)
    _, plain = wanted((NEVER_SKIP, NEVER_SKIP))
    np.testing.assert_array_equal(found.exit_right[:, 0], likely.argmax(axis=1) == plain)


def test_scores_are_those_of_samples_that_were_asked() -> None:
    seen = observer(Fake())
    thresholds = (0.3, NEVER_SKIP)
    found = seen.outcomes(thresholds)
    assert seen.scores(thresholds, 0).shape == (COUNT,)
    assert seen.scores(thresholds, 1).shape == (3 * int(found.mask[:, 0].sum()),)


def test_confidence_becomes_the_accuracy() -> None:
    logits = 3 * np.random.default_rng(1).standard_normal((500, 10))
    for accuracy in (0.5, 0.9):
        assert calibrated(logits, accuracy).max(axis=1).mean() == pytest.approx(accuracy, abs=1e-3)


def test_probabilities_are_taken_for_what_they_are() -> None:
    logits = np.random.default_rng(1).standard_normal((4, 10))
    np.testing.assert_allclose(softmax(as_logits(softmax(logits))), softmax(logits), rtol=1e-6)
    np.testing.assert_array_equal(as_logits(logits), logits)
