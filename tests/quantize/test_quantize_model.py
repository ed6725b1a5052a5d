"""`evo_tvm.quantize`: evo_tvm's own engine as the runner, and the accuracy of the reference model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm.errors import UsageError
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize_model import quantize, quantize_with_report
from tests.onnx_runtime import exact_session
from tests.quantize._models import constant, end_to_end_db, feeds, operators, ort_runner, residual_model

DATA = Path(__file__).resolve().parents[1] / "data"
REFERENCE = DATA / "models" / "fashion_resnet32.onnx"
FLOAT_ACCURACY = 93.64  # percent, under ONNX Runtime


def test_evo_tvm_finds_what_onnx_runtime_finds() -> None:
    model, data = residual_model(), feeds((1, 3, 8, 8), 8)
    own = quantize_with_report(model, data, QuantizeOptions(observer="minmax", bias_correction=True), report_samples=4)
    other = quantize(model, data, QuantizeOptions(observer="minmax", bias_correction=True), make_runner=ort_runner)
    for name in ("a.relu_scale", "sum.relu_scale", "c.bn_scale", "fc.bias_scale"):
        np.testing.assert_allclose(constant(own.model, name), constant(other, name), rtol=1e-4)
    assert end_to_end_db(model, own.model, data) > 27
    assert own.report is not None and own.report.measured_samples == 4
    assert all(layer.own_db > 25 for layer in own.report.layers) and own.report.outputs_db["scores"] > 25
    assert own.layers == ("a", "b", "add", "pool", "c", "d", "concat", "gap", "flatten", "fc") and not own.left


def test_the_room_is_the_function() -> None:
    found = evo_tvm.quantize(residual_model(), iter(feeds((1, 3, 8, 8), 2)), make_runner=ort_runner, samples=1)
    onnx.checker.check_model(found, full_check=True)
    assert operators(evo_tvm.quantize(residual_model(), dynamic=True))["MatMulInteger"] == 1
    assert "quantize" in evo_tvm.__all__


def test_wrong_use() -> None:
    with pytest.raises(UsageError, match="there are no calibration data\nGive some samples"):
        quantize(residual_model())
    with pytest.raises(UsageError, match="dynamic quantization needs no calibration data"):
        quantize(residual_model(), feeds((1, 3, 8, 8), 1), dynamic=True)
    with pytest.raises(UsageError, match=r"activations cannot have this type \(expected uint8 or int8, got int4\)"):
        QuantizeOptions(activations="int4")


def reference(samples: int, **options: object) -> onnx.ModelProto:
    images = np.load(DATA / "fashion_calib.npz")["images"][:, None].astype(np.float32) / 255
    spread = images[:: len(images) // samples][:samples]
    return quantize(REFERENCE, spread, QuantizeOptions(**options), make_runner=ort_runner)  # type: ignore[arg-type]


def correct(model: onnx.ModelProto, count: int) -> np.ndarray:
    """Which of the first `count` test images the model puts right."""
    test = np.load(DATA / "fashion_test.npz")
    x = test["images"][:count, None].astype(np.float32) / 255
    session = exact_session(model)
    scores = [session.run(None, {"input": x[i : i + 100]})[0] for i in range(0, count, 100)]
    return np.concatenate(scores).argmax(1) == test["labels"][:count]


@pytest.mark.parametrize("observer", ["kl", "percentile", "mse", "minmax"])
def test_the_reference_model_on_some_images(observer: str) -> None:
    """Of 1,000 images, at most 10 more wrong than in float: one point, three times what is allowed of 10,000."""
    drop = correct(onnx.load(REFERENCE), 1000).sum() - correct(reference(100, observer=observer), 1000).sum()
    assert drop <= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"observer": "kl"},
        {"observer": "percentile"},
        {"observer": "mse"},
        {"observer": "minmax"},
        {"observer": "moving-average"},
        {"equalize": True, "bias_correction": True},
        {"per_channel": False},
    ],
    ids=str,
)
def test_the_reference_model_is_within_three_tenths_of_a_point(options: dict[str, object]) -> None:
    accuracy = 100 * correct(reference(500, **options), 10_000).mean()
    print(f"\n{options}: {accuracy:.2f} %")
    assert accuracy >= FLOAT_ACCURACY - 0.3
