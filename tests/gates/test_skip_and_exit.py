"""Models with gates that skip and exit: every path, forced, against models that lack what was skipped."""

from __future__ import annotations

import itertools
import math
import resource

import numpy as np
import pytest

import evo_tvm
from evo_tvm.compile_gated import compile_gated
from evo_tvm.runtime import Module
from tests.gates.networks import CLASSES, hook, residual_network, sites, skip_hooks

RTOL = 1e-4  # of the largest logit: other layouts, other orders of sums


def close(got: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(got - wanted).max() <= RTOL * np.abs(wanted).max())


@pytest.fixture(scope="module")
def gated() -> Module:
    """All four blocks can be skipped, and there are two exits."""
    model, _ = residual_network()
    (first, stem), (second, _), (third, _), _ = sites(model)
    exits = [hook(model, name, "exit", feature, CLASSES, 0.5) for name, feature in (("early", second), ("late", third))]
    assert stem != first
    return compile_gated(model, [*skip_hooks(model), *exits]).module()


@pytest.fixture(scope="module")
def plain() -> Module:
    return evo_tvm.compile(residual_network()[0]).module()


def test_gates_on_the_full_path_change_no_bit(gated: Module, plain: Module) -> None:
    _, x = residual_network()
    gated.force("full")
    for seed in range(4):
        y = x if seed == 0 else np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32)
        assert np.array_equal(gated(y), plain(y))


def test_every_choice_of_blocks_gives_what_the_network_without_them_gives(gated: Module) -> None:
    model, x = residual_network()
    names = [site for site, _ in sites(model)]
    gated.force(None)
    for on in itertools.product((True, False), repeat=len(names)):
        gated.force({"early": False, "late": False, **dict(zip(names, on, strict=True))})
        skipped = [number for number, runs in enumerate(on) if not runs]
        wanted = evo_tvm.compile(residual_network(skipped)[0]).module()(x)
        assert close(gated(x), wanted), f"without blocks {skipped}"
        decided = {record.name: bool(record.on[0]) for record in gated.gate_log()}
        assert [decided[name] for name in names] == list(on)


def test_observed_values_are_those_of_the_way_that_was_taken() -> None:
    """A value that is an output keeps its place: no branch of a later block is computed over it."""
    model, x = residual_network()
    names = [site for site, _ in sites(model)]
    module = compile_gated(model, skip_hooks(model), observe=names).module()
    whole = compile_gated(model, observe=names).module()(x)
    module.force("full")
    assert all(np.array_equal(got, wanted) for got, wanted in zip(module(x), whole, strict=True))
    for on in itertools.product((True, False), repeat=len(names)):
        module.force(dict(zip(names, on, strict=True)))
        logits, *seen = module(x)
        skipped = [number for number, runs in enumerate(on) if not runs]
        assert close(logits, evo_tvm.compile(residual_network(skipped)[0]).module()(x)), f"without blocks {skipped}"
        for number in {1, 3} & {*skipped}:  # of which the shortcut is the block before, and its ReLU, if any, is done
            before = np.maximum(seen[number - 1], 0) if number == 3 else seen[number - 1]
            assert close(seen[number], before), f"block {number} without blocks {skipped}"
        if on[0]:
            assert np.array_equal(seen[0], whole[1])


def test_an_exit_gives_its_own_logits_and_asks_no_later_gate(gated: Module) -> None:
    _, x = residual_network()
    model, _ = residual_network()
    feature = sites(model)[1][0]
    head = hook(model, "early", "exit", feature, CLASSES)
    seen = compile_gated(model, observe=[feature]).module()(x)[1]
    logits = seen.mean(axis=(2, 3)) @ head.weights[0] + head.weights[1]
    gated.force(None)
    gated.force({"early": True})
    gated.force({gate.name: True for gate in gated.gates if gate.kind == "skip"})
    assert close(gated(x), logits)
    log = {record.name: record for record in gated.gate_log()}
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert log["early"].scores[0] == pytest.approx(probabilities.max(), rel=1e-3) and log["early"].on[0]
    assert math.isnan(log["late"].scores[0]) and not log["late"].on[0]


def test_thresholds_change_without_compiling(gated: Module) -> None:
    _, x = residual_network()
    gated.force(None)
    gated.force({"early": False, "late": False})
    gated(x)
    record = gated.gate_log()[0]
    gated.set_thresholds({record.name: float(record.scores[0]) - 1e-3})
    gated(x)
    assert gated.gate_log()[0].on[0]
    gated.set_thresholds({record.name: float(record.scores[0]) + 1e-3})
    gated(x)
    assert not gated.gate_log()[0].on[0]
    gated.set_thresholds({record.name: 0.0})


def test_thousands_of_alternating_inputs_give_right_results_and_memory_does_not_grow(gated: Module) -> None:
    _, x = residual_network()
    rng = np.random.default_rng(11)
    inputs = (rng.standard_normal((16, *x.shape)) * rng.uniform(0.1, 3, (16, 1, 1, 1, 1))).astype(np.float32)
    gated.force("full")
    scores = [[record.scores[0] for record in (gated(y), gated.gate_log())[1]] for y in inputs]
    gated.force(None)
    gated.set_thresholds([*np.median(scores, axis=0).tolist()])
    first = [gated(y) for y in inputs]
    paths = {tuple(bool(r.on[0]) for r in (gated(y), gated.gate_log())[1]) for y in inputs}
    assert len(paths) > 2, "the inputs take too few paths for this test to tell anything"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in rng.integers(0, len(inputs), 5000):
        assert np.array_equal(gated(inputs[i]), first[i])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB


def test_rates_count_what_was_asked_and_what_was_on(gated: Module) -> None:
    _, x = residual_network()
    gated.force(None)
    gated.force({"early": True})
    gated.gate_rates(reset=True)
    for _ in range(5):
        gated(x)
    rates = {rate.name: rate for rate in gated.gate_rates()}
    assert (rates["early"].asked, rates["early"].rate) == (5, 1.0)
    assert (rates["late"].asked, rates["late"].rate) == (0, None)


def test_a_model_that_ends_in_softmax_has_heads_that_do() -> None:
    model, x = residual_network(softmax=True)
    feature = sites(model)[1][0]
    module = compile_gated(model, [hook(model, "early", "exit", feature, CLASSES)]).module()
    module.force({"early": True})
    assert module(x).sum() == pytest.approx(1.0, abs=1e-5)
    module.force("full")
    assert np.array_equal(module(x), evo_tvm.compile(model).module()(x))


def test_a_shortcut_that_is_read_later_is_copied_not_written_over() -> None:
    model, x = residual_network()
    site, shortcut = sites(model)[3]
    hooks = [hook(model, site, "skip", shortcut, 1)]
    watched = compile_gated(model, hooks, observe=[shortcut]).module()
    for on in (True, False):
        watched.force({site: on})
        y, seen = watched(x)
        skipped = [] if on else [3]
        assert close(y, evo_tvm.compile(residual_network(skipped)[0]).module()(x))
        assert close(seen, compile_gated(model, observe=[shortcut]).module()(x)[1])


def test_two_threads_agree_with_one() -> None:
    model, x = residual_network(channels=64, size=28)
    artifact = compile_gated(model, skip_hooks(model), num_threads=2)
    one, two = artifact.module(1), artifact.module(2)
    for on in (True, False):
        for module in (one, two):
            module.force({gate.name: on for gate in module.gates})
        assert close(two(x), one(x))
