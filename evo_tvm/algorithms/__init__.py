"""The algorithms: for each operator, the ways to compute it."""

from __future__ import annotations

from collections.abc import Mapping

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms.dense import Dense
from evo_tvm.algorithms.depthwise import AveragePool, Depthwise, MaxPool
from evo_tvm.algorithms.depthwise_pointwise import DepthwisePointwise
from evo_tvm.algorithms.grouped import GroupedLanewise, GroupedWindowed
from evo_tvm.algorithms.im2col import Im2col
from evo_tvm.algorithms.indirect import Indirect
from evo_tvm.algorithms.matmul import Matmul
from evo_tvm.algorithms.spatial_pack import SpatialPack
from evo_tvm.algorithms.transposed import Transposed
from evo_tvm.algorithms.winograd import Winograd2, Winograd4

#: operator -> name -> algorithm. For every workload that the graph has, at least one of its operator's fits.
ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = {
    algorithms[0].operator: {algorithm.name: algorithm for algorithm in algorithms}
    for algorithms in (
        (SpatialPack(), Winograd2(), Winograd4(), Im2col(), Indirect(), GroupedWindowed(), GroupedLanewise()),
        (Transposed(),),
        (Depthwise(),),
        (DepthwisePointwise(),),
        (MaxPool(),),
        (AveragePool(),),
        (Dense(),),
        (Matmul(),),
    )
}

__all__ = ["ALGORITHMS", "Algorithm"]
