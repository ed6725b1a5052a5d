"""The report: SQNR of each layer against the same computed by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from evo_tvm.quantize.calibrate import calibrate
from evo_tvm.quantize.calibration_data import open_calibration
from evo_tvm.quantize.measure_error import measure_error, sqnr_db
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.prepare import prepare
from evo_tvm.quantize.report import LayerError, QuantizeReport
from evo_tvm.quantize.run_model import model_inputs, with_outputs
from tests.quantize import _models
from tests.quantize._models import feeds, ort_runner, residual_model

SAMPLES = feeds((1, 3, 8, 8), 6)


def measured(**options: object) -> tuple[QuantizeReport, object]:
    prepared = prepare(residual_model())
    data = open_calibration(SAMPLES, model_inputs(prepared))
    found = calibrate(prepared, data, ort_runner, QuantizeOptions(**options))  # type: ignore[arg-type]
    return measure_error(found, data, ort_runner), found


@pytest.mark.parametrize("options", [{}, {"bias_correction": True}, {"per_channel": False, "equalize": True}], ids=str)
def test_figures_are_those_of_a_computation_by_hand(options: dict[str, object]) -> None:
    report, found = measured(**options)
    errors = {layer.name: layer for layer in report.layers}
    assert list(errors) == ["a", "b", "add", "c", "d", "gap", "fc"]  # those that only move have no error of their own
    exact = ort_runner(with_outputs(found.model, ["a.relu", "b.bn", "sum.relu", "mean", "scores"]))  # type: ignore[attr-defined]
    whole = ort_runner(with_outputs(found.write_graph(), ["b.bn_dequantized", "scores"]))  # type: ignore[attr-defined]
    right, rough = [exact(feed) for feed in SAMPLES], [whole(feed) for feed in SAMPLES]

    def db(name: str, other: str) -> float:
        pairs = [
            np.concatenate([part[key].ravel() for part in parts]) for key, parts in ((name, right), (other, rough))
        ]
        return _models.sqnr_db(*pairs)

    assert errors["b"].accumulated_db == pytest.approx(db("b.bn", "b.bn_dequantized"), abs=0.01)
    assert errors["fc"].accumulated_db == pytest.approx(db("scores", "scores"), abs=0.01)
    # The first layer alone is the quantized model itself, up to there.
    assert errors["a"].own_db == pytest.approx(errors["a"].accumulated_db, abs=0.01)
    # Alone, an addition of rounded inputs: what the other layers did is not in it.
    params = {v.name: p for v, p in _params(found).items()}
    alone = [
        params["sum.relu"].round_trip(
            np.maximum(params["b.bn"].round_trip(part["b.bn"]) + params["a.relu"].round_trip(part["a.relu"]), 0)
        )
        for part in right
    ]
    expected = _models.sqnr_db(np.stack([part["sum.relu"] for part in right]), np.stack(alone))
    assert errors["add"].own_db == pytest.approx(expected, abs=0.05)
    assert errors["add"].own_db > errors["add"].accumulated_db


def _params(found: object) -> dict:  # type: ignore[type-arg]
    from evo_tvm.quantize.write_qdq import tensor_params

    choice = found.choose(found.model)  # type: ignore[attr-defined]
    return tensor_params(choice, found.ranges, found.options.scheme)  # type: ignore[attr-defined]


def test_the_rest_of_the_report() -> None:
    report, _ = measured(skip=("d",), keep_last=True)
    assert report.left == {"d": "it is to be skipped", "fc": "the last layer is kept"}
    assert (report.calibration_samples, report.measured_samples) == (6, 6)
    assert list(report.outputs_db) == ["scores"] and 25 < report.outputs_db["scores"] < 60
    text = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert text["layers"][0]["name"] == "a" and text["options"]["observer"] == "percentile"


def test_ratios_without_error_or_signal() -> None:
    assert sqnr_db(4, 1) == pytest.approx(6.0206) and sqnr_db(1, 0) == math.inf and sqnr_db(0, 1) == -math.inf
    layer = LayerError("a", "Conv", math.inf, 3.0)
    assert QuantizeReport((layer,), {}, {"y": math.inf}, 1, 1, 0, {}).as_json()["layers"][0]["own_db"] is None
