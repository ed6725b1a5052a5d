from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from evo_tvm.plan.link_layers import Link
from evo_tvm.precision.decide import decide_precisions

CHAIN = [Link("a", "b", 100), Link("b", "c", 100)]


def test_each_layer_as_it_is_faster_where_conversions_cost_nothing() -> None:
    assert decide_precisions({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 0.5, "c": 2}, CHAIN, 0.0) == {"a", "c"}


def test_a_gain_that_conversions_eat_up_is_left() -> None:
    chosen = decide_precisions({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 0.5, "c": 2}, CHAIN, 0.003)
    assert chosen == {"a", "b", "c"}, "two conversions of 0.3 ms around b for 0.5 ms"
    chosen = decide_precisions({"a": 1, "b": 1, "c": 1}, {"a": 0.5, "b": 1.4, "c": 0.5}, CHAIN, 0.003)
    assert chosen == set()


def test_of_two_times_as_good_as_equal_the_one_without_error() -> None:
    assert decide_precisions({"a": 1.0}, {"a": 0.99}, [], 0.0) == {"a"}
    assert decide_precisions({"a": 1.0}, {"a": 0.95}, [], 0.0) == set()


def test_a_layer_in_another_ones_kernel_is_float_with_it() -> None:
    links = [Link("depthwise", "pointwise", 100)]
    int_ms = {"depthwise": 0.6, "pointwise": 0.6}
    assert decide_precisions({"pointwise": 1.0}, int_ms, links, 0.0) == {"depthwise", "pointwise"}
    assert decide_precisions({"pointwise": 1.3}, int_ms, links, 0.0) == set()


def test_a_layer_that_was_not_timed_in_integers_is_not_chosen_for() -> None:
    assert decide_precisions({"a": 1.0, "z": 1.0}, {"a": 2.0}, [Link("z", "a", 100)], 1.0) == {"a"}


def cost(
    chosen: frozenset[str],
    float_ms: Mapping[str, float],
    int_ms: Mapping[str, float],
    links: Sequence[Link],
    element_ms: float,
) -> float:
    """What is made least; integers are charged 2 % more."""
    layers = sum(float_ms[name] if name in chosen else 1.02 * int_ms[name] for name in int_ms)
    cut = (link.elements for link in links if (link.before in chosen) != (link.after in chosen))
    return layers + sum(cut) * element_ms


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_is_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(8)]
    float_ms, int_ms = (dict(zip(names, random.uniform(0.1, 1.0, 8).tolist(), strict=True)) for _ in range(2))
    links = [
        Link(names[a], names[b], int(random.integers(1, 100)))
        for a, b in itertools.combinations(range(8), 2)
        if random.random() < 0.4
    ]
    choices = (frozenset(c) for size in range(9) for c in itertools.combinations(names, size))
    arguments = float_ms, int_ms, links, 0.004
    least = min(cost(choice, *arguments) for choice in choices)
    chosen = decide_precisions(*arguments)
    assert cost(chosen, *arguments) == pytest.approx(least)
