"""Thresholds of gates that leave out work, from careful to careless: each step turns one gate on for some more samples.

What a gate's hook says orders samples by the harm that the gate does. How much that is, together with what other gates
leave out, is seen on held-back samples: each step is the one that loses the least accuracy for the time that it saves.
A gate that was not looked at since others changed is taken for what it was (Minoux, "Accelerated Greedy Algorithms for
Maximizing Submodular Set Functions", 1978), and looked at again when its turn comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from evo_tvm.gates.costs import Costs
from evo_tvm.gates.hook import Hook
from evo_tvm.gates.observe import Observer
from evo_tvm.gates.teach import MOST_OTHERS, is_idle
from evo_tvm.gates.thresholds import NEVER_LEAVE, NEVER_SKIP, Outcomes, judge

#: The share of a gate's decisions that one step turns off; and where gates are chosen among many.
_STEP, _ROUGH_STEP = 0.1, 0.25
#: Where exits are chosen to go with them, a path has about so many points.
_WITH_EXITS = 10


def try_thresholds(observer: Observer, hooks: Sequence[Hook], costs: Costs, least: float) -> list[Outcomes]:
    """Outcomes without gates first, then along a path for each kind of gate alone, and for all together.

    hooks: all, those of exits included. A path ends where accuracy would be below `least`, or nothing is gained. Of
    many gates those are used that save most along a path of larger steps.
    """
    kinds = [hook.kind for hook in hooks if hook.kind != "exit"]
    every = [observer.outcomes((NEVER_SKIP,) * len(kinds))]
    busy = [not is_idle(hook) for hook in hooks if hook.kind != "exit"]
    groups = [{kind} for kind in dict.fromkeys(kind for kind, some in zip(kinds, busy, strict=True) if some)]
    for group in [*groups, *([{*kinds}] if len(groups) > 1 else [])]:
        gates = [place for place, kind in enumerate(kinds) if kind in group and busy[place]]
        if len(gates) > MOST_OTHERS and group != {"precision"}:  # integers that always do need no hook
            rough = _path(observer, costs, gates, every[0], least, _ROUGH_STEP)
            saved = (1 - (rough or every)[-1].mask.mean(axis=0)) * costs.blocks[-1]
            gates = sorted(gates, key=lambda gate: -saved[gate])[:MOST_OTHERS]
        path = _path(observer, costs, gates, every[0], least, _STEP)
        every += path if len(costs.exit_hooks) == 0 else path[:: -max(len(path) // _WITH_EXITS, 1)][::-1]
    return every


def _path(
    observer: Observer, costs: Costs, gates: Sequence[int], begin: Outcomes, least: float, step: float
) -> list[Outcomes]:
    """Outcomes along the path, each faster than the one before. step: the share of decisions that one turns off."""
    now, found = begin, list[Outcomes]()
    waiting = [(0.0, -1, gate) for gate in gates]  # (accuracy lost for the time saved, when that was seen, gate)
    tried: dict[int, Outcomes] = {}
    while waiting:
        _, seen, gate = heapq.heappop(waiting)
        if seen != len(found):
            tried[gate] = observer.outcomes(_next(observer, now, gate, step))
            saved, lost = (a - b for a, b in zip(_of(now, costs), _of(tried[gate], costs), strict=True))
            if saved > 0:
                heapq.heappush(waiting, (lost / saved, len(found), gate))
            continue
        if tried[gate].right.mean() < least:
            break
        now = tried[gate]
        found.append(now)
        if now.mask[:, gate].any():  # there is more to turn off
            heapq.heappush(waiting, (0.0, -1, gate))
    return found


def _next(observer: Observer, now: Outcomes, gate: int, step: float) -> tuple[float, ...]:
    """The thresholds, that of the gate so much higher that one more step of its decisions is off."""
    scores = observer.scores(now.skip_thresholds, gate)
    on = np.sort(scores[scores > np.float32(now.skip_thresholds[gate])])
    threshold = float(on[min(int(step * scores.size), len(on) - 1)]) if len(on) else now.skip_thresholds[gate]
    return (*now.skip_thresholds[:gate], threshold, *now.skip_thresholds[gate + 1 :])


def _of(outcomes: Outcomes, costs: Costs) -> tuple[float, float]:
    """Latency and accuracy without exits."""
    exits = len(costs.exit_hooks)
    choice = judge(outcomes, costs, np.full(exits, NEVER_LEAVE), np.zeros(exits, bool))
    return choice.latency, choice.accuracy
