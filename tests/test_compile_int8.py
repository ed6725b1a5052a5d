"""`evo_tvm.compile(precision="int8")`: quantizes and compiles; its cache knows the calibration data; wrong use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.errors import InputError, ModelError, UsageError
from evo_tvm.quantize.accuracy_goal import AccuracyGoal
from evo_tvm.quantize.options import QuantizeOptions
from tests.conftest import small_model

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((12, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calib") / "calib.npz"
    np.savez(path, image=IMAGES, labels=np.arange(12) % 10)
    return path


@pytest.fixture
def runs(pipeline_runs: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """A fresh cache; grows by one with every model that the pipeline compiles."""
    monkeypatch.setenv("EVO_TVM_CACHE", str(tmp_path / "cache"))
    return pipeline_runs


def test_it_computes_in_integers_what_float_computes(small_onnx: Path, calib: Path, tmp_path: Path) -> None:
    artifact = evo_tvm.compile(small_onnx, precision="int8", calib=calib)
    artifact.save(tmp_path / "q.evo")
    module, exact = evo_tvm.load(tmp_path / "q.evo"), evo_tvm.compile(small_onnx).module()
    kernels = {kernel.operator.split("+")[0]: kernel.dtype for kernel in artifact.manifest.kernels}
    assert kernels["conv2d"] == kernels["dense"] == "int8" and not artifact.manifest.stayed_float
    pairs = [(np.asarray(exact(x[None])), np.asarray(module(x[None]))) for x in IMAGES]
    signal, noise = (
        sum(float(np.square(a).sum()) for a in some) for some in zip(*((a, a - b) for a, b in pairs), strict=True)
    )
    assert 25 < 10 * np.log10(signal / noise) < 60
    assert module.manifest.quantization == artifact.manifest.quantization
    assert artifact.manifest.quantization["options"]["observer"] == "percentile"
    assert artifact.manifest.quantization["left"] == {} and artifact.manifest.quantization["accuracy"] is None


def test_it_is_quantizing_and_then_compiling(free_onnx: Path, calib: Path) -> None:
    """Also with a free batch, which the calibration data decide where the caller does not."""
    options = QuantizeOptions("mse", keep_last=True)
    both = evo_tvm.compile(free_onnx, precision="int8", calib=calib, quantize_options=options, samples=5)
    model = evo_tvm.quantize(free_onnx, calib, options, samples=5)
    steps = evo_tvm.compile(model, input_shapes={"image": (1, 3, 16, 16)})
    assert (both.library, bytes(both.weights)) == (steps.library, bytes(steps.weights))
    assert both.manifest.quantization["left"] == {"dense": "the last layer is kept"}
    wide = evo_tvm.compile(free_onnx, precision="int8", calib=calib, input_shapes={"image": (2, 3, 16, 16)})
    assert wide.manifest.inputs[0].shape == (2, 3, 16, 16)


def test_accuracy_control_is_in_the_manifest(small_onnx: Path, calib: Path) -> None:
    goal = AccuracyGoal(0.0, "cosine")
    artifact = evo_tvm.compile(small_onnx, precision="int8", calib=calib, accuracy=goal)
    found = artifact.manifest.quantization["accuracy"]
    assert {"conv", "dense"} <= set(found["given_back"]) and found["drop"] == pytest.approx(0, abs=1e-6)
    assert {kernel.dtype for kernel in artifact.manifest.kernels} == {"float32"}
    labelled = evo_tvm.compile(small_onnx, precision="int8", calib=calib, accuracy=AccuracyGoal(1.0))
    found = labelled.manifest.quantization["accuracy"]
    assert found["metric"] == "accuracy" and found["given_back"] == []  # the labels lie beside the calibration data


def test_the_cache_knows_what_decides_the_artifact(
    small_onnx: Path, calib: Path, runs: list[object], tmp_path: Path
) -> None:
    first = evo_tvm.compile(small_onnx, precision="int8", calib=calib)
    count = len(runs)
    copied = tmp_path / "copied" / "calib.npz"
    copied.parent.mkdir()
    copied.write_bytes(calib.read_bytes())
    for path in (calib, copied):  # what the data are counts, not where
        again = evo_tvm.compile(small_onnx, precision="int8", calib=path)
        assert (again.manifest, again.library, bytes(again.weights)) == (
            first.manifest,
            first.library,
            bytes(first.weights),
        )
    assert len(runs) == count
    np.savez(copied, image=2 * IMAGES)
    asked: list[dict[str, Any]] = [
        {"calib": copied},
        {"calib": calib, "samples": 3},
        {"calib": calib, "quantize_options": QuantizeOptions("kl")},
        {"calib": calib, "accuracy": AccuracyGoal(0.9)},
        {"calib": calib, "accuracy": AccuracyGoal(0.9, data=copied)},
    ]
    for options in asked:
        before = len(runs)
        found = evo_tvm.compile(small_onnx, precision="int8", **options)
        assert len(runs) > before and found.manifest.quantization != {}
        before = len(runs)
        evo_tvm.compile(small_onnx, precision="int8", **options)
        assert len(runs) == before, options
    before = len(runs)
    evo_tvm.compile(small_onnx)
    evo_tvm.compile(small_onnx, precision="int8", calib=list(IMAGES))
    evo_tvm.compile(small_onnx, precision="int8", calib=list(IMAGES))
    assert len(runs) - before >= 2  # in memory, they cannot be told from others


def test_a_folder_of_samples(small_onnx: Path, runs: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for number, image in enumerate(IMAGES[:4]):
        np.save(folder / f"{number}.npy", image)
    evo_tvm.compile(small_onnx, precision="int8", calib=folder)
    count = len(runs)
    evo_tvm.compile(small_onnx, precision="int8", calib=folder)
    assert len(runs) == count
    np.save(folder / "2.npy", 3 * IMAGES[2])
    evo_tvm.compile(small_onnx, precision="int8", calib=folder)
    assert len(runs) > count


def test_a_second_compile_imports_no_tvm(small_onnx: Path, calib: Path, runs: list[object]) -> None:
    evo_tvm.compile(small_onnx, precision="int8", calib=calib)
    code = (
        "import sys, evo_tvm; evo_tvm.compile(sys.argv[1], precision='int8', calib=sys.argv[2]); "
        "print('tvm' in sys.modules, 'onnx' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, str(small_onnx), str(calib)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_quantized_model_is_compiled_as_it_is(small_onnx: Path, calib: Path) -> None:
    model = evo_tvm.quantize(small_onnx, calib)
    assert evo_tvm.compile(model, precision="int8").library == evo_tvm.compile(model).library
    with pytest.raises(ModelError, match=r"the model is quantized already.*\nCompile it as it is"):
        evo_tvm.compile(model, precision="int8", calib=calib)


Call = Callable[[Path, Path], object]


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda m, c: evo_tvm.compile(m, precision="int8"), UsageError, "there are no calibration data"),
        (
            lambda m, c: evo_tvm.compile(m, precision="int8", accuracy=AccuracyGoal(0.1)),
            UsageError,
            "there are no calibration data",
        ),
        (
            lambda m, c: evo_tvm.compile(m, calib=c),
            UsageError,
            "calib: is for int8 and auto alone\nAsk for the precision int8",
        ),
        (lambda m, c: evo_tvm.compile(m, samples=3), UsageError, "samples: is for int8 and auto alone"),
        (
            lambda m, c: evo_tvm.compile(m, accuracy=AccuracyGoal(0.1)),
            UsageError,
            "accuracy: is for int8 and auto alone",
        ),
        (lambda m, c: evo_tvm.compile(m, precision="int4"), UsageError, r"unknown precision \(expected fp32 or int8"),
        (
            lambda m, c: evo_tvm.compile(m, precision="int8", calib=c.with_name("none.npz")),
            InputError,
            "none.npz: no such file",
        ),
        (
            lambda m, c: evo_tvm.compile(m, precision="int8", calib=[np.ones((3, 4, 4), np.float32)]),
            InputError,
            "wrong shape",
        ),
    ],
)
def test_what_is_wrong_is_said(small_onnx: Path, calib: Path, call: Call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call(small_onnx, calib)


def test_a_model_in_memory(calib: Path, runs: list[object]) -> None:
    model = small_model()
    before = model.SerializeToString()
    evo_tvm.compile(model, precision="int8", calib=calib)
    count = len(runs)
    evo_tvm.compile(model, precision="int8", calib=calib)
    assert len(runs) == count and model.SerializeToString() == before
    assert isinstance(runs[-1], onnx.ModelProto)
