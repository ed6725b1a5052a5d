"""Every algorithm of every convolution against float64, with its own configuration and with others of its space."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import evo_tvm
from evo_tvm import decide
from evo_tvm import workload as kernels
from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.decide import Decision
from evo_tvm.plan import choose_algorithms
from evo_tvm.schedules import common
from evo_tvm.target import Target, resolve
from evo_tvm.tune.log import Log
from tests import reference
from tests.onnx_builder import Builder
from tests.workloads import CONVS, DEPTHWISE, DIRECT, TRANSPOSED, WINOGRAD, Conv2d, ConvTranspose2d

Convolution = Conv2d | ConvTranspose2d

TARGETS = ["host", pytest.param("x86-64-v3", marks=pytest.mark.isa("avx2", "fma"))]
OPERATORS = ("conv2d", "depthwise_conv2d", "conv2d_transpose")
#: Of float32; integer kernels have tests of their own, which ask for equal bytes.
ALL = [(o, name) for o in OPERATORS for name, found in ALGORITHMS[o].items() if "float32" in found.dtypes]
#: How many workloads each algorithm gets, in its own configuration and in two of its space (--all: every workload).
SAMPLE = (6, 4, 4)


@dataclass(frozen=True)
class Task:
    """A workload, the algorithm that shall compute it, and its configuration: 0 is its own, others are drawn."""

    operator: str
    algorithm: str
    seed: int
    workload: Convolution

    @property
    def kernel(self) -> kernels.Workload:
        """The workload that the compiler makes of it, before it chooses layouts."""
        w = self.workload
        attrs = {"dilation": w.dilation, "groups": (w.groups,), "padding": w.pads, "stride": w.stride}
        if isinstance(w, ConvTranspose2d):
            operator, weight = "conv2d_transpose", (w.ic, w.oc // w.groups, *w.kernel)
            attrs["output_padding"] = w.output_padding
        else:
            operator = "depthwise_conv2d" if w.groups == w.ic == w.oc > 1 else "conv2d"
            weight = (w.oc, w.ic // w.groups, *w.kernel)
        output = (w.n, w.oc, *w.out_size)
        return kernels.Workload(operator, ((w.n, w.ic, *w.image), weight), output, tuple(sorted(attrs.items())))

    def fits(self, target: str) -> bool:
        """Whether the algorithm computes the workload."""
        algorithm = ALGORITHMS[self.operator][self.algorithm]
        return self.kernel.operator == self.operator and algorithm.refusal(self.kernel, resolve(target)) is None

    def decide(self, kernel: kernels.Workload, target: Target, num_threads: int) -> Decision:
        """What `evo_tvm.decide.decide` shall say."""
        found = decide.decide(kernel, target, num_threads, Log(), self.algorithm)
        if not self.seed:
            return found
        space = list(ALGORITHMS[self.operator][self.algorithm].space(kernel, target, num_threads))
        return replace(found, config=random.Random(f"{self.seed} {kernel.key}").choice(space))


def tasks(operator: str, algorithm: str, seed: int, target: str) -> list[Task]:
    """One for every workload that the algorithm computes."""
    table = (Task(operator, algorithm, seed, w) for w in (*CONVS, *DEPTHWISE, *TRANSPOSED))
    return [task for task in table if task.fits(target)]


def forced(wanted: Sequence[Task], ran: list[Task]) -> Callable[..., Decision]:
    """A `decide` that gives each kernel to a task that is waiting for it; those that are done are added to `ran`."""
    waiting = defaultdict(list)
    for task in wanted:
        waiting[task.kernel].append(task)

    def decision(kernel: kernels.Workload, target: Target, num_threads: int, *_: object) -> Decision:
        attrs = tuple((key, value) for key, value in kernel.attrs if key != "blocks")
        ran.append(waiting[replace(kernel, attrs=attrs)].pop())
        return ran[-1].decide(kernel, target, num_threads)

    return decision


def errors(wanted: Sequence[Task], target: str) -> dict[tuple[str, str], list[tuple[Task, float]]]:
    """max |difference| / max |reference| of each task by algorithm. All are compiled as one model, since linking costs
    as much as many kernels, with all loops in parallel, and run on two threads from an arena full of NaN."""
    b, ends, ran = Builder(1), [0], list[Task]()
    for task in wanted:
        task.workload.build(b)
        ends.append(len(b.outputs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose_algorithms, "decide", forced(wanted, ran))
        patch.setattr(common, "PARALLEL_WORK", 1)
        patch.setenv("EVO_TVM_CACHE", "off")  # it does not know of what is patched here
        artifact = evo_tvm.compile(b.model(), target, num_threads=2)
    assert sorted(map(repr, ran)) == sorted(map(repr, wanted))
    with artifact.module(num_threads=2) as module:
        module._arena[...] = 0xFF  # NaN as float32
        got = list(module.run(dict(b.inputs)).values())
    found, trues = defaultdict(list), reference.outputs(b)
    for task, start, end in zip(wanted, ends, ends[1:], strict=False):
        for g, true in zip(got[start:end], trues[start:end], strict=True):
            assert g.shape == true.shape
            error = float(np.abs(g - true).max() / np.abs(true).max())
            found[task.operator, task.algorithm].append((task, error if np.isfinite(error) else np.inf))
    return found


def limit(task: Task) -> float:
    return WINOGRAD if task.algorithm.startswith("winograd") else DIRECT


@functools.cache
def errors_of_samples(target: str) -> dict[tuple[str, str], list[tuple[Task, float]]] | Exception:
    """The errors of every algorithm's sample; or why there are none."""
    wanted: list[Task] = []
    for operator, algorithm in ALL:
        for seed, count in enumerate(SAMPLE):
            fitting = tasks(operator, algorithm, seed, target)
            wanted += random.Random(f"{algorithm} {seed}").sample(fitting, min(count, len(fitting)))
    try:
        return errors(wanted, target)
    except Exception as error:
        return error


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("operator", "algorithm"), ALL)
def test_a_sample_of_workloads_and_configurations(operator: str, algorithm: str, target: str) -> None:
    found = errors_of_samples(target)
    if isinstance(found, Exception):
        raise found
    assert {task.seed for task, _ in found[operator, algorithm]} == {0, 1, 2}
    assert len({task.workload for task, _ in found[operator, algorithm]}) >= 3
    assert not [(task, error) for task, error in found[operator, algorithm] if error > limit(task)]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("operator", "algorithm"), ALL)
def test_every_workload(operator: str, algorithm: str, seed: int, target: str) -> None:
    found = errors(tasks(operator, algorithm, seed, target), target)[operator, algorithm]
    assert len(found) >= 3 and not [(task, error) for task, error in found if error > limit(task)]


@st.composite
def drawn_tasks(draw: st.DrawFn) -> Task:
    """An algorithm, and a workload that it computes: any window that fits the padded image."""
    operator, name = draw(st.sampled_from(ALL))
    task = functools.partial(Task, operator, name, draw(st.integers(0, 3)))
    lanes = resolve("host").lanes_f32

    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    def pair(low: int, high: int) -> tuple[int, int]:
        return number(low, high), number(low, high)

    if operator == "conv2d_transpose":
        kernel, stride, oc = pair(1, 4), pair(1, 3), number(1, 36)
        a, b, c, d = (number(0, k - 1) // 2 for k in (*kernel, *kernel))
        extra = (number(0, stride[0] - 1), number(0, stride[1] - 1))
        return task(ConvTranspose2d(number(1, 36), oc, pair(2, 9), kernel, stride, (a, b, c, d), extra))
    if name.startswith("winograd"):
        channels = (lanes * number(1, 2), lanes * number(1, 2))
        return task(Conv2d(*channels, pair(3, 20), pads=(number(0, 2), number(0, 2), 1, 0), n=number(1, 2)))
    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 3)
    pads = (number(0, 3), number(0, 3), number(0, 3), number(0, 3))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    least = [max(1, r - before - after) for r, before, after in zip(reach, pads[:2], pads[2:], strict=True)]
    image = (least[0] + number(0, 9), least[1] + number(0, 20))
    if operator == "depthwise_conv2d":
        groups = number(2, 40)
        channels = (groups, groups)
    else:
        groups = number(2, 9) if name.startswith("grouped") else 1
        channels = (groups * number(1, 12), groups * number(1, 20))
    w = Conv2d(*channels, image, kernel, stride, dilation, groups, pads, n=number(1, 2), epilogue=("Relu",))
    hypothesis.assume(task(w).fits("host"))
    return task(w)


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
@hypothesis.given(drawn_tasks())
def test_any_convolution(task: Task) -> None:
    found = errors([task], "host")[task.operator, task.algorithm]
    assert [error <= limit(task) for _, error in found] == [True]
