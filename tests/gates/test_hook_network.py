"""Hooks from build to release, beside a model that is in use."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import evo_tvm
from evo_tvm.errors import InputError, UsageError
from evo_tvm.gates.hooks_file import load_hooks
from tests.gates.networks import residual_network

DATA = Path(__file__).parents[1] / "data"
SMALL = DATA / "models" / "fashion_small.onnx"
SHAPES = {"input": (1, 1, 28, 28)}
PATIENCE_S = 120


def images(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.load(DATA / f"fashion_{part}.npz")
    return found["images"][:count, None].astype(np.float32) / 255, found["labels"][:count]


def test_a_life(tmp_path: Path) -> None:
    path = tmp_path / "m.hooks"
    x, _ = images("calib", 300)
    network = evo_tvm.HookNetwork(SMALL, SHAPES, kinds=("exit",))
    sampler = network.sampler(memory_mb=8, every=1)
    with network.train(path=path) as training:
        end = time.monotonic() + PATIENCE_S
        while training.rounds < 3 and time.monotonic() < end:
            for image in x:
                sampler.offer({"input": image[None]})
                sampler.look()
            time.sleep(0.2)  # one core is enough for both
    assert training.rounds >= 3 and load_hooks(path).report["round"] == training.rounds
    held, labels = images("holdout", 800)
    found = network.infer(list(held), labels, max_drop=0.05)
    assert found.report.samples == 800 and found.report.learnt_from > 0
    assert found.report.predicted[0] >= found.report.ungated - 0.05
    network.release(tmp_path / "end.hooks")
    network.release()
    with pytest.raises(UsageError, match="these hooks have been released"):
        network.sampler()
    later = evo_tvm.HookNetwork(SMALL, SHAPES, kinds=("exit",), hooks=tmp_path / "end.hooks")
    for ours, saved in zip(later.hooks, load_hooks(path).hooks, strict=True):
        np.testing.assert_array_equal(ours.weights[0], saved.weights[0])
    again = later.infer(list(held), labels, max_drop=0.05)
    assert again.report.learnt_from == 0 and again.report.predicted[0] >= again.report.ungated - 0.05


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    network = evo_tvm.HookNetwork(SMALL, SHAPES)
    with pytest.raises(UsageError, match="there is nothing to learn from yet"):
        network.train()
    with pytest.raises(UsageError, match="trainer: unknown trainer"):
        network.train("luck")
    network.release(tmp_path / "idle.hooks")
    model, _ = residual_network()
    with pytest.raises(InputError, match="these hooks belong to another model"):
        evo_tvm.HookNetwork(model, hooks=tmp_path / "idle.hooks")
