"""Training in a thread beside inference: what it learns, saves, and costs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import evo_tvm
from evo_tvm.gates.background import Background
from evo_tvm.gates.hooks_file import load_hooks
from evo_tvm.gates.network import Examples, Weights, forward
from evo_tvm.gates.sampler import Sampler
from evo_tvm.gates.sites import Site
from evo_tvm.gates.teach import Trainer
from evo_tvm.gates.train_backprop import train_backprop
from evo_tvm.gates.train_forward_forward import train_forward_forward

MODELS = Path(__file__).parents[1] / "data" / "models"
SITES = (Site("Relu_9", "skip", "Relu_2", 12, 1), Site("Relu_9", "exit", "Relu_9", 20, 10))
HIDDEN = {SITES[0]: 8, SITES[1]: 12}
#: Training comes last: where other processes want all cores, a round takes minutes.
PATIENCE_S = 300


def filled(count: int = 1500) -> Sampler:
    """A sampler that has seen features from which the class follows, and whether the block was needed."""
    rng = np.random.default_rng(0)

    def look(inputs: Mapping[str, np.ndarray], label: int) -> dict[str, np.ndarray]:
        x = rng.standard_normal(32).astype(np.float32)
        x[12 + label] += 3
        full = 5 * np.eye(10, dtype=np.float32)[label]
        found = np.roll(full, 1) if x[0] > 0 else full
        return {
            "features": x[:12],
            "whole": x[12:],
            "slot": np.int64(0),
            "full": full,
            "base": full,
            "found": found,
            "label": np.int64(label),
        }

    sampler = Sampler(look, {"x": np.zeros(1, np.float32)}, memory_mb=2, every=1)
    for number in range(count):
        sampler.offer({"x": np.zeros(1, np.float32)}, label=number % 10)
        sampler.look()
    return sampler


@pytest.mark.parametrize("trainer", [train_backprop, train_forward_forward], ids=["backprop", "forward_forward"])
def test_rounds_go_on_from_each_other_and_are_saved(tmp_path: Path, trainer: Trainer) -> None:
    sampler = filled()
    with Background(sampler, SITES, HIDDEN, trainer, tmp_path / "m.hooks") as training:
        end = time.monotonic() + PATIENCE_S
        while training.rounds < 12 and time.monotonic() < end:
            sampler.offer({"x": np.zeros(1, np.float32)}, label=3)
            sampler.look()
            time.sleep(0.01)
    assert training.rounds >= 12 and training.hooks is not None
    saved = load_hooks(tmp_path / "m.hooks")
    assert saved.report["round"] == training.rounds
    assert [(hook.site, hook.kind) for hook in saved.hooks] == [(site.site, site.kind) for site in SITES]
    assert [w.shape for w in saved.hooks[0].weights] == [(12, 8), (8,), (8, 1), (1,)]
    assert sampler.reservoir is not None
    x, whole, labels = sampler.reservoir.take(("features", "whole", "label"))
    share = (forward(saved.hooks[1].weights, whole).argmax(1) == labels).mean()
    assert share > (0.6 if trainer is train_backprop else 0.3)  # of ten classes
    needed = forward(saved.hooks[0].weights, x)[:, 0]
    assert needed[x[:, 0] > 1].mean() > needed[x[:, 0] < -1].mean()


def test_an_error_in_the_thread_is_raised_at_the_end() -> None:
    def fails(examples: Examples, *_: object) -> Weights:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError), Background(filled(), SITES, HIDDEN, fails) as training:
        end = time.monotonic() + PATIENCE_S
        while training.error is None and time.monotonic() < end:
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a spare core")
@pytest.mark.parametrize("trainer", [train_backprop, train_forward_forward], ids=["backprop", "forward_forward"])
def test_inference_is_hardly_slower_beside_it(trainer: Trainer) -> None:
    module = evo_tvm.compile(MODELS / "fashion_resnet32.onnx", input_shapes={"input": (1, 1, 28, 28)}).module(1)
    x = np.zeros((1, 1, 28, 28), np.float32)
    sampler = filled()

    def typical_ms() -> float:
        samples = []
        for _ in range(1500):
            start = time.perf_counter()
            module(x)
            samples.append(time.perf_counter() - start)
        return 1000 * float(np.median(samples))

    ratios = []
    for _ in range(5):
        alone = typical_ms()
        with Background(sampler, SITES, HIDDEN, trainer) as training:
            end = time.monotonic() + PATIENCE_S
            while training.rounds < 1 and time.monotonic() < end:  # compiled by now
                time.sleep(0.01)
            sampler.offer({"x": np.zeros(1, np.float32)}, label=3)
            sampler.look()  # something new to learn
            ratios.append(typical_ms() / alone)
    assert np.median(ratios) <= 1.1, ratios
