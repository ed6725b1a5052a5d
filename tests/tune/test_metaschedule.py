"""Functions of TIR, tuned by MetaSchedule with our clock; a compile then takes what was fastest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import evo_tvm
from evo_tvm.target import host
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
