from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import Knowledge, decide
from evo_tvm.predict.folders import PredictorWarning, predictor_of
from evo_tvm.predict.model import Prediction
from evo_tvm.predict.rank import Ranking, candidates
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.workload import Workload
from tests.predict.examples import TARGET, convolution, record

CONV = convolution(64, 28, kernel=5)


class Oracle:
    """A predictor that says what it is told: milliseconds by algorithm, less where a configuration prefetches."""

    def __init__(self, **times_ms: float) -> None:
        self.times_ms, self.calls, self.source = times_ms, 0, None

    def why_not(self, workload: Workload, algorithm: str, target: Target, num_threads: int) -> str:
        return "" if algorithm in self.times_ms else "nothing was measured"

    def predict(self, kernels: Sequence[Any], target: Target, num_threads: int = 1) -> list[Prediction]:
        self.calls += 1
        values = [self.times_ms[name] * (0.8 if getattr(c, "prefetch", False) else 1.0) for _, name, c in kernels]
        return [Prediction(value, value * 0.9, value * 1.1) for value in values]


def ranking(**times_ms: float) -> Ranking:
    return Knowledge(Log(), Oracle(**times_ms)).ranking(TARGET, 1)  # type: ignore[arg-type]


def test_the_predictor_chooses_among_algorithms_and_configurations() -> None:
    found = decide(CONV, TARGET, 1, Log(), ranking=ranking(spatial_pack=1.0, im2col=0.9, indirect=3.0))
    assert (found.algorithm, found.reason) == ("spatial_pack", "predicted")
    assert found.config.prefetch and found.taken is not None and found.taken.latency_ms == pytest.approx(0.8)
    assert {c.source for c in found.considered if not c.refused} == {"predictor"}


def test_a_rule_decides_where_the_predictor_knows_only_some() -> None:
    found = decide(CONV, TARGET, 1, Log(), ranking=ranking(im2col=0.001))
    assert found.reason == "estimated"
    assert {c.algorithm: c.source for c in found.considered if not c.refused} == {
        "spatial_pack": "rule",
        "im2col": "predictor",
        "indirect": "rule",
    }


@pytest.mark.parametrize(
    ("predicted", "algorithm", "reason"), [(0.95, "im2col", "measured"), (0.5, "indirect", "predicted")]
)
def test_what_was_measured_needs_a_clear_lead_to_be_displaced(predicted: float, algorithm: str, reason: str) -> None:
    config = ALGORITHMS["conv2d"]["im2col"].default(CONV, TARGET, 1)
    log = Log([record(CONV, config, 1.0, algorithm="im2col")])
    known = Knowledge(log, Oracle(spatial_pack=2.0, indirect=predicted, im2col=1.2))  # type: ignore[arg-type]
    found = decide(CONV, TARGET, 1, log, ranking=known.ranking(TARGET, 1))
    assert (found.algorithm, found.reason) == (algorithm, reason)
    considered = next(c for c in found.considered if c.algorithm == "im2col")
    assert considered.source == "log" and considered.latency_ms == 1.0


def test_all_workloads_are_ranked_in_one_prediction() -> None:
    oracle = Oracle(spatial_pack=1.0, im2col=2.0, indirect=2.0)
    ranked = Ranking(oracle, TARGET, 1)  # type: ignore[arg-type]
    workloads = [convolution(c, 14, kernel=5) for c in (16, 32, 48)]
    ranked.prepare([*workloads, replace(workloads[0], epilogue=())])
    for workload in workloads:
        assert ranked.best(workload, "spatial_pack") is not None
        assert ranked.best(workload, "winograd4") is None
    assert oracle.calls == 1


def test_candidates_are_few_and_always_the_same() -> None:
    found = candidates(CONV, "spatial_pack", TARGET, 1)
    assert found == candidates(CONV, "spatial_pack", TARGET, 1)
    assert found[0] == ALGORITHMS["conv2d"]["spatial_pack"].default(CONV, TARGET, 1)
    assert 10 < len(found) == len(set(found)) < 60


def test_without_a_predictor_nothing_changes() -> None:
    plain = decide(CONV, TARGET, 1, Log())
    assert plain == decide(CONV, TARGET, 1, Log(), ranking=Knowledge().ranking(TARGET, 1))
    assert plain.reason == "estimated"


def test_a_predictor_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    monkeypatch.setattr("evo_tvm.predict.folders.shipped_folder", lambda: tmp_path / "shipped")
    assert predictor_of(TARGET) is None
    path = tmp_path / "cascadelake" / "predictor.json"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.warns(PredictorWarning, match=r"predictor.json: this predictor cannot be used: it is not JSON"):
        assert predictor_of(TARGET) is None
