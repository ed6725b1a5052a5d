"""Kernels that crash, hang or are wrong harm nobody else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.executor import link
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.target import host
from evo_tvm.tune import measure, one_kernel
from evo_tvm.tune.measure import Candidate, Effort, Measurer
from evo_tvm.tune.one_kernel import behind_convolution, graph_of
from evo_tvm.workload import Workload, workload_of
from tests.tune.workloads import CONV, DENSE, MATMUL, POOL

QUICK = Effort(min_rounds=2, max_rounds=3, seconds_each=0.0)
GROUPED = Workload.from_key(
    "conv2d 1x32x9x7 32x4x3x3 dilation=1,1 groups=8 padding=1,1,1,1 stride=1,1 float32", (1, 32, 9, 7), ("relu",)
)
#: Bytes times signed bytes, as quantized models have them.
CONV_OF_BYTES = Workload.from_key(
    "conv2d 1x32x9x7 24x32x3x3 dilation=1,1 groups=1 padding=1,1,1,1 stride=1,1 uint8",
    (1, 24, 9, 7),
    ("add", "rescale", "quantize", "blend", "quantize"),
)
DEPTHWISE_OF_BYTES = Workload.from_key(
    "depthwise_conv2d 1x24x9x7 24x1x3x3 dilation=1,1 groups=24 padding=1,1,1,1 stride=1,1 uint8",
    (1, 24, 9, 7),
    ("add", "rescale", "quantize"),
)
DENSE_OF_BYTES = Workload.from_key("dense 5x64 64x40 uint8", (5, 40), ("add", "rescale"))
#: The bodies of kernels that are put in the place of a candidate's own.
BODIES = {
    "crashes": "*(volatile int*)8 = 1;",
    "hangs": "for (volatile int i = 0;; ++i) {}",
    "fails": "return 7;",
    "does nothing": "",
}


def that_fit(workload: Workload) -> list[str]:
    return [name for name, a in ALGORITHMS[workload.operator].items() if a.refusal(workload, host()) is None]


def candidates(workload: Workload, count: int) -> list[Candidate]:
    name = that_fit(workload)[0]
    algorithm = ALGORITHMS[workload.operator][name]
    configs = dict.fromkeys([algorithm.default(workload, host(), 1), *algorithm.space(workload, host(), 1)])
    assert len(configs) >= count
    return [Candidate(name, config) for config in list(configs)[:count]]


@pytest.fixture
def measurer() -> Iterator[Measurer]:
    with Measurer(host(), timeout_s=1.0) as made:
        yield made


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Gives the kernel of one configuration another body."""

    def put(config: Any, body: str) -> None:
        build_one, build_object = measure.build_one, one_kernel.build_object

        def build_c(func: Any, name: str, target: Any, path: str) -> None:
            source = Path(path).with_suffix(".kernel.c")
            source.write_text(f"#include <stdint.h>\nint32_t {name}() {{ {body} return 0; }}\n")
            (tool, *_) = link._tools(host().arch, "gnu")
            tool.compile(source, Path(path))

        def build(workload: Workload, algorithm: str, asked: Any, *rest: Any) -> Any:
            one_kernel.build_object = build_c if asked == config else build_object
            return build_one(workload, algorithm, asked, *rest)

        monkeypatch.setattr(measure, "build_one", build)
        monkeypatch.setattr(one_kernel, "build_object", build_object)

    return put


@pytest.mark.parametrize(
    ("workload", "count"),
    [
        pytest.param(CONV, 3, id="conv2d"),
        pytest.param(DENSE, 3, id="dense"),
        pytest.param(POOL, 1, id="no weights"),
        pytest.param(MATMUL, 1, id="no constants"),
        pytest.param(CONV_OF_BYTES, 3, id="conv2d of bytes"),
        pytest.param(DEPTHWISE_OF_BYTES, 3, id="depthwise of bytes"),
        pytest.param(DENSE_OF_BYTES, 3, id="dense of bytes"),
    ],
)
def test_every_candidate_has_its_samples(workload: Workload, count: int, measurer: Measurer) -> None:
    results = measurer.measure(workload, candidates(workload, count), QUICK)
    assert [result.error for result in results] == [""] * count
    assert all(0 < ms < 1000 for result in results for ms in result.samples_ms)
    assert all(1 <= len(result.samples_ms) <= 3 for result in results)


@pytest.mark.parametrize(
    ("workload", "algorithm"), [(workload, name) for workload in (CONV, GROUPED) for name in that_fit(workload)]
)
def test_the_algorithms_agree(workload: Workload, algorithm: str, measurer: Measurer) -> None:
    pair = [
        Candidate(name, ALGORITHMS["conv2d"][name].default(workload, host(), 1))
        for name in (that_fit(workload)[0], algorithm)
    ]
    assert [r.error for r in measurer.measure(workload, pair, QUICK)] == ["", ""]


def test_each_algorithm_of_convolution_has_a_workload_that_it_fits() -> None:
    assert {*that_fit(CONV), *that_fit(GROUPED)} == set(ALGORITHMS["conv2d"])


def test_two_threads(measurer: Measurer) -> None:
    with Measurer(host(), 2) as two:
        (result,) = two.measure(CONV, candidates(CONV, 1), QUICK)
    assert result.samples_ms and not result.error


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("crashes", "it crashed (SIGSEGV)"),
        ("hangs", "it did not return within 1 s"),
        ("fails", "a kernel failed with code 7"),
        ("does nothing", "its result is wrong by"),
    ],
)
def test_a_bad_kernel_is_told_from_its_neighbours(
    body: str, error: str, measurer: Measurer, spoil: Callable[[Any, str], None]
) -> None:
    tried = candidates(DENSE, 3)
    spoil(tried[1].config, BODIES[body])
    first, bad, last = measurer.measure(DENSE, tried, QUICK)
    assert error in bad.error and not bad.samples_ms
    assert first.samples_ms and last.samples_ms and not first.error and not last.error
    again = measurer.measure(DENSE, [tried[0]], QUICK)
    assert again[0].samples_ms, "the next kernels are measured as if nothing had been"


def test_a_compiler_that_crashes_costs_one_candidate(measurer: Measurer, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = candidates(DENSE, 3)
    build_one = measure.build_one

    def build(workload: Workload, algorithm: str, config: Any, *rest: Any) -> Any:
        if config == tried[0].config:
            os.kill(os.getpid(), signal.SIGSEGV)
        if config == tried[1].config:
            raise ValueError("no such tile\nmore")
        return build_one(workload, algorithm, config, *rest)

    monkeypatch.setattr(measure, "build_one", build)
    crashed, refused, good = measurer.measure(DENSE, tried, QUICK)
    assert "crashed (SIGSEGV)" in crashed.error
    assert refused.error == "ValueError: no such tile"
    assert good.samples_ms


def test_nothing_is_left_behind() -> None:
    with Measurer(host()) as measurer:
        measurer.measure(DENSE, candidates(DENSE, 1), QUICK)
        folder, process = Path(measurer._folder.name), measurer._process
        assert folder.exists() and process is not None and process.poll() is None
    assert not folder.exists() and process.poll() is not None


def test_a_pool_reads_blocks_as_behind_a_convolution() -> None:
    config = candidates(POOL, 1)[0].config
    graph = behind_convolution(graph_of(POOL, "pool", config), host(), 1)
    planned = assign_layouts(graph, host().lanes_f32)
    kernel = next(group for group in planned.groups if group.name == "kernel")
    assert planned.values[kernel.inputs[0]].layout.block == host().lanes_f32
    assert workload_of(graph, graph.groups[1]) == POOL
    conv = graph_of(CONV, "spatial_pack", candidates(CONV, 1)[0].config)
    assert behind_convolution(conv, host(), 1) is conv


def test_a_graph_computes_its_workload() -> None:
    for workload in (CONV, DENSE, MATMUL):
        graph = graph_of(workload, candidates(workload, 1)[0].algorithm, candidates(workload, 1)[0].config)
        (group,) = graph.groups
        assert workload_of(graph, group) == workload
        assert workload_of(graph, group).epilogue == workload.epilogue
    config = candidates(CONV, 1)[0].config
    assert graph_of(CONV, "spatial_pack", config).inputs == ("x0", "x1"), "the second addition is of a whole tensor"
    data = [v.data for v in graph_of(CONV, "spatial_pack", config).values.values() if v.data is not None]
    assert data[0].dtype == np.float32 and np.std(data[0]) == pytest.approx(1 / np.sqrt(9 * 32), rel=0.1)
