"""Chooses thresholds, and which gates to keep, from what samples that were held back went through.

Outcomes are kept sample by sample, so that thousands of thresholds of exits can be compared without a run: what an exit
would have said does not depend on the thresholds of other exits. Gates that leave out work change what comes behind
them: each of their thresholds that were tried has outcomes of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evo_tvm.gates.costs import Costs
from evo_tvm.gates.network import Array

#: The greatest softmax is never above this: the exit is never taken.
NEVER_LEAVE = 1.0
#: No logit is so small: the block always runs.
NEVER_SKIP = -1e30
#: Errors that a whole run's time is worth, from careful to careless: each gives a point of the curve.
PRICES = tuple(float(p) for p in np.geomspace(1e-3, 1.0, 25))
_ROUNDS = 3


@dataclass(frozen=True)
class Outcomes:
    """What N held-back samples went through with some thresholds of gates that leave out work (G), and E exits open.

    skip_thresholds: float [G]. mask: float [N, G], the shares of their decisions that were on. right: float [N], how
    probably the answer at the end is right. scores: float [N, E], of the exits; exit_right: bool [N, E]. plain: bool
    [N], right without gates.
    """

    skip_thresholds: tuple[float, ...]
    mask: Array
    right: Array
    scores: Array
    exit_right: Array
    plain: Array

    @cached_property
    def order(self) -> Array:
        """Samples [N, E] by falling score."""
        return np.argsort(-self.scores, axis=0, kind="stable")


@dataclass(frozen=True)
class Choice:
    """Thresholds with what they give: latency in parts of the model's without gates (hooks included), accuracy.

    taken: the share of samples that leaves at each exit. skipped: the share of samples that skips each block. error:
    the standard error of the difference in accuracy to the model without gates, sample by sample.
    """

    skip_thresholds: tuple[float, ...]
    exit_thresholds: tuple[float, ...]
    latency: float
    accuracy: float
    taken: tuple[float, ...]
    skipped: tuple[float, ...]
    error: float = 0.0


def search(
    every: Iterable[Outcomes],
    costs: Costs,
    accuracy_floor: float,
    skips: Sequence[bool] | None = None,
    exits: Sequence[bool] | None = None,
    most_exits: int | None = None,
) -> tuple[Choice, tuple[Choice, ...]]:
    """The fastest choice that is as accurate as `accuracy_floor`, and the choices on the way to it and beyond.

    Accuracy counts less its standard error: thresholds fit the samples that they were chosen on better than others.
    skips, exits: which gates there may be. most_exits: how many exits are kept. The curve has choices with the exits of
    the fastest alone, the most accurate one first; each is faster than those before.
    """
    kept = np.ones(len(costs.skip_hooks), bool) if skips is None else np.asarray(skips, bool)
    open_to = np.ones(len(costs.exit_hooks), bool) if exits is None else np.asarray(exits, bool)
    usable = [o for o in every if all(kept[g] or t <= NEVER_SKIP for g, t in enumerate(o.skip_thresholds))]
    nothing = np.zeros(len(open_to), bool)
    best = judge(usable[0], costs, np.full(len(open_to), NEVER_LEAVE), nothing)  # the model as it is
    some, curve = nothing, [best]
    for outcomes in usable:  # the exits that pay without skipping are tried with it
        tried: dict[bytes, Array] = {}
        for price in PRICES[:: len(PRICES) // 4]:
            chosen = prune(outcomes, costs, price, open_to, most_exits)
            if chosen.tobytes() in tried:
                continue
            tried[chosen.tobytes()] = chosen
            for choice in _along(outcomes, costs, chosen):
                if choice.accuracy - choice.error >= accuracy_floor and choice.latency < best.latency:
                    best, some = choice, chosen
        if outcomes is usable[0]:
            open_to = np.any(list(tried.values()), axis=0)
    for outcomes in usable:
        curve += _along(outcomes, costs, some)
    return best, pareto([*curve, best])


def _along(outcomes: Outcomes, costs: Costs, exits: Array) -> list[Choice]:
    """A choice for each price."""
    if not exits.any():
        return [judge(outcomes, costs, np.full(len(exits), NEVER_LEAVE), exits)]
    return [judge(outcomes, costs, exit_thresholds(outcomes, costs, price, exits), exits) for price in PRICES]


def pareto(points: Iterable[Choice]) -> tuple[Choice, ...]:
    """Those that no other beats in both accuracy and latency, the most accurate first."""
    front: list[Choice] = []
    for point in sorted(points, key=lambda p: (p.latency, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return tuple(reversed(front))


def judge(outcomes: Outcomes, costs: Costs, thresholds: Array, exits: Array) -> Choice:
    """What thresholds [E] give, with those of the exits alone that are marked in `exits` [E]."""
    samples, count = outcomes.scores.shape
    leaves = (outcomes.scores > thresholds) & exits
    stays = np.ones((samples, 1), bool)
    place = np.concatenate([leaves, stays], axis=1).argmax(axis=1)
    right = np.concatenate([outcomes.exit_right, outcomes.right[:, None]], axis=1)
    rows = np.arange(samples)
    times = _times(outcomes, costs, exits)
    reached = costs.skips_before[place]
    final = right[rows, place]
    return Choice(
        outcomes.skip_thresholds,
        tuple(float(t) if e else NEVER_LEAVE for t, e in zip(thresholds, exits, strict=True)),
        float(times[rows, place].mean()),
        float(final.mean()),
        tuple(float((place == e).mean()) for e in range(count)),
        tuple(float(s) for s in (reached * (1 - outcomes.mask)).mean(axis=0)),
        float(np.std(final - outcomes.plain.astype(float)) / np.sqrt(samples)),
    )


def exit_thresholds(outcomes: Outcomes, costs: Costs, price: float, exits: Array) -> Array:
    """Thresholds [E] with the least sum of errors and `price` times latency.

    One exit after another, the last one first, gets the threshold that is best given all others, until none moves.
    """
    count = outcomes.scores.shape[1]
    times = _times(outcomes, costs, exits)
    right = np.concatenate([outcomes.exit_right, outcomes.right[:, None]], axis=1)
    loss = 1 - right + price * times  # [N, E + 1]
    thresholds = np.full(count, NEVER_LEAVE)
    used = np.flatnonzero(exits)
    for _ in range(_ROUNDS):
        old = thresholds.copy()
        later = loss[:, count].copy()  # what a sample costs that goes on behind the present exit
        for e in used[::-1]:
            earlier = used[used < e]
            here = ~(outcomes.scores[:, earlier] > thresholds[earlier]).any(axis=1)
            order = outcomes.order[:, e]
            order = order[here[order]]
            thresholds[e] = _best_threshold(outcomes.scores[order, e], (loss[:, e] - later)[order])
            later = np.where(outcomes.scores[:, e] > thresholds[e], loss[:, e], later)
        if np.array_equal(old, thresholds):
            break
    return thresholds


def _best_threshold(scores: Array, gains: Array) -> float:
    """Where the sum of `gains` (below 0 is good) over all scores above the threshold is least; scores fall."""
    if not len(scores):
        return NEVER_LEAVE
    sums = np.cumsum(gains)
    sums[:-1][scores[:-1] == scores[1:]] = np.inf  # equal scores leave together
    place = int(sums.argmin())
    if sums[place] >= 0:
        return NEVER_LEAVE
    below = scores[place + 1] if place + 1 < len(scores) else 0.0
    return float((scores[place] + below) / 2)


def prune(outcomes: Outcomes, costs: Costs, price: float, exits: Array, most: int | None = None) -> Array:
    """The exits that pay: one after another is left out while that lowers errors plus `price` times latency."""

    def value(some: Array) -> tuple[float, Choice]:
        choice = judge(outcomes, costs, exit_thresholds(outcomes, costs, price, some), some)
        return 1 - choice.accuracy + price * choice.latency, choice

    kept = exits.copy()
    while kept.any():
        now, choice = value(kept)
        unused = kept & (np.array(choice.taken) == 0)
        if unused.any():
            kept &= ~unused
            continue
        tries = []
        for e in np.flatnonzero(kept):
            without = kept.copy()
            without[e] = False
            tries.append((value(without)[0], int(e)))
        least, which = min(tries)
        if least > now and (most is None or kept.sum() <= most):
            break
        kept[which] = False
    return kept


def _times(outcomes: Outcomes, costs: Costs, exits: Array) -> Array:
    """Times [N, E + 1] with the hooks: of exits that are used, and of gates that may skip."""
    own = np.cumsum(np.where(exits, costs.exit_hooks, 0.0))
    used = np.array([t > NEVER_SKIP for t in outcomes.skip_thresholds], bool)
    hooks = np.concatenate([own, own[-1:] if len(own) else [0.0]])
    hooks = hooks + (costs.skips_before & used).astype(float) @ costs.skip_hooks
    return np.asarray(costs.path(outcomes.mask) + hooks)
