"""`bench --data`, `profile` and `inspect` of a model with gates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.compile_gated import compile_gated
from tests.command_line import evo
from tests.gates.networks import CLASSES, hook, residual_network, sites, skip_hooks


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, _ = residual_network()
    path = tmp_path_factory.mktemp("gated") / "gated.evo"
    exits = [hook(model, "early", "exit", sites(model)[1][0], CLASSES, 0.5)]
    compile_gated(model, [*skip_hooks(model), *exits]).save(path)
    return path


def test_latencies_paths_and_accuracy_over_real_inputs(gated: Path, tmp_path: Path) -> None:
    _, x = residual_network()
    rng = np.random.default_rng(0)
    inputs = (rng.standard_normal((20, *x.shape[1:])) * rng.uniform(0.1, 3, (20, 1, 1, 1))).astype(np.float32)
    data = tmp_path / "test.npz"
    np.savez(data, x1=inputs, labels=rng.integers(0, CLASSES, 20))
    found = json.loads(evo("bench", gated, "--data", data, "--json").out)
    assert found["inputs"] == 20 and 0 < found["median_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert sum(path["share"] for path in found["paths"]) == pytest.approx(1)
    assert found["accuracy"] in {n / 20 for n in range(21)}
    asked = {gate["name"]: gate["asked"] for gate in found["gates"]}
    assert asked["early"] == 20
    shown = evo("bench", gated, "--data", data).out
    assert "average ms" in shown and "left out" in shown


def test_rates_and_gates_are_shown(gated: Path) -> None:
    assert "gate early (exit): " in evo("profile", gated, "--repeat", "3").out
    assert "early: exit, on above 0.5" in evo("inspect", gated).out
