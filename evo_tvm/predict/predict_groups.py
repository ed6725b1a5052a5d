"""Kernels of a planned graph => what each takes."""

from __future__ import annotations

from collections.abc import Sequence

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.graph import Graph, Group
from evo_tvm.predict.features import touched_bytes
from evo_tvm.predict.model import Kernel, Prediction, Predictor, by_rule
from evo_tvm.target import Target
from evo_tvm.workload import workload_of

#: Why kernels are estimated where there is no predictor at all.
NO_PREDICTOR = "there is no predictor for this target"


def predict_groups(
    graph: Graph, groups: Sequence[Group], target: Target, num_threads: int, predictor: Predictor | None
) -> tuple[Prediction, ...]:
    """Of each group, in order; none is left out: those that the predictor does not know get the analytic estimate."""
    kernels = [kernel_of(graph, group) for group in groups]
    if predictor is None:
        return tuple(by_rule(kernel, target, num_threads, NO_PREDICTOR) for kernel in kernels)
    return tuple(predictor.predict(kernels, target, num_threads, touched_bytes(kernels, target)))


def kernel_of(graph: Graph, group: Group) -> Kernel:
    """The workload of a group, its algorithm and configuration; "default" where there is none to choose."""
    chosen = group.anchor.kind in ALGORITHMS
    algorithm = str(group.anchor.attrs["algorithm"]) if chosen else "default"
    return workload_of(graph, group), algorithm, group.anchor.attrs["config"] if chosen else None
