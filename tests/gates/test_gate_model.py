"""`evo_tvm.gate` and `evo-tvm gate`, whole, on the small reference model; and what is said of data that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evo_tvm
from evo_tvm.errors import InputError, ModelError, UsageError
from evo_tvm.gates.hook import Kind
from evo_tvm.gates.hooks_file import load_hooks
from evo_tvm.gates.workbench import Workbench
from tests.command_line import evo
from tests.gates.networks import residual_network
from tests.gates.test_sites import plain_network

DATA = Path(__file__).parents[1] / "data"
SMALL = DATA / "models" / "fashion_small.onnx"


def save(folder: Path, part: str, first: int, count: int, **changed: np.ndarray) -> Path:
    """Some of the images as an .npz of what the model takes, with their labels."""
    found = np.load(DATA / f"fashion_{part}.npz")
    some = slice(first, first + count)
    arrays = {"input": found["images"][some, None].astype(np.float32) / 255, "labels": found["labels"][some], **changed}
    path = folder / f"{part}{first}_{len(list(folder.iterdir()))}.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gate")
    return {
        "train": save(folder, "holdout", 0, 3000),
        "holdout": save(folder, "holdout", 3000, 1000),
        "test": save(folder, "test", 0, 1000),
        "folder": folder,
    }


def test_gates_with_which_the_model_is_not_faster_are_not_attached(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, slow = Workbench.verify, [1.02]

    def verified(*arguments: Any) -> tuple[float, float]:
        accuracy, latency = verify(*arguments)
        return accuracy, slow.pop() if slow else latency

    monkeypatch.setattr(Workbench, "verify", verified)
    found = evo_tvm.gate(SMALL, files["train"], holdout=files["holdout"], max_drop=0.05, samples=500, epochs=2)
    assert not slow and found.hooks == () and found.artifact.manifest.gates == ()
    assert not any(gate.attached for gate in found.report.gates)
    assert "with the gates together the model takes 102.0% of its time" in {g.reason for g in found.report.gates}
    assert found.report.measured[0] == found.report.ungated


def test_the_command_makes_a_model_that_is_faster_and_nearly_as_accurate(files: dict[str, Path]) -> None:
    paths = {name: files["folder"] / f"m.{name}" for name in ("evo", "hooks", "svg")}
    result = evo(
        *(
            "gate",
            SMALL,
            "--data",
            files["train"],
            "--holdout",
            files["holdout"],
            "--max-drop",
            "0.02",
            "--epochs",
            "6",
        ),
        *("-o", paths["evo"], "--save", paths["hooks"], "--plot", paths["svg"], "--json"),
    )
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert found["metric"] == "accuracy" and found["samples"] == 1000
    assert found["predicted"]["latency"] < 0.95
    assert found["predicted"]["accuracy"] >= found["ungated"] - 0.02
    assert found["measured"]["accuracy"] == pytest.approx(found["predicted"]["accuracy"], abs=0.015)
    assert found["share"] <= 0.0101
    assert paths["svg"].read_text().startswith("<?xml")
    hooks = load_hooks(paths["hooks"]).hooks
    module, plain = evo_tvm.load(paths["evo"]), evo_tvm.compile(SMALL, input_shapes={"input": (1, 1, 28, 28)}).module()
    assert [gate.threshold for gate in module.gates] == [hook.threshold for hook in hooks]
    test = np.load(files["test"])
    answers = np.array([module(x[None]).argmax() for x in test["input"]])
    whole = np.array([plain(x[None]).argmax() for x in test["input"]])
    assert (answers == test["labels"]).mean() > (whole == test["labels"]).mean() - 0.03
    assert any(rate.rate for rate in module.gate_rates())
    module.force("full")
    for x in test["input"][:20]:
        np.testing.assert_array_equal(module(x[None]), plain(x[None]))
    module.force(None)
    module(test["input"][:1], budget=0.7)


def test_without_labels_it_learns_from_the_model_itself(files: dict[str, Path]) -> None:
    x = np.load(files["train"])["input"][:1500]
    found = evo_tvm.gate(SMALL, list(x), max_drop=0.03, kinds=("exit",), epochs=4)
    assert found.report.metric == "agreement" and found.report.ungated == 1.0
    assert found.report.samples == 300 and found.report.learnt_from == 1200
    assert found.report.measured[0] >= 0.95
    assert {hook.kind for hook in found.hooks} <= {"exit"}


def test_no_gate_is_attached_where_none_pays(files: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.random((1, 28, 28), np.float32) for _ in range(1500)]
    labels = np.arange(1500) % 10  # nothing can be learnt, and nothing may be lost
    found = evo_tvm.gate(SMALL, noise, labels=labels, max_drop=0.0, kinds=("skip",), epochs=1)
    for gate in found.report.gates:
        assert gate.attached or "time" in gate.reason
    assert found.report.predicted[0] >= found.report.ungated


@pytest.mark.parametrize(
    "kinds", [("channel",), ("space",), ("skip", "exit", "channel", "space", "precision")], ids="+".join
)
def test_every_kind_is_trained_judged_and_compiled(kinds: tuple[Kind, ...]) -> None:
    model, _ = residual_network(channels=64, size=12)
    rng = np.random.default_rng(0)
    samples = [(rng.uniform(0.2, 3) * rng.standard_normal((3, 12, 12))).astype(np.float32) for _ in range(500)]
    found = evo_tvm.gate(model, samples, max_drop=0.1, kinds=kinds, epochs=3)
    report = found.report
    assert {gate.kind for gate in report.gates} == {*kinds} - {"precision"}
    assert {kind.kind for kind in report.kinds} == {*kinds} - {"precision"}
    assert report.absent == (("precision",) if "precision" in kinds else ())
    assert report.learnt_from >= 400 and report.samples == 100
    assert report.predicted[0] >= 0.9 and report.measured[0] >= 0.85
    assert all(kind.latency <= 1 for kind in report.kinds)
    assert report.predicted[1] <= min(kind.latency for kind in report.kinds) + 1e-9
    module, plain = found.artifact.module(), evo_tvm.compile(model).module()
    for gate in report.gates:
        assert gate.attached or gate.reason
    if module.gates:
        module.force("full")
    for x in samples[:5]:
        np.testing.assert_array_equal(module(x[None]), plain(x[None]))


def test_feature_maps_near_zero_need_no_training() -> None:
    model, _ = residual_network(channels=64, size=12)
    samples = [x.astype(np.float32) for x in np.random.default_rng(0).standard_normal((150, 3, 12, 12))]
    found = evo_tvm.gate(model, samples, max_drop=0.2, kinds=("channel",), trainer="near-zero")
    assert found.report.learnt_from == 0 and found.report.samples == 30
    assert {gate.kind for gate in found.report.gates} == {"channel"}
    assert found.report.predicted[0] >= 0.8
    with pytest.raises(UsageError, match="feature maps near zero tell about channels alone"):
        evo_tvm.gate(model, samples, kinds=("skip",), trainer="near-zero")


def test_a_quantized_models_blocks_are_computed_in_integers_where_that_does(files: dict[str, Path]) -> None:
    train = np.load(files["train"])
    quantized = evo_tvm.quantize(SMALL, list(train["input"][:64]))
    found = evo_tvm.gate(quantized, list(train["input"][:1500]), max_drop=0.02, kinds=("precision",), epochs=3)
    report = found.report
    assert {gate.kind for gate in report.gates} == {"precision"} and report.ungated == 1.0
    assert report.predicted[0] >= 0.98 and report.measured[0] >= 0.96
    for gate in report.gates:
        assert gate.attached or gate.reason
    with pytest.raises(ModelError, match=r"in integers, of a quantized model .*precision"):
        evo_tvm.gate(SMALL, list(train["input"][:1500]), kinds=("precision",))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": np.zeros((400, 3, 28, 28), np.float32)}, r"input 'input': .*expected .*1x28x28.*got .*3x28x28"),
        ({"labels": np.zeros(17, np.int64)}, r"not one label for each sample \(expected 400, got 17\)"),
        (
            {"labels": np.full(400, 10)},
            r"labels: a label is beyond the classes of the model \(expected 0 to 9, got 10\)",
        ),
        ({"labels": np.zeros(400, np.float32)}, "labels are not integers"),
    ],
)
def test_data_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, np.ndarray], message: str) -> None:
    path = save(tmp_path, "calib", 0, 400, **changed)
    with pytest.raises(InputError, match=message):
        evo_tvm.gate(SMALL, path)


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"too few samples to train a hook \(expected at least 256, got 160\)"):
        evo_tvm.gate(SMALL, save(tmp_path, "calib", 0, 200), kinds=("exit",))


def test_options_and_models_that_cannot_be_are_refused(tmp_path: Path) -> None:
    data = save(tmp_path, "calib", 0, 300)
    with pytest.raises(UsageError, match=r"kinds: unknown kind of gate \(expected skip, exit, .*got jump\)"):
        evo_tvm.gate(SMALL, data, kinds=("jump",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_drop: not a drop that can be allowed"):
        evo_tvm.gate(SMALL, data, max_drop=-0.1)
    with pytest.raises(UsageError, match="trainer: unknown trainer"):
        evo_tvm.gate(SMALL, data, trainer="luck")
    rng = np.random.default_rng(0)
    with pytest.raises(ModelError, match="this model has no site for a gate"):
        evo_tvm.gate(plain_network(), [rng.random((3, 9, 9), np.float32) for _ in range(4)])
    result = evo("gate", SMALL, "--data", data, "--kinds", "jump", "-o", tmp_path / "m.evo")
    assert result.status == 2 and "unknown kind of gate" in result.err
