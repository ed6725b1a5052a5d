"""Every small workload against ONNX Runtime, from an arena full of NaN, on one thread and two."""

from __future__ import annotations

import functools
from collections.abc import Callable

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
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from tests.onnx_builder import Builder
from tests.onnx_runtime import exact_session
from tests.workloads import WORKLOADS, Conv2d, Workload, tolerance

#: Workloads side by side in one model: linking costs as much as twenty kernels, and what shares an arena can collide.
TOGETHER = 10
TARGETS = ["host", pytest.param("x86-64-v3", marks=pytest.mark.isa("avx2", "fma"))]

Arrays = list[np.ndarray]


def reference(b: Builder) -> Arrays:
    """The outputs of `b`'s model, by ONNX Runtime."""
    return list(exact_session(b.model()).run(None, b.inputs))


def compiled(b: Builder, target: str, algorithm: str = "spatial_pack") -> list[Arrays]:
    """The outputs on one thread and on two. Every kernel has its loops in parallel and, where it fits, `algorithm`."""
    names = list(b.inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose_algorithms, "decide", asking_for(algorithm))
        patch.setenv("EVO_TVM_CACHE", "off")  # it does not know of what is patched here
        if target == "host":
            patch.setattr(common, "PARALLEL_WORK", 1)
        artifact = evo_tvm.compile(b.model(), target, num_threads=2)
    results = []
    for threads in (1, 2):
        with artifact.module(num_threads=threads) as module:
            module._arena[...] = 0xFF  # NaN as float32: what is read before it is written shows
            assert [spec.name for spec in module.outputs] == [f"y{i}" for i in range(len(b.outputs))]
            runs = [list(module.run({name: b.inputs[name] for name in names}).values()) for _ in range(2)]
            for first, second in zip(*runs, strict=True):
                np.testing.assert_array_equal(first, second)
            results.append(runs[0])
    return results


def asking_for(algorithm: str) -> Callable[..., Decision]:
    """`decide`, with `algorithm` asked for wherever it fits."""

    def forced(kernel: kernels.Workload, target: Target, num_threads: int, log: Log, *_: object) -> Decision:
        found = ALGORITHMS[kernel.operator].get(algorithm)
        fits = found is not None and found.refuse(kernel, target) is None
        return decide.decide(kernel, target, num_threads, log, algorithm if fits else None)

    return forced


def check(got: Arrays, wanted: Arrays, limit: float) -> None:
    """Same shapes and dtypes; floats within `limit` of the largest magnitude, all else equal."""
    assert [(g.shape, g.dtype) for g in got] == [(w.shape, w.dtype) for w in wanted]
    for g, w in zip(got, wanted, strict=True):
        if w.dtype.kind != "f":
            np.testing.assert_array_equal(g, w)
        else:
            np.testing.assert_allclose(g, w, rtol=0, atol=limit * max(float(np.nanmax(np.abs(w), initial=0)), 1e-30))


def is_winograd(workload: Workload) -> bool:
    return isinstance(workload, Conv2d) and workload.winograd


@functools.cache
def batch_results(index: int, target: str) -> dict[str, tuple[Arrays, list[Arrays]]] | Exception:
    """(reference, results) of each workload of one batch, all compiled as one model; or why there are none."""
    try:
        return _batch_results(index, target)
    except Exception as error:
        return error


def _batch_results(index: int, target: str) -> dict[str, tuple[Arrays, list[Arrays]]]:
    batch, b = _batches()[index], Builder(index)
    ends = [0]
    for workload in batch:
        workload.build(b)
        ends.append(len(b.outputs))
    wanted, results = reference(b), compiled(b, target, "winograd4" if is_winograd(batch[0]) else "spatial_pack")
    return {
        w.name: (wanted[start:end], [r[start:end] for r in results])
        for w, start, end in zip(batch, ends, ends[1:], strict=False)
    }


@functools.cache
def _batches() -> list[tuple[Workload, ...]]:
    direct = [w for w in WORKLOADS if not is_winograd(w)]
    return [
        *(tuple(direct[i : i + TOGETHER]) for i in range(0, len(direct), TOGETHER)),
        tuple(w for w in WORKLOADS if is_winograd(w)),
    ]


CASES = [pytest.param(i, w, id=w.name) for i, batch in enumerate(_batches()) for w in batch]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("batch", "workload"), CASES)
def test_a_workload_agrees_with_onnx_runtime(batch: int, workload: Workload, target: str) -> None:
    found = batch_results(batch, target)
    if isinstance(found, Exception):
        raise found
    wanted, results = found[workload.name]
    for got in results:
        check(got, wanted, tolerance(workload))


def test_names_are_unique() -> None:
    names = [w.name for w in WORKLOADS]
    assert len(names) == len(set(names))


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2d:
    """Any convolution whose window fits its padded image."""

    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel, dilation, pads = (
        (number(1, 4), number(1, 4)),
        (number(1, 2), number(1, 2)),
        [number(0, 2) for _ in range(4)],
    )
    least = [d * (k - 1) + 1 - a - b for d, k, a, b in zip(dilation, kernel, pads[:2], pads[2:], strict=True)]
    return Conv2d(
        groups * number(1, 20),
        groups * number(1, 36),
        (max(1, least[0]) + number(0, 9), max(1, least[1]) + number(0, 30)),
        kernel,
        (number(1, 3), number(1, 3)),
        dilation,
        groups,
        (pads[0], pads[1], pads[2], pads[3]),
        n=number(1, 2),
        epilogue=draw(st.sampled_from([(), ("Relu",), ("add:full", "Relu"), ("silu",)])),
    )


@hypothesis.settings(max_examples=15, deadline=None, derandomize=True, database=None)
@hypothesis.given(convolutions())
def test_any_convolution_agrees_with_onnx_runtime(workload: Conv2d) -> None:
    b = Builder()
    workload.build(b)
    wanted = reference(b)
    for got in compiled(b, "host"):
        check(got, wanted, tolerance(workload))
