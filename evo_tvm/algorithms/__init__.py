"""The algorithms: for each operator, the ways to compute it."""

from __future__ import annotations

from collections.abc import Mapping

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms.dense import Dense
from evo_tvm.algorithms.depthwise import AveragePool, Depthwise, MaxPool
from evo_tvm.algorithms.depthwise_dot import DepthwiseDot
from evo_tvm.algorithms.depthwise_pointwise import DepthwisePointwise
from evo_tvm.algorithms.grouped import GroupedLanewise, GroupedWindowed
from evo_tvm.algorithms.im2col import Im2col
from evo_tvm.algorithms.indirect import Indirect
from evo_tvm.algorithms.matmul import Matmul
from evo_tvm.algorithms.spatial_pack import SpatialPack
from evo_tvm.algorithms.transposed import Transposed
from evo_tvm.algorithms.winograd import Winograd2, Winograd4
from evo_tvm.target import Target
from evo_tvm.workload import Workload

#: operator -> name -> algorithm. For every workload that the graph has, at least one of its operator's fits.
ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = {
    algorithms[0].operator: {algorithm.name: algorithm for algorithm in algorithms}
    for algorithms in (
        (SpatialPack(), Winograd2(), Winograd4(), Im2col(), Indirect(), GroupedWindowed(), GroupedLanewise()),
        (Transposed(),),
        (Depthwise(), DepthwiseDot()),
        (DepthwisePointwise(),),
        (MaxPool(),),
        (AveragePool(),),
        (Dense(),),
        (Matmul(),),
    )
}


def refusals(workload: Workload, target: Target) -> Mapping[str, str]:
    """Why each algorithm of the workload's operator cannot compute it; an empty text: it can."""
    return {name: found.refusal(workload, target) or "" for name, found in ALGORITHMS[workload.operator].items()}


__all__ = ["ALGORITHMS", "Algorithm", "refusals"]
