"""Which layers of a quantized model are computed in float, by what each takes in either type and by conversions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from evo_tvm.plan.link_layers import Link

#: Of two times that lie this close the float one is taken, which rounds nothing.
_EVEN = 1.02
#: The two ends of the graph that is cut. No layer has such a name.
_FLOAT, _INT = "\nfloat", "\nint"
#: Flows below this are rounding errors of floats.
_NOTHING = 1e-12


def decide_precisions(
    float_ms: Mapping[str, float], int_ms: Mapping[str, float], links: Sequence[Link], element_ms: float
) -> frozenset[str]:
    """The layers that are in float where the sum of all times and conversions is least.

    float_ms, int_ms: layer -> milliseconds in float, in integers, with what has to be done for it first. One without a
    time in float is part of the kernel of a layer that reads it, and is in float where that is. element_ms: what it
    costs to convert one number between two layers of different types.

    This is a minimum cut between float and integers (Greig, Porteous and Seheult, "Exact maximum a posteriori
    estimation for binary images", 1989), found by shortest augmenting paths (Edmonds and Karp, 1972).
    """
    capacities: dict[str, dict[str, float]] = {_FLOAT: {}, _INT: {}}

    def add(start: str, end: str, forth: float, back: float) -> None:
        for a, b, capacity in ((start, end, forth), (end, start, back)):
            row = capacities.setdefault(a, {})
            row[b] = row.get(b, 0.0) + capacity

    for name, ms in int_ms.items():
        add(_FLOAT, name, ms * _EVEN, 0.0)
        add(name, _INT, float_ms.get(name, 0.0), 0.0)
    for link in links:
        if link.after in int_ms and link.before in int_ms:
            cost = link.elements * element_ms if link.before in float_ms else float("inf")
            add(link.before, link.after, cost, cost)
    return frozenset(_cut(capacities)) - {_FLOAT}


def _cut(capacities: dict[str, dict[str, float]]) -> set[str]:
    """What stays with the float end in a minimum cut. `capacities` become those that are left."""
    while True:
        came_from: dict[str, str] = {_FLOAT: _FLOAT}
        queue = deque([_FLOAT])
        while queue and _INT not in came_from:
            place = queue.popleft()
            for near, capacity in capacities[place].items():
                if capacity > _NOTHING and near not in came_from:
                    came_from[near] = place
                    queue.append(near)
        if _INT not in came_from:
            return set(came_from)
        path, place = list[tuple[str, str]](), _INT
        while place != _FLOAT:
            path.append((came_from[place], place))
            place = came_from[place]
        flow = min(capacities[a][b] for a, b in path)
        for a, b in path:
            capacities[a][b] -= flow
            capacities[b][a] += flow
