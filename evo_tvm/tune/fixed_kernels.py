"""Kernels of a planned graph that have no algorithms to choose from => candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from evo_tvm.executor.build import NO_KERNEL
from evo_tvm.graph import Graph, Group
from evo_tvm.plan.storage import Placement
from evo_tvm.tune.one_kernel import KERNEL, Candidate
from evo_tvm.tune.revision import FIXED
from evo_tvm.workload import CHOICES, workload_of


def fixed_kernels(graph: Graph) -> Iterator[Candidate]:
    """Each kernel of a graph with layouts that is always made alike, in a graph of its own: predictors have to know
    what it takes. Functions of TIR are left out."""
    for group in graph.groups:
        if group.anchor.kind not in (*CHOICES, *NO_KERNEL, "tir"):
            yield Candidate(workload_of(graph, group), FIXED, None, _alone(graph, group))


def functions(graph: Graph) -> Iterator[Candidate]:
    """Each function of TIR, likewise."""
    for group in graph.groups:
        if group.anchor.kind == "tir" and len(group.outputs) == 1:
            yield Candidate(workload_of(graph, group), FIXED, None, _alone(graph, group))


def _alone(graph: Graph, group: Group) -> Graph:
    """The group with what says where its values lie."""
    placement = Placement(graph)
    names = {*group.inputs, *group.outputs}
    wholes = (part.whole for part in graph.parts.values())
    roots = {name: graph.values[name] for name in (*names, *map(placement.root, names), *wholes)}
    views = [other for other in graph.groups if other.anchor.kind == "view"]
    bare = replace(graph, inputs=tuple(roots), outputs=())
    alone = bare.with_groups([*views, replace(group, name=KERNEL)])
    kept = {name: value if name in roots else replace(value, data=None) for name, value in alone.values.items()}
    return replace(alone, values=kept)
