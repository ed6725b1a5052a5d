"""select(d, a, b) => what only a needs runs where d is on, what only b needs where d is off."""

from __future__ import annotations

from dataclasses import replace

from evo_tvm.graph import Graph, Group, Guard

Condition = frozenset[Guard]


def guard_branches(graph: Graph) -> Graph:
    """Gives each group its guards: what holds wherever one of its results is needed.

    A guard is left out where its decision comes after the group, or is not always made when it would be asked for.
    """
    needed: dict[str, Condition] = {}
    places = {name: i for i, group in enumerate(graph.groups) for name in group.outputs}
    for name in graph.outputs:
        needed[name] = frozenset()
    wanted: list[Condition] = []

    def need(name: str, condition: Condition) -> None:
        needed[name] = needed[name] & condition if name in needed else condition

    for place, group in reversed([*enumerate(graph.groups)]):
        uses = [needed[name] for name in group.outputs if name in needed]
        condition = frozenset.intersection(*uses) if uses else frozenset()
        condition = frozenset(guard for guard in condition if places[guard.decision] < place)
        wanted.append(condition)
        if group.anchor.kind == "select":
            decision, on, off = (group.inputs[a] for a in group.anchor.args)
            need(decision, condition)
            need(on, condition | {Guard(decision, True)})
            need(off, condition | {Guard(decision, False)})
        else:
            for name in group.inputs:
                need(name, condition)
    made: dict[str, Condition] = {}
    groups: list[Group] = []
    for group, condition in zip(graph.groups, reversed(wanted), strict=True):
        while True:  # a decision that is not made is not asked for
            kept = frozenset(guard for guard in condition if made[guard.decision] <= condition)
            if kept == condition:
                break
            condition = kept
        ordered = sorted(condition, key=lambda guard: (places[guard.decision], guard.on))
        groups.append(replace(group, guards=tuple(ordered)))
        made.update((name, condition) for name in group.outputs)
    return graph.with_groups(groups)
