"""The tiers of the tests, and two small models that many of them need.

Tiers: the default one; `--all` with what takes minutes; `isa` for what a CPU may lack.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import onnx


def pytest_configure(config: pytest.Config) -> None:
    """One kernel cache for the whole run, pytest-xdist's workers included; never the user's own, nor their logs.

    A shell starts background jobs with Ctrl-C ignored, which processes hand on to those that they start; tests of
    Ctrl-C need it to arrive.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        os.environ["EVO_TVM_JOBS"] = "1"  # the workers fill the cores already
    else:
        os.environ["EVO_TVM_CACHE"] = tempfile.mkdtemp(prefix="evo_tvm_test_cache_")
        os.environ["EVO_TVM_LOGS"] = "off"


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["EVO_TVM_CACHE"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all") or "slow" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="slow: run with --all")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = [str(feature) for mark in item.iter_markers("isa") for feature in mark.args]
    if wanted:
        from evo_tvm.target import host

        missing = [feature for feature in wanted if not host().has(feature)]
        if missing:
            pytest.skip(f"this CPU has no {', '.join(missing)}")


def small_model(batch: int | str = 1) -> onnx.ModelProto:
    """A classifier of batch x 3 x 16 x 16 "image" into batch x 10 "scores": conv, ReLU, global pooling, dense."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.standard_normal((8, 3, 3, 3)),
        "conv.bias": rng.standard_normal(8),
        "dense.weight": rng.standard_normal((10, 8)),
        "dense.bias": rng.standard_normal(10),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["a"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("GlobalAveragePool", ["b"], ["c"], "pool"),
            helper.make_node("Flatten", ["c"], ["d"], "flatten"),
            helper.make_node("Gemm", ["d", "dense.weight", "dense.bias"], ["scores"], "dense", transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `small_model(1)`."""
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    path.write_bytes(small_model().SerializeToString())
    return path


@pytest.fixture(scope="session")
def free_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `small_model("batch")`, whose batch is free."""
    path = tmp_path_factory.mktemp("models") / "free.onnx"
    path.write_bytes(small_model("batch").SerializeToString())
    return path


@pytest.fixture(scope="session")
def small_evo(small_onnx: Path) -> Path:
    """`small_onnx` compiled for this machine. Tests must not change the file."""
    import evo_tvm

    path = small_onnx.with_suffix(".evo")
    evo_tvm.compile(small_onnx).save(path)
    return path


@pytest.fixture
def pipeline_runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one, the model, with every run of the whole compiler: what the cache has makes none."""
    from evo_tvm import pipeline

    found: list[object] = []
    real = pipeline.compile

    def counted(model: object, *arguments: object) -> object:
        found.append(model)
        return real(model, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "compile", counted)
    return found
