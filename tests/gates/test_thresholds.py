"""Costs of paths, and the choice of thresholds and gates, against brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from evo_tvm.gates.costs import Costs, costs_of
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.network import start
from evo_tvm.gates.report import findings
from evo_tvm.gates.thresholds import (
    NEVER_LEAVE,
    NEVER_SKIP,
    Outcomes,
    exit_thresholds,
    judge,
    pareto,
    prune,
    search,
)

ALL = np.ones(3, bool)


def costs(exits: int = 3, hook: float = 0.001) -> Costs:
    """Equal layers between exits, no gates that skip."""
    whole = np.arange(1, exits + 2) / (exits + 1)
    nothing = np.zeros((exits + 1, 0))
    return Costs(whole, nothing, np.zeros(0), np.full(exits, hook), nothing.astype(bool), np.zeros(0), 1.0)


def outcomes(samples: int = 400, seed: int = 0) -> Outcomes:
    """Later exits are right more often, and scores tell how probably one is."""
    rng = np.random.default_rng(seed)
    ease = rng.random(samples)
    scores = np.clip(ease[:, None] * 0.6 + 0.4 * rng.random((samples, 3)) + np.array([0, 0.05, 0.1]), 0, 0.999)
    exit_right = rng.random((samples, 3)) < scores**0.5
    right = rng.random(samples) < 0.95
    return Outcomes((), np.ones((samples, 0), bool), right, scores, exit_right, right)


def test_thresholds_are_as_good_as_brute_force() -> None:
    some, price = outcomes(60), 0.3
    own = costs()
    levels = [[*np.quantile(some.scores[:, e], np.linspace(0, 1, 13)).tolist(), NEVER_LEAVE] for e in range(3)]

    def value(thresholds: np.ndarray) -> float:
        choice = judge(some, own, thresholds, ALL)
        return 1 - choice.accuracy + price * choice.latency

    best = min(value(np.array(t)) for t in itertools.product(*levels))
    assert value(exit_thresholds(some, own, price, ALL)) <= best + 0.02


def test_judge_counts_each_sample_where_it_leaves() -> None:
    some = Outcomes(
        (),
        np.ones((4, 0), bool),
        np.array([True, True, True, False]),
        np.array([[0.9, 0.9], [0.5, 0.8], [0.1, 0.1], [0.2, 0.3]]),
        np.array([[True, False], [False, True], [False, False], [True, True]]),
        np.array([True, True, True, False]),
    )
    choice = judge(some, costs(2, hook=0.01), np.array([0.6, 0.7]), np.ones(2, bool))
    assert choice.taken == (0.25, 0.25)
    assert choice.accuracy == 0.75 and choice.error == 0
    assert choice.latency == pytest.approx((1 / 3 + 0.01 + 2 / 3 + 0.02 + 2 * 1.02) / 4)
    alone = judge(some, costs(2, hook=0.01), np.array([0.6, 0.7]), np.array([False, True]))
    assert alone.taken == (0.0, 0.5) and alone.exit_thresholds == (NEVER_LEAVE, 0.7)
    assert alone.latency == pytest.approx((2 * (2 / 3 + 0.01) + 2 * 1.01) / 4)


def test_search_keeps_to_the_accuracy_and_gives_a_curve() -> None:
    some = outcomes(3000)
    floor = float(some.right.mean()) - 0.02
    chosen, curve = search([some], costs(), floor)
    assert chosen.accuracy - chosen.error >= floor and 0 < chosen.error < 0.01 and chosen.latency < 0.95
    assert chosen in curve
    assert [p.latency for p in curve] == sorted((p.latency for p in curve), reverse=True)
    assert [p.accuracy for p in curve] == sorted((p.accuracy for p in curve), reverse=True)
    assert search([some], costs(), floor - 0.05)[0].latency < chosen.latency
    assert sum(t < NEVER_LEAVE for t in search([some], costs(), floor, most_exits=1)[0].exit_thresholds) <= 1


def test_search_does_without_exits() -> None:
    found, _, _ = gated_costs()
    alone = replace(found, whole=found.whole[1:], blocks=found.blocks[1:], exit_hooks=np.zeros(0))
    alone = replace(alone, skips_before=found.skips_before[1:])
    right, nothing = np.ones(50, bool), np.zeros((50, 0))
    every = [
        Outcomes((t,), np.full((50, 1), t == NEVER_SKIP), right, nothing, nothing.astype(bool), right)
        for t in (NEVER_SKIP, 0.5)
    ]
    chosen, curve = search(every, alone, 1.0)
    assert chosen.skip_thresholds == (0.5,) and chosen.latency == pytest.approx(0.705) and curve == (chosen,)


def test_exits_that_do_not_pay_are_left_out() -> None:
    some = outcomes(2000)
    assert prune(some, costs(hook=0.001), 0.3, ALL).any()
    assert not prune(some, costs(hook=0.9), 0.3, ALL).any()
    chosen, curve = search([some], costs(hook=0.9), 0.0)
    assert chosen.latency == 1.0 and chosen.exit_thresholds == (NEVER_LEAVE,) * 3 and curve == (chosen,)


def test_pareto_drops_what_another_beats() -> None:
    base = judge(outcomes(), costs(), np.full(3, NEVER_LEAVE), ALL)
    points = [
        replace(base, latency=t, accuracy=a) for t, a in ((1, 0.9), (0.5, 0.8), (0.6, 0.7), (0.5, 0.6), (0.9, 0.9))
    ]
    assert [(p.latency, p.accuracy) for p in pareto(points)] == [(0.9, 0.9), (0.5, 0.8)]


def kernel(guards: tuple[str, ...], *layers: str) -> SimpleNamespace:
    return SimpleNamespace(guards=guards, layers=layers)


def gated_costs() -> tuple[Costs, list[Hook], list[str]]:
    """stem 10, hook s, [block 30], exit e, rest 60: ms."""
    hooks = [Hook("b", "skip", "a", start(4, 0, 1), 0.0), Hook("b", "exit", "b", start(4, 0, 3), 0.5)]
    names = ["b:skip", "b:exit"]
    kernels = [
        (kernel((), "stem"), 10.0),
        (kernel((), "a_mean"), 0.4),
        (kernel((), "b:skip_hook"), 0.1),
        (kernel(("+b:skip",), "body"), 30.0),
        (kernel((), "b_mean"), 0.5),
        (kernel((), "b:exit_hook.3"), 0.5),
        (kernel(("-b:exit",), "rest"), 60.0),
    ]
    return costs_of([k for k, _ in kernels], [t for _, t in kernels], hooks, names), hooks, names


def test_costs_follow_from_the_kernels_and_their_guards() -> None:
    found, _, _ = gated_costs()
    assert found.full_ms == 100
    np.testing.assert_allclose(found.whole, [0.4, 1.0])
    np.testing.assert_allclose(found.blocks, [[0.3], [0.3]])
    np.testing.assert_allclose(found.skip_hooks, [0.005])
    np.testing.assert_allclose(found.exit_hooks, [0.01])
    assert found.skips_before.all()
    np.testing.assert_allclose(found.path(np.array([[True], [False]])), [[0.4, 1.0], [0.1, 0.7]])


def test_layers_between_exits_run_before_the_later_one() -> None:
    hooks = [Hook(name, "exit", name, start(4, 0, 3), 0.5) for name in ("a", "b")]
    kernels = [kernel((), "one"), kernel(("-a",), "two"), kernel(("-a", "-b"), "three"), kernel(("-a",), "b_hook")]
    found = costs_of(kernels, [50.0, 30.0, 20.0, 1.0], hooks, ["a", "b"])
    np.testing.assert_allclose(found.whole, [0.5, 0.8, 1.0])
    np.testing.assert_allclose(found.exit_hooks, [0.0, 0.01])


def test_findings_say_why_a_gate_is_not_attached() -> None:
    found, hooks, names = gated_costs()
    mask = np.ones((100, 1), bool)
    mask[:1] = False  # one sample in a hundred skips: 0.3 % is less than the hook's 0.5 %
    right = np.ones(100, bool)
    some = Outcomes((0.3,), mask, right, np.full((100, 1), 0.9), np.ones((100, 1), bool), right)
    skip, leave = findings(hooks, names, found, judge(some, found, np.array([0.5]), np.ones(1, bool)))
    assert skip.reason == "saves 0.30% of the time, and its hook takes 0.50%" and not skip.attached
    assert leave.attached and leave.rate == 1.0 and leave.saved == pytest.approx(0.6) and leave.parameters == 15
    never = judge(replace(some, skip_thresholds=(NEVER_SKIP,)), found, np.array([1.0]), np.zeros(1, bool))
    reasons = [one.reason for one in findings(hooks, names, found, never)]
    assert reasons == [
        "costs more accuracy for the time that it saves than the others do",
        "the other exits do better without it",
    ]


def test_gates_of_other_kinds_save_what_kernels_take_less_with_them_off() -> None:
    hooks = [Hook("b", "channel", "a", start(4, 0, 4), 0.0), Hook("c", "exit", "c", start(4, 0, 3), 0.5)]
    kernels = [kernel((), "stem"), kernel((), "b_hook"), kernel((), "b"), kernel((), "c_hook"), kernel(("-c",), "rest")]
    full, off = [20.0, 1.0, 30.0, 0.0, 50.0], [21.0, 1.0, 12.0, 0.0, 51.0]  # others than b vary by chance
    found = costs_of(kernels, full, hooks, ["b", "c"], {"b": off}, {"b": 4})
    assert found.full_ms == 100 and found.decisions.tolist() == [4]
    np.testing.assert_allclose(found.blocks, [[0.18], [0.18]])
    np.testing.assert_allclose(found.path(np.array([[0.5]])), [[0.5 - 0.09, 1 - 0.09]])
