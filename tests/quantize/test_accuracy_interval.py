"""The interval: a published example, its coverage, and what it does at the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evo_tvm.quantize.accuracy_interval import of_other_samples, paired_interval


def paired(worse: int, better: int, equal: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [worse, better, equal])


def test_a_published_example() -> None:
    """Agresti, Categorical Data Analysis (2002), section 10.1: 1,600 people asked twice whether they approve; 794 said
    yes both times, 150 and 86 changed their minds. Wald's interval is 0.04 +- 0.02; of so many, this one is near it."""
    assert paired_interval(paired(150, 86, 794 + 570), True) == pytest.approx((0.0214, 0.0586), abs=2e-4)


def test_models_that_differ_in_no_sample() -> None:
    low, high = paired_interval(paired(0, 0, 5000), True)
    assert low == -high and 3e-4 < high < 5e-4
    assert paired_interval(np.zeros(5000), False) == (0, 0)


def test_few_samples() -> None:
    assert paired_interval(np.ones(1), True) == (pytest.approx(-0.51, abs=0.001), 1.0)
    assert paired_interval(np.array([0.1]), False) == (-math.inf, math.inf)


@pytest.mark.parametrize(("worse", "better"), [(0.01, 0.01), (0.03, 0.01), (0.004, 0.001), (0.2, 0.1)])
@pytest.mark.parametrize("samples", [100, 1000])
def test_it_holds_the_true_drop_as_often_as_it_says(worse: float, better: float, samples: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(samples, [worse, better, 1 - worse - better], 2000)
    found = [paired_interval(paired(*row), True) for row in counts]
    held = np.mean([low <= worse - better <= high for low, high in found])
    assert held > 0.935


def test_it_holds_the_true_mean_of_other_scores() -> None:
    rng = np.random.default_rng(0)
    found = [paired_interval(row, False) for row in rng.gamma(2.0, 0.01, (2000, 200))]
    held = np.mean([low <= 0.02 <= high for low, high in found])
    assert 0.93 < held < 0.965


@pytest.mark.parametrize(("worse", "better"), [(0.01, 0.01), (0.03, 0.01), (0.2, 0.1)])
def test_other_samples_lie_within_as_often_as_it_says(worse: float, better: float) -> None:
    rng = np.random.default_rng(0)
    here, there = (rng.multinomial(1000, [worse, better, 1 - worse - better], 2000) for _ in range(2))
    found = [of_other_samples(paired(*row), True) for row in here]
    drops = (there[:, 0] - there[:, 1]) / 1000
    held = np.mean([low <= drop <= high for (low, high), drop in zip(found, drops, strict=True)])
    assert 0.935 < held < 0.97


def test_one_sample_says_nothing_of_others() -> None:
    assert of_other_samples(np.array([0.1]), False) == (-math.inf, math.inf)
