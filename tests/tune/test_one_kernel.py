from __future__ import annotations

from pathlib import Path

import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.predict.features import epilogue_cycles
from evo_tvm.target import resolve
from evo_tvm.tune.log import append, read_records
from evo_tvm.tune.one_kernel import KERNEL, Candidate, planned
from evo_tvm.workload import Workload, workload_of
from tests.tune.workloads import record


@pytest.mark.parametrize(
    ("dtype", "channels", "block"), [("float32", 64, 16), ("uint8", 64, 16), ("float32", 24, 16), ("uint8", 3, 1)]
)
def test_a_pool_is_measured_in_the_layout_that_models_have(dtype: str, channels: int, block: int) -> None:
    target = resolve("cascadelake")
    attributes = "count_include_pad=0 dilation=1,1 padding=1,1,1,1 pool_size=3,3 stride=2,2"
    workload = Workload.from_key(f"max_pool2d 1x{channels}x20x20 {attributes} {dtype}", (1, channels, 10, 10))
    config = ALGORITHMS["max_pool2d"]["pool"].default(workload, target, 1)
    graph = planned(Candidate(workload, "pool", config), target)
    kernel = next(group for group in graph.groups if group.name == KERNEL)
    read = graph.values[kernel.inputs[0]]
    assert read.layout.block == block and read.dtype == dtype


@pytest.mark.parametrize("between", [(), ("add", "clip"), ("add", "silu")])
def test_what_lies_between_two_convolutions_is_measured_too(between: tuple[str, ...], tmp_path: Path) -> None:
    target = resolve("cascadelake")
    key = "depthwise_pointwise 1x32x14x14 32x1x3x3 48x32x1x1 dilation=1,1 padding=1,1,1,1 stride=1,1 float32"
    workload = Workload.from_key(key, (1, 48, 14, 14), ("add",), between)
    config = ALGORITHMS["depthwise_pointwise"]["depthwise_pointwise"].default(workload, target, 1)
    graph = planned(Candidate(workload, "depthwise_pointwise", config), target)
    (group,) = [group for group in graph.groups if group.name == KERNEL]
    assert workload_of(graph, group).kernel == workload.kernel
    steps = group.anchor.attrs.get("between", ())
    assert [graph.values[group.inputs[i]].shape for _, _, i in steps if i is not None] == [(1, 32, 1, 1)][: len(steps)]
    append(tmp_path, record(workload=workload, algorithm="depthwise_pointwise"))
    (found,) = read_records(tmp_path, record().target)
    assert found.workload.kernel == workload.kernel
    plain = Workload.from_key(key, workload.output, workload.epilogue)
    added = epilogue_cycles(workload, target) - epilogue_cycles(plain, target)
    assert added == {(): 0, "clip": 1.0, "silu": 36.5}[between[-1] if between else ()] * 32 * 14 * 14 / 16


def test_a_pool_reads_and_writes_the_blocks_that_are_chosen() -> None:
    target = resolve("cascadelake")
    attributes = "blocks=8,8 count_include_pad=0 dilation=1,1 padding=1,1,1,1 pool_size=3,3 stride=2,2"
    workload = Workload.from_key(f"max_pool2d 1x24x20x20 {attributes} float32", (1, 24, 10, 10))
    graph = planned(Candidate(workload, "pool", ALGORITHMS["max_pool2d"]["pool"].default(workload, target, 1)), target)
    kernel = next(group for group in graph.groups if group.name == KERNEL)
    assert [graph.values[name].layout.block for name in (kernel.inputs[0], kernel.output)] == [8, 8]
