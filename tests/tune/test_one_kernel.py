from __future__ import annotations

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.target import resolve
from evo_tvm.tune.one_kernel import Candidate, planned
from evo_tvm.workload import Workload


@pytest.mark.parametrize(("dtype", "channels", "block"), [("float32", 64, 16), ("uint8", 64, 16), ("uint8", 3, 1)])
def test_a_pool_is_measured_in_the_layout_that_models_have(dtype: str, channels: int, block: int) -> None:
    target = resolve("cascadelake")
    attributes = "count_include_pad=0 dilation=1,1 padding=1,1,1,1 pool_size=3,3 stride=2,2"
    workload = Workload.from_key(f"max_pool2d 1x{channels}x20x20 {attributes} {dtype}", (1, channels, 10, 10))
    config = ALGORITHMS["max_pool2d"]["pool"].default(workload, target, 1)
    graph = planned(Candidate(workload, "pool", config), target, 1)
    assert graph.values["x0"].layout.block == block and graph.values["x0"].dtype == dtype
