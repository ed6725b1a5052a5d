"""Models are brought to operator set 13; those that are quantized already are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from evo_tvm.errors import ModelError
from evo_tvm.quantize.calibrate import calibrate
from evo_tvm.quantize.calibration_data import open_calibration
from evo_tvm.quantize.prepare import LEAST_OPSET, prepare
from evo_tvm.quantize.run_model import model_inputs
from tests.quantize._models import feeds, onnx_model, ort_runner, residual_model


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 21])
def test_operator_sets(opset: int) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["y"], "flatten"),
    ]
    model = onnx_model(
        nodes, {"x": (1, 3, 5, 5)}, {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32)}, ["y"], opset
    )
    prepared = prepare(model)
    assert prepared.opset_imports[""] == max(opset, LEAST_OPSET)
    x = feeds((1, 3, 5, 5), 1)[0]
    np.testing.assert_allclose(
        ort_runner(ir.to_proto(prepared))(x)["y"], ort_runner(model)(x)["y"], rtol=1e-5, atol=1e-6
    )


def test_the_batch_stays_free_and_the_model_is_not_changed() -> None:
    model = residual_model(batch="N")
    before = model.SerializeToString(deterministic=True)
    prepared = ir.to_proto(prepare(model))
    assert prepared.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert model.SerializeToString(deterministic=True) == before


def test_weights_in_another_file(tmp_path: Path) -> None:
    model = residual_model()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    prepared = ir.to_proto(prepare(tmp_path / "m.onnx"))
    assert not any(tensor.external_data for tensor in prepared.graph.initializer)
    x = feeds((1, 3, 8, 8), 1)[0]
    expected = ort_runner(residual_model())(x)["scores"]
    np.testing.assert_allclose(ort_runner(prepared)(x)["scores"], expected, rtol=1e-4, atol=1e-5)


def test_a_quantized_model_is_refused() -> None:
    prepared = prepare(residual_model())
    data = open_calibration(feeds((1, 3, 8, 8), 2), model_inputs(prepared))
    quantized = calibrate(prepared, data, ort_runner).write()
    with pytest.raises(ModelError) as caught:
        prepare(quantized)
    text = str(caught.value)
    assert "is quantized already" in text and "the first is QuantizeLinear 'x_quantize'" in text
    assert text.endswith("Compile it as it is, or quantize the float model that it was made from.")


def test_a_model_of_integer_operators_is_refused() -> None:
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"], "dense")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, (2, 3))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (2, 4))],
        [onnx.numpy_helper.from_array(np.ones((3, 4), np.int8), "w")],
    )
    with pytest.raises(ModelError, match=r"quantized already: 1 of its nodes .* MatMulInteger 'dense'"):
        prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


def test_nothing_to_quantize() -> None:
    model = onnx_model([helper.make_node("Relu", ["x"], ["y"], "relu")], {"x": (1, 3)}, {}, ["y"])
    prepared = prepare(model)
    data = open_calibration(feeds((1, 3), 2), model_inputs(prepared))
    with pytest.raises(ModelError, match=r"no layer can be quantized: it has none with weights\nLayers are Conv"):
        calibrate(prepared, data, ort_runner)
