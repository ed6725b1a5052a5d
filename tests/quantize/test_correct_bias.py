"""Bias correction takes the shift of the mean back exactly, for every kind of layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from evo_tvm.quantize.calibrate import calibrate
from evo_tvm.quantize.calibration_data import open_calibration
from evo_tvm.quantize.constants import constant_input, output_axis
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.params import weight_params
from evo_tvm.quantize.prepare import prepare
from evo_tvm.quantize.run_model import model_inputs, with_outputs
from tests.quantize._models import ort_runner
from tests.quantize.test_write_qdq import LAYERS


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_mean_of_the_output_is_that_of_the_float_layer(layer: str, per_channel: bool) -> None:
    """With the weights alone rounded, over the calibration data, before the ReLU."""
    model, shape = LAYERS[layer]
    rng = np.random.default_rng(5)
    samples = [{"x": (rng.standard_normal(shape) + 1).astype(np.float32)} for _ in range(6)]  # a mean to be shifted
    prepared = prepare(model)
    data = open_calibration(samples, model_inputs(prepared))
    options = QuantizeOptions(bias_correction=True, per_channel=per_channel)
    shifts = calibrate(prepared, data, ort_runner, options).shifts
    exact = with_outputs(prepared, ["c"])
    node = prepared.graph[0]
    original = constant_input(node, 1)
    assert original is not None
    params = weight_params(original, output_axis(node) if per_channel else None)
    rounded = prepared.clone()
    rounded.graph.initializers["w"].const_value = ir.tensor(params.round_trip(original), name="w")
    left, right = ort_runner(exact), ort_runner(with_outputs(rounded, ["c"]))
    error = np.mean([right(feed)["c"] - left(feed)["c"] for feed in samples], axis=(0, 1, 3, 4))
    assert np.abs(error).max() > 1e-4  # there is something to correct
    np.testing.assert_allclose(shifts["layer"], -error, atol=2e-6)
