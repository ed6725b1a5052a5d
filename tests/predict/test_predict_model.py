from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.bench.families import model
from evo_tvm.errors import UsageError
from evo_tvm.predict.model import Predictor
from evo_tvm.predict.predict_groups import NO_PREDICTOR
from evo_tvm.predict.train import examples_of, train
from evo_tvm.predict_model import predict
from tests.command_line import evo
from tests.emulated.boards import A76
from tests.predict.examples import TARGET, records


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(model("squeezenet", 0.25, 1.0, 64), found)
    return found


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = train(examples_of(records(each=3), TARGET), "cascadelake", 40, 2)
    found = tmp_path_factory.mktemp("predictors") / "predictor.json"
    replace(made, call_ms=0.5, step_ms=0.01).save(found)
    return found


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", "off")
    monkeypatch.setattr("evo_tvm.decide.predictor_of", lambda target: None)


def test_without_data_the_rule_is_taken_and_named(path: Path) -> None:
    found = predict(path, "cascadelake")
    assert found.unknown == {NO_PREDICTOR: len(found.layers)}
    assert {layer.source for layer in found.layers} == {"rule"}
    assert found.latency_ms == pytest.approx(sum(layer.latency_ms for layer in found.layers))
    assert found.low_ms < found.latency_ms < found.high_ms


def test_all_kernels_are_in_the_sum(path: Path, predictor: Path) -> None:
    found = predict(path, "cascadelake", predictor=predictor)
    sources = [layer.source for layer in found.layers]
    assert "predictor" in sources and "rule" in sources
    assert sum(found.unknown.values()) == sources.count("rule")
    assert any("max_pool2d" in reason for reason in found.unknown)
    assert found.call_ms == pytest.approx(0.5 + 0.01 * len(sources))
    assert found.latency_ms == pytest.approx(sum(layer.latency_ms for layer in found.layers) + found.call_ms)


def test_memory_is_that_of_the_compiled_model(path: Path) -> None:
    found = evo_tvm.predict(path, "cascadelake")
    manifest = evo_tvm.compile(path, "cascadelake").manifest
    assert found.arena_bytes == manifest.arena_bytes and found.prepared_bytes == manifest.prepared_bytes
    assert len(found.layers) == len(manifest.kernels)
    assert [layer.latency_ms for layer in found.layers] == [kernel.predicted_ms for kernel in manifest.kernels]
    assert {kernel.predicted_by for kernel in manifest.kernels} == {"rule"}


def test_memory_of_an_int8_model_for_another_cpu(path: Path) -> None:
    A76.require()
    model = onnx.load(path)
    image = np.random.default_rng(0).standard_normal([1, 3, 64, 64]).astype(np.float32)
    integers = evo_tvm.quantize(model, [{model.graph.input[0].name: image}])
    found = evo_tvm.predict(integers, "cortex-a76")
    artifact = evo_tvm.compile(integers, "cortex-a76")
    assert found.arena_bytes == artifact.manifest.arena_bytes
    assert found.prepared_bytes == artifact.manifest.prepared_bytes
    assert found.weights_bytes == len(artifact.weights)


@pytest.mark.parametrize(("budget", "verdict"), [(1e-9, "no"), (1e9, "yes")])
def test_budgets(path: Path, budget: float, verdict: str) -> None:
    found = predict(path, "cascadelake")
    assert found.meets(budget) == verdict
    assert found.meets(found.latency_ms) == "probably" and found.meets(found.latency_ms * 0.99) == "hardly"


def test_a_predictor_for_something_else_is_refused(path: Path, predictor: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"for another target \(expected x86-64-v4, got cascadelake\)"):
        predict(path, "x86-64-v4", predictor=predictor)
    with pytest.raises(UsageError, match="cannot read this predictor"):
        predict(path, predictor=tmp_path / "none.json")


def test_the_command(path: Path, predictor: Path) -> None:
    options = ("--target", "cascadelake", "--predictor", str(predictor))
    done = evo("predict", str(path), *options, "--latency-budget", "1000")
    assert done.status == 0, done.err
    assert "the budget of 1000 ms is met" in done.out and "memory:" in done.out
    assert "kernels are estimated: nothing was measured of max_pool2d/pool/float32" in done.err
    found = json.loads(evo("predict", str(path), *options, "--latency-budget", "1e-6", "--json").out)
    assert found["meets_budget"] == "no" and len(found["layers"]) > 20


def test_the_artifact_says_what_was_predicted(path: Path, predictor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evo_tvm.predict.model import load_predictor

    known: Predictor = load_predictor(predictor)
    monkeypatch.setattr("evo_tvm.decide.predictor_of", lambda target: known)
    monkeypatch.setenv("EVO_TVM_CACHE", "off")
    manifest = evo_tvm.compile(path, "cascadelake").manifest
    assert {kernel.predicted_by for kernel in manifest.kernels} == {"predictor", "rule"}
    entry = next(e for e in manifest.plan if e["algorithm"] == "spatial_pack" and "predicted_ms" in e)
    assert entry["predicted_between_ms"][0] < entry["predicted_ms"] < entry["predicted_between_ms"][1]
