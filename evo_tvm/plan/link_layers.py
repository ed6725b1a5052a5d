"""Which layer reads what which layer makes, with whatever lies between them left out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evo_tvm.graph import Graph


@dataclass(frozen=True)
class Link:
    """The layer `after` reads what comes from the layer `before`, which makes `elements` numbers."""

    before: str
    after: str
    elements: int


def link_layers(graph: Graph, layers: Collection[str]) -> tuple[Link, ...]:
    """The links between `layers`, names of groups, while all operators are apart; each pair of layers once."""
    producers = graph.producers()
    named = {group.name: group for group in graph.groups if group.name in set(layers)}
    links = []
    for group in named.values():
        left, seen = [group.inputs[0]], set[str]()
        while left:
            name = left.pop()
            if name in seen or graph.values[name].data is not None:
                continue
            seen.add(name)
            producer = producers.get(name)
            if producer is not None and producer.name in named:
                links.append(Link(producer.name, group.name, graph.values[name].size))
            elif producer is not None:
                left += producer.inputs
    return tuple(dict.fromkeys(links))
