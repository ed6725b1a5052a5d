"""Paths of thresholds from careful to careless."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evo_tvm.gates.costs import Costs
from evo_tvm.gates.greedy import try_thresholds
from evo_tvm.gates.hook import Hook, Kind
from evo_tvm.gates.network import start
from evo_tvm.gates.sites import Site
from evo_tvm.gates.teach import idle
from evo_tvm.gates.thresholds import NEVER_SKIP, Outcomes

COUNT = 1000
#: What each gate does where it is off: to a sample of the lowest score nothing, to one of the highest this.
HARM = np.array([0.02, 0.5, 0.1])
SAVES = np.array([0.2, 0.1, 0.1])


class Additive:
    """An observer of gates whose harms add up; `tried` counts thresholds."""

    def __init__(self) -> None:
        self._scores = np.random.default_rng(0).random((COUNT, len(HARM))).astype(np.float32)
        self.tried = 0

    def scores(self, thresholds: Sequence[float], gate: int) -> np.ndarray:
        return self._scores[:, gate]

    def outcomes(self, thresholds: Sequence[float]) -> Outcomes:
        self.tried += 1
        scores = self._scores[:, : len(thresholds)]
        on = scores > np.array(thresholds, np.float32)
        right = 1 - (~on * scores * HARM[: len(thresholds)]).sum(axis=1)
        nothing, plain = np.zeros((COUNT, 0)), np.ones(COUNT, bool)
        return Outcomes(tuple(thresholds), on.astype(float), right, nothing, nothing.astype(bool), plain)


COSTS = Costs(np.array([1.0]), SAVES[None], np.full(3, 0.001), np.zeros(0), np.ones((1, 3), bool), np.ones(3, int), 1.0)


def hooks(*kinds: Kind) -> list[Hook]:
    return [Hook(f"s{i}", kind, "f", start(4, 0, 1), NEVER_SKIP) for i, kind in enumerate(kinds)]


def latency(outcomes: Outcomes) -> float:
    return float(1 - ((1 - outcomes.mask) @ SAVES).mean())


def test_each_step_is_the_one_that_loses_least_for_what_it_saves() -> None:
    observer = Additive()
    first, *path = try_thresholds(observer, hooks("skip", "skip", "skip"), COSTS, 0.95)  # type: ignore[arg-type]
    assert first.skip_thresholds == (NEVER_SKIP,) * 3
    times, right = [latency(some) for some in path], [some.right.mean() for some in path]
    assert times == sorted(times, reverse=True) and right == sorted(right, reverse=True) and right[-1] >= 0.95
    assert path[0].skip_thresholds[1:] == (NEVER_SKIP,) * 2  # the first gate saves most, and does least harm
    best = 1.0  # of a few thousand thresholds drawn by chance
    rng = np.random.default_rng(1)
    for thresholds in rng.random((3000, 3)) * np.array([1, 0.5, 1]):
        some = observer.outcomes(thresholds.tolist())
        best = min(best, latency(some) if some.right.mean() >= 0.95 else 1.0)
    assert times[-1] <= best + 0.03


def test_gates_are_looked_at_again_only_when_it_is_their_turn() -> None:
    observer = Additive()
    path = try_thresholds(observer, hooks("skip", "skip", "skip"), COSTS, 0.95)  # type: ignore[arg-type]
    assert observer.tried < 2.5 * len(path) + 3


def test_each_kind_has_a_path_of_its_own_and_idle_hooks_none() -> None:
    some = [*hooks("skip", "channel"), idle(Site("s2", "space", "f", 4, 1))]
    every = try_thresholds(Additive(), some, COSTS, 0.95)  # type: ignore[arg-type]
    used = {tuple(t > NEVER_SKIP for t in outcomes.skip_thresholds) for outcomes in every}
    assert used == {(False, False, False), (True, False, False), (False, True, False), (True, True, False)}


def test_exits_alone_have_nothing_to_try() -> None:
    observer = Additive()
    nothing = np.zeros((1, 0))
    alone = Costs(np.ones(1), nothing, np.zeros(0), np.zeros(0), nothing.astype(bool), np.zeros(0, int), 1.0)
    assert len(try_thresholds(observer, hooks("exit"), alone, 0.9)) == 1  # type: ignore[arg-type]
