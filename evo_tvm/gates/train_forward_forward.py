"""Trains a hook's network layer by layer, without backpropagation: the forward-forward method.

Hinton, "The Forward-Forward Algorithm: Some Preliminary Investigations" (2022). The hidden layer also sees a label: the
right one in positive data, a wrong one in negative data. It learns to be active, in squares, on positive data alone.
Then it gets the neutral label, all classes equally, which its bias takes in, and a softmax layer learns from what it
gives. Both learn at once, each from its own error. Unlike there, activities are not normalized before the softmax
layer, so that the network keeps the form of a hook's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evo_tvm.gates.network import Array, Examples, Weights, forward, softmax, training_start

BATCH = 256
RATE = 0.01
#: The mean square of activities above which data count as positive.
GOODNESS = 1.0
#: The share of the rate that is left at the end.
_LAST_RATE = 0.05


def train_forward_forward(
    examples: Examples,
    hidden: int = 32,
    epochs: int = 10,
    seed: int = 0,
    begin: Weights | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Weights:
    """As `train_backprop`, whose arguments these are. `begin` gives the softmax layer alone where there are two.

    One thread; it holds Python's lock between numpy's operations.
    """
    count, groups, classes = examples.targets.shape
    scaling, first = training_start(examples, hidden, seed, begin)
    weights, rng, labels = list(first), np.random.default_rng(seed), groups * classes
    seen = (rng.standard_normal((labels, hidden)) / np.sqrt(groups)).astype(np.float32)  # the labels' part of layer one
    neutral = np.full((1, labels), 1 / classes, np.float32)
    two = len(weights) == 4
    if begin is not None and two:
        weights[1] = weights[1] - (neutral @ seen)[0]  # with the neutral label, it goes on from where it was
    steps, batch = max(count // BATCH, 1), min(BATCH, count)
    hidden_step, softmax_step = _Adam([*weights[:2], seen]), _Adam(weights[-2:])
    for epoch in range(epochs):
        order = rng.permutation(count)
        for i in range(steps):
            if stopped():
                break
            rate = RATE * max(1 - (epoch + i / steps) / epochs, _LAST_RATE)
            chosen = order[i * batch : (i + 1) * batch]
            x, targets = scaling.apply(examples.x[chosen]), examples.targets[chosen]
            below = x
            if two:
                hidden_step.update(_goodness_gradients(x, targets, weights, seen, rng), rate)
                below = np.maximum(x @ weights[0] + weights[1] + neutral @ seen, 0)
            logits = (below @ weights[-2] + weights[-1]).reshape(targets.shape)
            error = (softmax(logits) * targets.sum(-1, keepdims=True) - targets).reshape(len(x), -1) / len(x)
            softmax_step.update([below.T @ error, error.sum(0)], rate)
    if two:
        weights[1] = weights[1] + (neutral @ seen)[0]
    return scaling.fold(tuple(weights))


def _goodness_gradients(
    x: Array, targets: Array, weights: list[Array], seen: Array, rng: np.random.Generator
) -> list[Array]:
    """Of log(1 + exp(-goodness + G)) of positive data plus log(1 + exp(goodness - G)) of negative data."""
    right = _draw(targets, rng)
    wrong = _draw(np.where(right > 0, 0, targets + 1e-3), rng)
    taught = targets.reshape(len(x), -1).max(axis=1, keepdims=True) > 0
    sums = [np.zeros_like(weights[0]), np.zeros_like(weights[1]), np.zeros_like(seen)]
    for label, sign in ((right, -1.0), (wrong, 1.0)):
        flat = label.reshape(len(x), -1)
        active = np.maximum(x @ weights[0] + weights[1] + flat @ seen, 0)
        excess = sign * ((active * active).mean(1, keepdims=True) - GOODNESS)
        slope = sign / (1 + np.exp(-np.clip(excess * active.shape[1], -30, 30))) * taught
        delta = slope * active * (2 / len(x))
        sums = [sums[0] + x.T @ delta, sums[1] + delta.sum(0), sums[2] + flat.T @ delta]
    return sums


def _draw(likely: Array, rng: np.random.Generator) -> Array:
    """One class of each group, by its likelihood, one-hot [N, G, P]; of groups that teach nothing, any."""
    noise = rng.gumbel(size=likely.shape)
    place = (np.log(np.maximum(likely, 1e-12)) + noise).argmax(axis=2)
    return np.asarray(np.eye(likely.shape[2], dtype=np.float32)[place])


class _Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015); changes the weights where they are."""

    def __init__(self, weights: list[Array]) -> None:
        self.weights, self.count = weights, 0
        self.means = [np.zeros_like(w) for w in weights]
        self.squares = [np.zeros_like(w) for w in weights]

    def update(self, gradients: list[Array], rate: float) -> None:
        """One step at this rate."""
        self.count += 1
        scale = rate * np.sqrt(1 - 0.999**self.count) / (1 - 0.9**self.count)
        for w, g, m, s in zip(self.weights, gradients, self.means, self.squares, strict=True):
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            w -= (scale * m / (np.sqrt(s) + 1e-8)).astype(np.float32)


def accuracy(weights: Weights, examples: Examples) -> float:
    """The share of groups, of those that teach, whose likeliest class the network finds."""
    taught = examples.targets.any(axis=2)
    found = forward(weights, examples.x).reshape(examples.targets.shape).argmax(axis=2)
    return float((found == examples.targets.argmax(axis=2))[taught].mean())
