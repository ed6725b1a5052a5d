"""The workloads of a kernel graph in every form that the plan may give it: what is measured so can be compared."""

from __future__ import annotations

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.graph import Graph
from evo_tvm.plan.choose_layouts import other_layouts
from evo_tvm.plan.fuse_depthwise_pointwise import fuse_depthwise_pointwise
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.workload import Workload, workload_of


def workloads_to_measure(graph: Graph, target: Target) -> list[Workload]:
    """Of kernels with a choice of algorithms: in all layouts, and of each with pairs of kernels joined and not."""
    laid = (graph, *other_layouts(graph, target))
    graphs = [each for one in laid for each in (one, fuse_depthwise_pointwise(one, target, 1, Log()))]
    return [workload_of(one, group) for one in graphs for group in one.groups if group.anchor.kind in ALGORITHMS]
