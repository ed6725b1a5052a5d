"""Batches through gates: each sample decides as it would alone, and stands where it stood."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.compile_gated import compile_gated
from evo_tvm.errors import UsageError
from evo_tvm.runtime import Module
from tests.gates.networks import CLASSES, hook, residual_network, sites, skip_hooks

BATCH = 13


@pytest.fixture(scope="module")
def modules() -> tuple[Module, Module]:
    """The same gated model for one sample, and for a batch."""
    model, _ = residual_network()
    features = [site for site, _ in sites(model)]
    exits = [hook(model, f"exit{i}", "exit", features[i], CLASSES, 0.5) for i in (0, 2)]
    hooks = [*skip_hooks(model), *exits]
    return compile_gated(model, hooks).module(), compile_gated(model, hooks, num_threads=2, batch=BATCH).module()


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    _, x = residual_network()
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((BATCH, *x.shape[1:])) * rng.uniform(0.1, 3, (BATCH, 1, 1, 1))
    return drawn.astype(np.float32)


def settle(modules: tuple[Module, Module], samples: np.ndarray) -> None:
    """Thresholds with which samples go different ways."""
    alone, _ = modules
    alone.force("full")
    scores = [[record.scores[0] for record in (alone(x[None]), alone.gate_log())[1]] for x in samples]
    for module in modules:
        module.force(None)
        module.set_thresholds(np.median(scores, axis=0).tolist())


def test_each_sample_goes_its_own_way(modules: tuple[Module, Module], samples: np.ndarray) -> None:
    settle(modules, samples)
    alone, together = modules
    got = together(samples)
    logs = together.gate_log()
    ways = set()
    for i, x in enumerate(samples):
        assert np.array_equal(got[i], alone(x[None])[0]), f"sample {i}"
        for one, all_ in zip(alone.gate_log(), logs, strict=True):
            assert one.name == all_.name and one.on[0] == all_.on[i, 0]
            assert np.array_equal(one.scores, all_.scores[i], equal_nan=True)
        ways.add(tuple(bool(record.on[i, 0]) for record in logs))
    assert len(ways) > 2


def test_order_is_that_of_the_input(modules: tuple[Module, Module], samples: np.ndarray) -> None:
    settle(modules, samples)
    order = np.random.default_rng(1).permutation(BATCH)
    assert np.array_equal(modules[1](samples[order]), modules[1](samples)[order])


@pytest.mark.parametrize("leaves", [True, False])
def test_all_leave_at_the_first_exit_or_none_at_all(
    modules: tuple[Module, Module], samples: np.ndarray, leaves: bool
) -> None:
    for module in modules:
        module.force("full")
        module.force({"exit0": leaves})
    alone, together = modules
    together.gate_rates(reset=True)
    got = together(samples)
    assert np.array_equal(got, np.concatenate([alone(x[None]) for x in samples]))
    asked = {rate.name: rate.asked for rate in together.gate_rates()}
    assert asked["exit0"] == BATCH and asked["exit2"] == (0 if leaves else BATCH)


def test_profiles_add_up_over_samples(modules: tuple[Module, Module], samples: np.ndarray) -> None:
    modules[1].force("full")
    whole = modules[1].profile(repeat=3, warmup=1, inputs={modules[1].inputs[0].name: samples})
    modules[1].force({"exit0": True})
    left = modules[1].profile(repeat=3, warmup=1, inputs={modules[1].inputs[0].name: samples})
    behind = [i for i, kernel in enumerate(modules[1].manifest.kernels) if "-exit0" in kernel.guards]
    assert sum(whole.kernels[i].min_ms for i in behind) > 0
    assert all(left.kernels[i].min_ms == 0 for i in behind)


def test_a_batch_of_what_has_none_is_refused() -> None:
    model, _ = residual_network()
    with pytest.raises(UsageError, match="at least 1"):
        compile_gated(model, batch=0)
