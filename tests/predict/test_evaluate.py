from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.bench.families import FAMILIES, model
from evo_tvm.bench.random_networks import random_network
from evo_tvm.bench.trace_shapes import window_of, windows_of
from evo_tvm.bench.whole_models import MeasuredModel, kernels_of, merged, read, save
from evo_tvm.errors import UsageError
from evo_tvm.predict.evaluate import (
    BASELINES,
    Errors,
    beside_kernels,
    by_size,
    halves,
    linear,
    pairs,
    trees,
    unseen_workloads,
)
from evo_tvm.predict.train import Examples, examples_of
from evo_tvm.tune_model import workloads_of
from tests.predict.examples import TARGET, records


def test_errors() -> None:
    found = Errors.of(np.array([1.0, 1.2, 0.95]), np.ones(3))
    assert found.count == 3 and found.mape == pytest.approx(0.25 / 3) and found.within_10 == pytest.approx(2 / 3)
    assert np.isnan(Errors.of(np.zeros(0), np.zeros(0)).mape)
    assert Errors.of(np.zeros(0), np.zeros(0)).as_json() == {"count": 0, "mape": None, "within_10": None}


def test_noise_is_of_what_was_measured_twice() -> None:
    found = Errors.of(*pairs(["a", "b", "a", "c", "b"], [1.0, 2.0, 1.1, 5.0, 2.0]))
    assert found.count == 2 and found.mape == pytest.approx(0.05)
    assert halves([(1.0, 1.1, 2.0, 5.0), (3.0, 3.0)]).mape == pytest.approx(0.1)


def test_errors_by_size() -> None:
    predicted, measured = np.array([0.0011, 0.02, 0.03]), np.array([0.001, 0.02, 0.02])
    rows = by_size(predicted, measured, (np.array([0.021]), np.array([0.02])))
    counts = [(row["predictor"]["count"], row["noise"]["count"]) for row in rows]
    assert counts == [(1, 0), (2, 1), (0, 0), (0, 0), (0, 0)]
    assert rows[0]["predictor"]["mape"] == pytest.approx(0.1) and rows[1]["predictor"]["within_10"] == 0.5
    assert rows[1]["noise"]["mape"] == pytest.approx(0.05) and rows[0]["noise"]["mape"] is None


def test_trees_beat_lines_on_unseen_workloads() -> None:
    examples = examples_of(records(each=5), TARGET)
    learners = {"trees": trees(150, 1), **{name: linear(features) for name, features in BASELINES.items()}}
    found = unseen_workloads(examples, learners, 3, np.full(len(examples), True))
    errors = {name: Errors.of(values, examples.values) for name, values in found.items()}
    assert errors["trees"].mape < errors["flops_bytes"].mape <= errors["flops"].mape * 1.01


def test_the_rest_of_a_run() -> None:
    counts, sums = np.array([10, 20, 30]), np.array([1.0, 2.0, 3.0])
    call, step = beside_kernels(sums + 0.05 + 0.002 * counts, sums, counts)
    assert call == pytest.approx(0.05) and step == pytest.approx(0.002)


@pytest.mark.parametrize("family", ["resnet", "mobilenetv2", "densenet"])
def test_all_windows_of_a_family_are_known(family: str) -> None:
    windows = windows_of(family)
    workloads = [w for w in workloads_of(model(family, 0.5, 0.5, 96), TARGET) if window_of(w) is not None]
    assert workloads and all(window_of(w) in windows for w in workloads if w.operator != "depthwise_pointwise")


def test_what_shall_not_teach_is_predicted_all_the_same() -> None:
    examples = examples_of(records(each=2), TARGET)
    taught: list[int] = []

    def learn(known: Examples) -> Callable[[Examples], np.ndarray]:
        taught.append(len(known))
        return lambda others: np.full(len(others), 7.0)

    half = np.arange(len(examples)) % 2 == 0
    found = unseen_workloads(examples, {"any": learn}, 3, half)
    assert sum(taught) == 2 * half.sum() and np.all(found["any"] == 7.0)


def test_random_networks_are_random_and_the_same_for_the_same_arguments() -> None:
    models = [random_network(width, 1.0, 136) for width in (0.8, 0.9, 1.0, 1.1)]
    assert models[0] == random_network(0.8, 1.0, 136)
    assert len({len(m.graph.node) for m in models}) > 2
    known = set().union(*(windows_of(family) for family in FAMILIES))
    found = [window_of(w) for m in models for w in workloads_of(m, TARGET)]
    assert sum(w is not None and w not in known for w in found) > 20


def test_families_are_many() -> None:
    assert len(FAMILIES) >= 8


def test_measured_models_are_kept_and_merged(tmp_path: Path) -> None:
    first = MeasuredModel("vgg", 0.25, 0.5, 64, (2.0, 1.9), (0.5, 0.7))
    second = MeasuredModel("vgg", 0.25, 0.5, 64, (1.8,), (0.6, 0.5))
    path = tmp_path / "models.json"
    save(merged([first], [second]), path, {"cpu": "any"})
    (found,) = read(path)
    assert found.runs_ms == (2.0, 1.9, 1.8) and found.kernels_ms == (0.6, 0.5) and found.latency_ms == 1.8
    path.write_text("{}")
    with pytest.raises(UsageError, match="these are no measured models"):
        read(path)
    with pytest.raises(UsageError, match="other kernels than were measured"):
        kernels_of(found, TARGET)
