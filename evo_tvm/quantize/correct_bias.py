"""Bias correction: rounding the weights shifts the mean of a layer's output; the bias takes the shift back.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.2, with
the means of the inputs from calibration data: the expected shift is `layer(E[x], W_rounded - W)`, exactly, padding
included, as a layer is linear in its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from evo_tvm.quantize.choose_layers import Layer
from evo_tvm.quantize.constants import constant_input, output_axis
from evo_tvm.quantize.params import Array, weight_params
from evo_tvm.quantize.run_model import MakeRunner


def bias_shifts(
    layers: Sequence[Layer], means: Mapping[str, Array], opset: int, per_channel: bool, make_runner: MakeRunner
) -> dict[str, Array]:
    """What to add to the bias of each layer that has a place for one: layer's name -> float32[channels].

    means: of the layers' inputs, batch included, by name.
    """
    able = [layer for layer in layers if layer.node.op_type != "MatMul"]
    if not able:
        return {}
    runner = make_runner(_errors_model(able, means, opset, per_channel))
    found = runner({f"x{index}": means[str(layer.inputs[0].name)] for index, layer in enumerate(able)})
    shifts = {}
    for index, layer in enumerate(able):
        error = np.asarray(found[f"y{index}"], np.float64)
        shifts[layer.name] = -error.mean(axis=tuple(a for a in range(error.ndim) if a != 1)).astype(np.float32)
    return shifts


def _errors_model(
    layers: Sequence[Layer], means: Mapping[str, Array], opset: int, per_channel: bool
) -> onnx.ModelProto:
    """A model of all layers side by side, with the errors of their weights for weights and no bias."""
    nodes, inputs, weights = [], [], []
    for index, layer in enumerate(layers):
        original = constant_input(layer.node, 1)
        assert original is not None
        params = weight_params(original, output_axis(layer.node) if per_channel else None)
        weights.append(numpy_helper.from_array(params.round_trip(original) - original, f"w{index}"))
        shape = means[str(layer.inputs[0].name)].shape
        inputs.append(helper.make_tensor_value_info(f"x{index}", onnx.TensorProto.FLOAT, shape))
        copy = ir.to_proto(layer.node)
        del copy.input[:], copy.output[:]
        copy.input.extend([f"x{index}", f"w{index}"])
        copy.output.append(f"y{index}")
        nodes.append(copy)
    outputs = [helper.make_tensor_value_info(f"y{i}", onnx.TensorProto.FLOAT, None) for i in range(len(layers))]
    graph = helper.make_graph(nodes, "errors", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
