"""Functions of TIR, tuned by MetaSchedule with our clock; a compile then takes what was fastest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import evo_tvm
from evo_tvm.target import host
from evo_tvm.tune import metaschedule
from evo_tvm.tune.folders import log_name
from evo_tvm.tune.log import append, read_records
from evo_tvm.tune.revision import METASCHEDULE, revision_of
from evo_tvm.tune_model import _kernels
from tests.tune.workloads import record


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """The largest of each column: an operator without a kernel of our own."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["y"], axes=[2], keepdims=0)],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 12, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 20])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def algorithms(model: onnx.ModelProto) -> list[str]:
    return [kernel.algorithm for kernel in evo_tvm.compile(model).manifest.kernels]


@pytest.mark.slow
def test_tuning_a_function_and_compiling_it(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    assert METASCHEDULE not in algorithms(model)
    (tuned,) = evo_tvm.tune(model, trials=4)
    assert (tuned.workload.operator, tuned.algorithm, tuned.trials) == ("tir", METASCHEDULE, 4)
    assert tuned.best_ms is not None and not tuned.failures
    lines = list(read_records(tmp_path, log_name(host())))
    assert len(lines) == 4 and not any(line.stale for line in lines)
    assert evo_tvm.tune(model, trials=4)[0].trials == 4
    assert len(list(read_records(tmp_path, log_name(host())))) == 4, "what the log has is not measured again"
    assert METASCHEDULE in algorithms(model)
    x = np.random.default_rng(0).standard_normal((1, 8, 12, 20), np.float32)
    np.testing.assert_array_equal(evo_tvm.compile(model).module()(x), x.max(axis=2))


def test_a_line_without_a_trace_does_not_count(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVO_TVM_LOGS", str(tmp_path))
    _, (function,) = _kernels(model, host(), None)
    fields = {"workload": function.workload, "target": log_name(host()), "config": {}}
    append(tmp_path, record(0.1, METASCHEDULE, revision=revision_of(host().isa, "tir", METASCHEDULE), **fields))
    assert [line.stale for line in read_records(tmp_path, log_name(host()))] == [True]
    assert METASCHEDULE not in algorithms(model)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, for a search of one empty batch."""
    now = [0.0]
    monkeypatch.setattr(metaschedule, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(metaschedule.ms, "tune_tir", lambda *_, runner, **__: runner.run([]))
    return now


class BrokenMeasurer:
    """It fails, and takes until then."""

    def __init__(self, clock: list[float], takes: float) -> None:
        self.clock, self.takes, self.called = clock, takes, False

    def run(self, _: object) -> object:
        self.called = True
        self.clock[0] += self.takes
        raise ValueError("the measurer is broken")


def search(model: onnx.ModelProto, measurer: object, until: float) -> None:
    _, (function,) = _kernels(model, host(), None)
    metaschedule.tune_function(function, host(), 1, 1, measurer, lambda *_: None, until)  # type: ignore[arg-type]


@pytest.mark.parametrize("takes", [0, 100], ids=["in time", "time is up meanwhile"])
def test_an_error_is_told_whatever_the_time(model: onnx.ModelProto, clock: list[float], takes: float) -> None:
    broken = BrokenMeasurer(clock, takes)
    with pytest.raises(Exception, match="the measurer is broken"):
        search(model, broken, until=50)
    assert broken.called


def test_nothing_is_measured_once_time_is_up(model: onnx.ModelProto, clock: list[float]) -> None:
    clock[0] = 51
    broken = BrokenMeasurer(clock, 0)
    search(model, broken, until=50)
    assert not broken.called
