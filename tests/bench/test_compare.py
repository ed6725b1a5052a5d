"""The same input goes to every runtime, and a wrong answer is seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.bench import peers, provenance
from evo_tvm.bench.compare import compare, difference, worst_difference
from evo_tvm.bench.inputs import random_inputs
from evo_tvm.bench.peers import PEERS, Session, find_peers
from evo_tvm.errors import CompileError, ModelError, UsageError
from evo_tvm.spec import TensorSpec

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1e-9], [0.0, 0.0], INF),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([1.0, 2.0], [NAN, 2.0], INF),
        ([INF, 2.0], [INF, 1.0], 1.0),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([], [], 0.0),
    ],
)
def test_difference(ours: list[float], theirs: list[float], expected: float) -> None:
    assert difference(np.array(ours), np.array(theirs)) == expected


def test_the_worst_output_counts() -> None:
    ours = {"a": np.array([1.0]), "b": np.array([3, 4])}
    assert worst_difference(ours, {"a": np.array([1.0]), "b": np.array([3, 8])}) == 0.5


def test_other_outputs_or_shapes_are_refused() -> None:
    with pytest.raises(CompileError, match="names differ"):
        worst_difference({"a": np.zeros(1)}, {"b": np.zeros(1)})
    with pytest.raises(CompileError, match="shapes differ"):
        worst_difference({"a": np.zeros(1)}, {"a": np.zeros((1, 1))})


def test_random_inputs_are_repeatable_and_of_the_declared_type() -> None:
    specs = [TensorSpec("x", (2, 3), "float32"), TensorSpec("i", (4,), "int64"), TensorSpec("b", (), "bool")]
    first, again, other = random_inputs(specs, 1), random_inputs(specs, 1), random_inputs(specs, 2)
    assert {name: (value.shape, str(value.dtype)) for name, value in first.items()} == {
        spec.name: (spec.shape, spec.dtype) for spec in specs
    }
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["x"], other["x"])


def test_an_unknown_peer_is_refused_with_a_close_match() -> None:
    with pytest.raises(UsageError, match=r"unknown peer 'otr'(.|\n)*Did you mean ort\?"):
        find_peers(["otr"])
    with pytest.raises(UsageError, match="no peer"):
        find_peers([])


def test_a_peer_that_does_not_load_the_model_says_so(tmp_path: Path) -> None:
    model = tmp_path / "bad.onnx"
    model.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="ONNX Runtime does not load the model"):
        PEERS["ort"].open(model, 1, tmp_path)


def test_provenance_warns_of_a_busy_machine_and_of_too_many_threads() -> None:
    taken = provenance.here(threads=10_000, distributions=["no-such-distribution"])
    assert taken.cpu and taken.versions["numpy"] == np.__version__
    assert any("--threads" in text for text in taken.warnings())


def test_compare_a_small_model(small_onnx: Path) -> None:
    steps: list[str] = []
    found = compare(small_onnx, rounds=2, progress=lambda text, done, total: steps.append(text))
    (peer,) = found.peers
    assert peer.peer.name == "ort" and peer.agrees()
    assert len(peer.speedup.by_round) == 2 and peer.speedup.value > 0
    assert "ort" in steps and len(steps) > 4
    assert found.as_json()["provenance"]["versions"]["onnxruntime"]  # type: ignore[index]


def test_a_peer_that_refuses_the_model_is_left_out(small_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Path, threads: int, folder: Path) -> Session:
        raise ModelError("it has a layer too many", where=model)

    refusing = dataclasses.replace(PEERS["ort"], name="picky", title="Picky", open=refuse)
    monkeypatch.setattr(peers, "PEERS", {**PEERS, "picky": refusing})
    found = compare(small_onnx, ["picky", "ort"], rounds=1)
    assert [result.peer.name for result in found.peers] == ["ort"]
    assert found.as_json()["refused"] == [{"name": "picky", "reason": "it has a layer too many"}]
    with pytest.raises(ModelError, match="a layer too many"):
        compare(small_onnx, ["picky"], rounds=1)


def test_compare_passes_on_why_a_model_does_not_compile(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        compare(tmp_path / "missing.onnx")
