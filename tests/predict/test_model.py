from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import UsageError
from evo_tvm.predict.model import Prediction, Predictor, load_predictor, total
from evo_tvm.predict.train import Examples, centre_of, centre_of_sums, examples_of, part_of, train
from evo_tvm.workload import Workload
from tests.predict.examples import ALGORITHM, TARGET, convolution, law_ms, record, records


@pytest.fixture(scope="module")
def examples() -> Examples:
    return examples_of(records(), TARGET)


@pytest.fixture(scope="module")
def predictor(examples: Examples) -> Predictor:
    return train(examples, "cascadelake", rounds=150)


def kernel(workload: Workload) -> tuple[Workload, str, object]:
    return workload, ALGORITHM, ALGORITHMS["conv2d"][ALGORITHM].default(workload, TARGET, 1)


def test_unseen_workloads_are_predicted(predictor: Predictor) -> None:
    kernels = [kernel(convolution(channels, size)) for channels in (40, 56, 80, 112) for size in (9, 12, 18, 24)]
    expected = np.array([law_ms(workload, config, TARGET) for workload, _, config in kernels])
    found = predictor.predict(kernels, TARGET)
    assert all(p.source == "predictor" and p.low < p.value < p.high for p in found)
    off = np.abs(np.array([p.value for p in found]) / expected - 1)
    assert off.mean() < 0.1
    inside = [p.low <= e <= p.high for p, e in zip(found, expected, strict=True)]
    assert sum(inside) >= len(inside) * 0.7


def test_parts_keep_workloads_whole() -> None:
    keys = [f"workload {i % 10}" for i in range(100)]
    part = part_of(keys, 3)
    assert set(part.tolist()) == {0, 1, 2}
    assert all(len({p for p, k in zip(part.tolist(), keys, strict=True) if k == key}) == 1 for key in keys)


def test_what_it_has_no_data_for_is_named_and_estimated(predictor: Predictor) -> None:
    known, pool = kernel(convolution(40, 12)), Workload("softmax", ((1, 1000),), (1, 1000))
    first, second, third = predictor.predict([known, (pool, "default", None), known], TARGET)
    assert first == third and first.source == "predictor"
    assert second.source == "rule" and second.value > 0
    assert second.reason == "nothing was measured of softmax/default/float32"
    (bytes_,) = predictor.predict([kernel(convolution(64, 12, dtype="uint8"))], TARGET)
    assert bytes_.reason == "nothing was measured of conv2d/spatial_pack/uint8"
    (two,) = predictor.predict([known], TARGET, 2)
    assert (two.source, two.reason) == ("rule", "nothing was measured on 2 threads")


def test_measurements_of_older_kernels_do_not_count(predictor: Predictor) -> None:
    older = replace(predictor, kinds={kind: "x86.-1" for kind in predictor.kinds})
    (found,) = older.predict([kernel(convolution(40, 12))], TARGET)
    assert found.source == "rule" and "have changed since they were measured" in found.reason


def test_a_sum_drops_nothing() -> None:
    parts = [Prediction(1.0, 0.9, 1.1), Prediction(2.0, 1.0, 4.0, "rule", "why")]
    whole = total(parts)
    assert whole.value == 3.0 and whole.source == "predictor"
    assert 0.9 + 0.9 < whole.low < 3.0 < whole.high < 1.1 + 4.0


def test_saved_and_read(predictor: Predictor, examples: Examples, tmp_path: Path) -> None:
    path = tmp_path / "predictor.json"
    predictor.save(path)
    again = load_predictor(path, "cascadelake")
    for before, after in zip(
        predictor.logarithms(examples.rows, examples.kinds),
        again.logarithms(examples.rows, examples.kinds),
        strict=True,
    ):
        assert np.array_equal(before, after)
    fields = json.loads(path.read_text())
    assert fields["target"] == "cascadelake" and fields["metric"] == "time" and fields["versions"]["xgboost"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("content", "a cake", "it is not a latency predictor"),
        ("format", 99, "it is in another format (expected 4, got 99)"),
        ("feature_names", ["macs"], "trained on other features"),
        ("target", "znver4", "for another target (expected cascadelake, got znver4)"),
        ("metric", "instructions", "for another metric (expected time, got instructions)"),
        ("boosters", [], "a part of it is missing or altered"),
        ("boosters", [{"learner": 1}], "a part of it is missing or altered"),
        ("boosters", ["not base64"], "a part of it is missing or altered"),
        ("boosters", [base64.b64encode(b"not compressed").decode()], "a part of it is missing or altered"),
        ("boosters", [base64.b64encode(zlib.compress(b"no model")).decode()], "a part of it is missing or altered"),
        ("networks", [], "a part of it is missing or altered"),
        ("networks", ["not base64"], "a part of it is missing or altered"),
        ("floor", "wide", "a part of it is missing or altered"),
        ("source", 5, "a part of it is missing or altered"),
    ],
)
def test_an_altered_file_is_refused(
    predictor: Predictor, tmp_path: Path, name: str, value: object, message: str
) -> None:
    path = tmp_path / "predictor.json"
    predictor.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UsageError) as error:
        load_predictor(path, "cascadelake")
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_file_cut_short_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "predictor.json"
    predictor.save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match="not JSON, or cut short"):
        load_predictor(path)
    with pytest.raises(UsageError, match="cannot read this predictor"):
        load_predictor(tmp_path / "none.json")


def test_slow_moments_and_failures_teach_nothing() -> None:
    workload = convolution(64, 14)
    config = ALGORITHMS["conv2d"][ALGORITHM].default(workload, TARGET, 1)
    good = record(workload, config, 1.0)
    slow, failed = replace(good, provenance={"slowness": 1.8}), replace(good, samples_ms=(), error="it crashed")
    counted, stale = replace(good, measured="instructions"), replace(good, revision="x86.-1")
    assert len(examples_of([good, slow, failed, counted, stale], TARGET)) == 1
    assert len(examples_of([good, counted], TARGET, "instructions")) == 1
    with pytest.raises(UsageError, match="nothing to learn from"):
        examples_of([slow, failed, stale], TARGET)


def test_times_without_a_steady_clock_are_told_apart() -> None:
    workload = convolution(64, 14)
    config = ALGORITHMS["conv2d"][ALGORITHM].default(workload, TARGET, 1)
    old = replace(record(workload, config, 1.0), provenance={})
    steady, counted = replace(old, provenance={"timer": 2}), replace(old, measured="instructions")
    assert (old.steady, steady.steady, counted.steady) == (False, True, True)
    assert examples_of([steady, old], TARGET).steady.tolist() == [False, True]


def test_what_was_measured_several_times_counts_once() -> None:
    workload = convolution(64, 14)
    config = ALGORITHMS["conv2d"][ALGORITHM].default(workload, TARGET, 1)
    slower, faster = record(workload, config, 1.2), record(workload, config, 1.0)
    found = examples_of([slower, faster, slower, replace(slower, threads=2)], TARGET)
    assert found.values.tolist() == [1.0, 1.2]
    fused = replace(slower, workload=replace(workload, epilogue=("add", "silu")))
    assert len(examples_of([faster, fused], TARGET)) == 2


def test_the_centre_is_where_relative_errors_are_least() -> None:
    rng = np.random.default_rng(0)
    errors = rng.normal(0.03, 0.1, 2000)
    centre = centre_of(errors)
    assert 0.0 < centre < 0.05  # a bias of 0.03, and above it: too much counts more than too little
    assert np.abs(np.expm1(errors - centre)).mean() < np.abs(np.expm1(errors)).mean()
    assert centre_of(np.array([0.05, 0.05, 0.05])) == pytest.approx(0.05)
    values = rng.uniform(1, 100, 2000)
    predicted = values * np.exp(errors)
    assert (predicted * np.exp(-centre_of_sums(errors, values))).sum() == pytest.approx(values.sum())
