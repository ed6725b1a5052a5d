"""The hooks' networks in numpy, and both trainers on data that can be learnt."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.errors import InputError
from evo_tvm.gates.network import (
    Examples,
    Scaling,
    check_examples,
    decision_weights,
    forward,
    hidden_units,
    parameter_count,
    softmax,
    start,
)
from evo_tvm.gates.train_backprop import train_backprop
from evo_tvm.gates.train_forward_forward import accuracy, train_forward_forward

TRAINERS = {"backprop": train_backprop, "forward-forward": train_forward_forward}


def clusters(count: int = 1500, classes: int = 4, channels: int = 6, seed: int = 0) -> Examples:
    """Classes around centres of their own, in features of quite different size and offset."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, channels)) * 2
    label = rng.integers(classes, size=count)
    x = (centres[label] + rng.standard_normal((count, channels))) * np.geomspace(0.01, 10, channels) + 3
    return Examples(x.astype(np.float32), np.eye(classes, dtype=np.float32)[label][:, None])


@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_learns_classes(trainer: str, hidden: int) -> None:
    weights = TRAINERS[trainer](clusters(), hidden, 10)
    assert [w.shape for w in weights] == ([(6, hidden), (hidden,), (hidden, 4), (4,)] if hidden else [(6, 4), (4,)])
    assert all(w.dtype == np.float32 for w in weights)
    assert accuracy(weights, clusters(seed=1)) > 0.85


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_learns_decisions_and_ignores_groups_of_zeros(trainer: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2000, 5)).astype(np.float32)
    truth = np.stack([x[:, 0] + x[:, 1] > 0, x[:, 2] > 0], axis=1)
    targets = np.stack([~truth, truth], axis=2).astype(np.float32)
    targets[::2, 0], targets[1::2, 1] = 0, 0  # each decision is taught by half of the samples
    weights = decision_weights(TRAINERS[trainer](Examples(x, targets), 16, 15))
    assert weights[-1].shape == (2,)
    assert ((forward(weights, x) > 0) == truth).mean() > 0.9


def test_training_goes_on_from_weights_and_stops_when_told() -> None:
    examples = clusters()
    first = train_backprop(examples, 16, 8)
    asked: list[int] = []
    same = train_backprop(examples, 16, 8, begin=first, stopped=lambda: asked.append(1) is None)
    assert len(asked) == 1
    for a, b in zip(first, same, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_scaled_weights_say_the_same_of_features_as_they_are() -> None:
    examples = clusters()
    scaling, weights = Scaling.of(examples.x), start(6, 8, 4, seed=1)
    wanted = forward(weights, scaling.apply(examples.x))
    folded = scaling.fold(weights)
    np.testing.assert_allclose(forward(folded, examples.x), wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scaling.unfold(folded)[0], weights[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "outputs", "parameters"), [(16, 10, 1165), (64, 10, 1165), (32, 1, 194), (64, 1, 90)]
)
def test_hidden_units_keep_to_the_parameters(channels: int, outputs: int, parameters: int) -> None:
    hidden = hidden_units(channels, outputs, parameters)
    assert hidden == 0 or parameter_count(start(channels, hidden, outputs)) <= parameters


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0], [0.0, 0.0]])), [[1, 0], [0.5, 0.5]])


def test_examples_that_do_not_fit_or_are_too_few_are_refused() -> None:
    with pytest.raises(InputError, match=r"features and targets do not fit each other .*\[3, 2\] and \[4, 1, 2\]"):
        Examples(np.zeros((3, 2), np.float32), np.zeros((4, 1, 2), np.float32))
    with pytest.raises(InputError, match=r"the skip hook: too few samples to train a hook .*at least 256, got 9"):
        check_examples(9, "the skip hook")
