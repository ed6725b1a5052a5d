"""Kernels that crash, hang or are wrong harm nobody else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.executor import link
from evo_tvm.target import host
from evo_tvm.tune import build_batch
from evo_tvm.tune.measure import Effort, Job, Measurer
from evo_tvm.tune.one_kernel import Candidate, graph_of
from evo_tvm.workload import Workload, workload_of
from tests.tune.workloads import CONV, DENSE, MATMUL, POOL

QUICK = Effort(min_rounds=2, max_rounds=3)
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
    return [Candidate(workload, name, config) for config in list(configs)[:count]]


@pytest.fixture
def measurer() -> Iterator[Measurer]:
    with Measurer(host(), timeout_s=1.0) as made:
        yield made


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Gives the kernel of one configuration another body."""

    def put(config: Any, body: str) -> None:
        planned, build_object, building = build_batch.planned, build_batch.build_object, []

        def plan(candidate: Candidate, *rest: Any) -> Any:
            building.append(candidate.config)
            return planned(candidate, *rest)

        def build(func: Any, name: str, target: Any, path: str) -> None:
            if building[-1] != config:
                return build_object(func, name, target, path)
            source = Path(path).with_suffix(".kernel.c")
            source.write_text(f"#include <stdint.h>\nint32_t {name}() {{ {body} return 0; }}\n")
            (tool, *_) = link._tools(host().arch, "gnu")
            return tool.compile(source, Path(path))

        monkeypatch.setattr(build_batch, "planned", plan)
        monkeypatch.setattr(build_batch, "build_object", build)

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
    results = measurer.measure(candidates(workload, count), QUICK)
    assert [result.error for result in results] == [""] * count
    assert all(0 < ms < 1000 for result in results for ms in result.samples_ms)
    assert all(1 <= len(result.samples_ms) <= 6 for result in results)


@pytest.mark.parametrize(
    ("workload", "algorithm"), [(workload, name) for workload in (CONV, GROUPED) for name in that_fit(workload)]
)
def test_the_algorithms_agree(workload: Workload, algorithm: str, measurer: Measurer) -> None:
    pair = [
        Candidate(workload, name, ALGORITHMS["conv2d"][name].default(workload, host(), 1))
        for name in (that_fit(workload)[0], algorithm)
    ]
    assert [r.error for r in measurer.measure(pair, QUICK)] == ["", ""]


def test_each_algorithm_of_convolution_has_a_workload_that_it_fits() -> None:
    assert {*that_fit(CONV), *that_fit(GROUPED)} == set(ALGORITHMS["conv2d"])


def test_two_threads(measurer: Measurer) -> None:
    (result,) = measurer.measure(candidates(CONV, 1), QUICK, 2)
    assert result.samples_ms and not result.error


def test_jobs_of_several_workloads_on_one_and_two_threads(measurer: Measurer) -> None:
    jobs = [Job(tuple(candidates(CONV, 2)), (1, 2), QUICK), Job(tuple(candidates(DENSE, 1)), (1,), QUICK)]
    waiting = iter(jobs)
    found = dict(measurer.run(lambda: next(waiting, None)))
    assert {job: {t: sorted(r) for t, r in results.items()} for job, results in found.items()} == {
        jobs[0]: {1: [0, 1], 2: [0, 1]},
        jobs[1]: {1: [0]},
    }
    assert all(result.samples_ms for results in found.values() for r in results.values() for result in r.values())


def test_what_only_says_what_is_correct_is_not_timed(measurer: Measurer, spoil: Callable[[Any, str], None]) -> None:
    tried = candidates(DENSE, 3)
    spoil(tried[2].config, BODIES["does nothing"])
    job = Job(tuple(tried), (1,), QUICK, frozenset({0}))
    waiting = iter([job])
    ((_, results),) = measurer.run(lambda: next(waiting, None))
    assert sorted(results[1]) == [1, 2] and results[1][1].samples_ms and "is wrong" in results[1][2].error
    assert measurer.known(DENSE)
    measurer.forget(DENSE)
    assert not measurer.known(DENSE)


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
    first, bad, last = measurer.measure(tried, QUICK)
    assert error in bad.error and not bad.samples_ms
    assert first.samples_ms and last.samples_ms and not first.error and not last.error
    again = measurer.measure([tried[0]], QUICK)
    assert again[0].samples_ms, "the next kernels are measured as if nothing had been"


def test_a_compiler_that_crashes_costs_one_candidate(measurer: Measurer, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = candidates(DENSE, 3)
    planned = build_batch.planned

    def plan(candidate: Candidate, *rest: Any) -> Any:
        if candidate == tried[0]:
            os.kill(os.getpid(), signal.SIGSEGV)
        if candidate == tried[1]:
            raise ValueError("no such tile\nmore")
        return planned(candidate, *rest)

    monkeypatch.setattr(build_batch, "planned", plan)
    crashed, refused, good = measurer.measure(tried, QUICK)
    assert "crashed (SIGSEGV)" in crashed.error
    assert refused.error == "ValueError: no such tile"
    assert good.samples_ms


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_of_which_nothing_can_be_built_ends(
    threads: int, measurer: Measurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("no such tile")

    monkeypatch.setattr(build_batch, "planned", refuse)
    results = measurer.measure(candidates(DENSE, 3), QUICK, threads)
    assert [result.error for result in results] == ["ValueError: no such tile"] * 3


def test_a_job_of_which_every_kernel_crashes_ends(measurer: Measurer, spoil: Callable[[Any, str], None]) -> None:
    (alone,) = candidates(DENSE, 1)
    spoil(alone.config, "__builtin_trap();")
    (result,) = measurer.measure([alone], QUICK)
    assert "crashed" in result.error and not result.samples_ms


def test_a_compiler_that_hangs_costs_one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = candidates(DENSE, 2)
    planned = build_batch.planned

    def plan(candidate: Candidate, *rest: Any) -> Any:
        if candidate == tried[0]:
            time.sleep(1000)
        return planned(candidate, *rest)

    monkeypatch.setattr(build_batch, "planned", plan)
    with Measurer(host(), build_timeout_s=2.0) as measurer:
        hanging, good = measurer.measure(tried, QUICK)
    assert hanging.error == "the compiler did not return within 2 s" and good.samples_ms


def test_nothing_is_left_behind() -> None:
    with Measurer(host()) as measurer:
        measurer.measure(candidates(DENSE, 1), QUICK)
        folder, process = Path(measurer._folder.name), measurer._timer
        assert folder.exists() and process is not None and process.poll() is None
    assert not folder.exists() and process.poll() is not None


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
