"""Measures the error of each layer: alone, beside the float model, and accumulated, in the quantized model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import onnx_ir as ir

from evo_tvm.quantize.calibrate import Calibrated
from evo_tvm.quantize.calibration_data import CalibrationData
from evo_tvm.quantize.choose_layers import Choice, Layer
from evo_tvm.quantize.constants import add_constant
from evo_tvm.quantize.params import Array, QuantParams
from evo_tvm.quantize.report import LayerError, QuantizeReport
from evo_tvm.quantize.run_model import PASS_BYTES, MakeRunner, Progress, run_on, split_passes, with_shapes
from evo_tvm.quantize.write_qdq import bias_params, layer_bias, layer_weights, stored, tensor_params

#: Samples that errors are measured over.
SAMPLES = 16


def measure_error(
    calibrated: Calibrated,
    data: CalibrationData,
    make_runner: MakeRunner,
    skip: Sequence[str] = (),
    samples: int = SAMPLES,
    progress: Progress | None = None,
) -> QuantizeReport:
    """The errors of the model that `calibrated.write(skip)` gives, over about `samples` samples of `data`."""
    few = data.few(samples)
    choice = calibrated.choose(calibrated.model, skip)
    layers = [layer for layer in choice.layers if not layer.moves]
    names = [str(layer.outputs[0].name) for layer in layers]
    beside, own_names = _beside(calibrated, skip)
    quantized = calibrated.write_graph(skip)
    there = {str(value.name) for node in quantized.graph for value in node.outputs}
    rounded = [f"{name}_dequantized" if f"{name}_dequantized" in there else name for name in names]
    own = _compare(calibrated.model, names, beside, own_names, few, make_runner, progress, "layers alone")
    accumulated = _compare(calibrated.model, names, quantized, rounded, few, make_runner, progress, "layers together")
    outputs = [str(value.name) for value in calibrated.original.graph.outputs]
    ends = _compare(calibrated.original, outputs, quantized, outputs, few, make_runner, progress, "outputs")
    errors = tuple(
        LayerError(layer.name, str(layer.node.op_type), own[name], accumulated[name])
        for layer, name in zip(layers, names, strict=True)
    )
    return QuantizeReport(
        errors, dict(choice.left), ends, len(data), len(few), calibrated.equalized, asdict(calibrated.options)
    )


def sqnr_db(signal: float, noise: float) -> float:
    """Signal to quantization noise ratio of two sums of squares, in dB."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _compare(
    reference: ir.Model,
    names: Sequence[str],
    other: ir.Model,
    other_names: Sequence[str],
    data: CalibrationData,
    make_runner: MakeRunner,
    progress: Progress | None,
    text: str,
) -> dict[str, float]:
    """The SQNR of values of `other` against values of `reference`, by the names of these."""
    twins = dict(zip(names, other_names, strict=True))
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for some in split_passes(with_shapes(reference, data), list(twins), PASS_BYTES // 2):
        exact = run_on(reference, some, data, make_runner, pass_bytes=None)
        rough = run_on(other, [twins[name] for name in some], data, make_runner, progress, text, pass_bytes=None)
        for left, right in zip(exact, rough, strict=True):
            for name in some:
                values = np.asarray(left[name], np.float64)
                signal[name] += float(np.square(values).sum())
                noise[name] += float(np.square(values - right[twins[name]]).sum())
    return {name: sqnr_db(signal[name], noise[name]) for name in names}


def _beside(calibrated: Calibrated, skip: Sequence[str]) -> tuple[ir.Model, list[str]]:
    """The float model with each layer a second time, quantized, beside itself; and the names of what these give."""
    model = calibrated.model.clone()
    choice = calibrated.choose(model, skip)
    builder = _Beside(model.graph, choice, calibrated)
    return model, [builder.add(layer) for layer in choice.layers if not layer.moves]


class _Beside:
    def __init__(self, graph: ir.Graph, choice: Choice, calibrated: Calibrated) -> None:
        self._graph, self._calibrated = graph, calibrated
        self._params: Mapping[ir.Value, QuantParams] = tensor_params(
            choice, calibrated.ranges, calibrated.options.scheme
        )
        self._rounded: dict[ir.Value, ir.Value] = {}

    def add(self, layer: Layer) -> str:
        """Add the quantized twin of `layer`, and return the name of its output."""
        replaced = {value: self._round(value, value, self._params[value]) for value in layer.inputs}
        inputs = [replaced.get(value, value) if value is not None else None for value in layer.node.inputs]
        if layer.weighted:
            inputs[1:] = self._constants(layer)
        result = self._copy(layer.node, inputs)
        for node in layer.fused:
            before = result
            result = self._copy(node, [before if _is_inner(value) else value for value in node.inputs])
        if layer.rounded:
            result = self._round(result, layer.outputs[0], self._params[layer.outputs[0]])
        return str(result.name)

    def _copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
        twin = ir.Node("", node.op_type, inputs, node.attributes.values(), name=f"{node.name}_alone")
        twin.outputs[0].name = f"{node.outputs[0].name}_alone"
        self._graph.append(twin)
        return twin.outputs[0]

    def _round(self, value: ir.Value, like: ir.Value, params: QuantParams) -> ir.Value:
        """`value` quantized and dequantized with the parameters of the tensor `like`."""
        if value in self._rounded:
            return self._rounded[value]
        name = f"{value.name}_round"
        scale, zero = (self._constant(f"{name}_{what}", getattr(params, what)) for what in ("scale", "zero_point"))
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}_quantize")
        dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}_dequantize")
        quantize.outputs[0].name, dequantize.outputs[0].name = f"{name}_integers", f"{name}ed"
        quantize.outputs[0].type, dequantize.outputs[0].type = (
            ir.TensorType(ir.DataType[params.dtype.upper()]),
            like.type,
        )
        self._graph.extend([quantize, dequantize])
        return self._rounded.setdefault(value, dequantize.outputs[0])

    def _constants(self, layer: Layer) -> list[ir.Value]:
        """Weights and bias of `layer`, stored as integers.

        Rounded floats would not do: ONNX Runtime takes float weights behind a quantized input to be quantized yet.
        """
        scale = self._params[layer.inputs[0]].scale
        bias = layer_bias(layer, self._calibrated.shifts)
        weights, params = layer_weights(layer, scale, self._calibrated.options.per_channel, bias)
        made = [stored(self._graph, f"{layer.name}.weight_alone", weights, params)]
        if bias is not None:
            made.append(stored(self._graph, f"{layer.name}.bias_alone", bias, bias_params(params, scale, len(bias))))
        self._graph.extend(made)
        return [node.outputs[0] for node in made]

    def _constant(self, name: str, array: Array) -> ir.Value:
        return add_constant(self._graph, name, array)


def _is_inner(value: ir.Value | None) -> bool:
    """Whether `value`, an input of a fused node, is what the node before it gives."""
    return value is not None and value.producer() is not None
