"""`y = f(Conv(x, W, b))  =>  y = DQ(Q(f(Conv(DQ(Q(x)), DQ(W8), DQ(b32)))))`: a standard QDQ model.

Weights are stored as int8, biases as int32 with the scale of input times weights. A tensor that a layer makes is read
in its quantized form by all but those that were asked to stay in float, so that it stays int8; one that comes from
float is quantized for the layers alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from evo_tvm.quantize.choose_layers import Choice, Layer
from evo_tvm.quantize.constants import add_constant, constant_input, drop_unused, output_axis
from evo_tvm.quantize.params import Array, QuantParams, Range, Scheme, symmetric_params, weight_params

#: A bias is rounded to integers below this: sums of products must fit into 32 bits beside it.
_LARGEST_BIAS = 2.0**30


def write_qdq(
    model: ir.Model,
    choice: Choice,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    per_channel: bool,
    shifts: Mapping[str, Array],
) -> None:
    """Quantize the layers of `choice` in `model`, in place.

    ranges: of the tensors, by name. shifts: what is added to the bias of a layer, by the layer's name.
    """
    _Writer(model, choice, ranges, scheme, per_channel, shifts).write()


def tensor_params(choice: Choice, ranges: Mapping[str, Range], scheme: Scheme) -> dict[ir.Value, QuantParams]:
    """The parameters of each tensor; those that share them get the union of their ranges."""
    spans: dict[ir.Value, Range] = {}
    for value, first in choice.tensors.items():
        spans[first] = spans.get(first, Range(0.0, 0.0)) | ranges[str(value.name)]
    shared = {first: scheme.params(span) for first, span in spans.items()}
    return {value: shared[first] for value, first in choice.tensors.items()}


def layer_weights(layer: Layer, input_scale: Array, per_channel: bool, bias: Array | None) -> tuple[Array, QuantParams]:
    """The weights of a layer in float, and their parameters: such that the bias, in units of both scales, is int32."""
    weights = constant_input(layer.node, 1)
    assert weights is not None
    axis = output_axis(layer.node) if per_channel else None
    params = weight_params(weights, axis)
    if bias is None:
        return weights, params
    needed = np.abs(bias.astype(np.float64)) / (float(input_scale) * _LARGEST_BIAS)
    if axis is None:
        least = np.asarray(needed.max(initial=0.0))
    else:
        least = needed.reshape(-1, len(params.scale)).max(axis=0)
    empty = np.where(weight_is_zero(weights, axis), 0.0, params.scale.astype(np.float64))
    return weights, symmetric_params(np.maximum(empty, least), axis, "int8")


def weight_is_zero(weights: Array, axis: int | None) -> Array:
    """Whether all weights of a channel are zero; then any scale will do, and the bias has the choice."""
    others = tuple(a for a in range(weights.ndim) if a != axis) if axis is not None else None
    return np.asarray(~weights.any(axis=others))


def bias_params(params: QuantParams, input_scale: Array, channels: int) -> QuantParams:
    """Of a bias: the scale of the input times that of the weights."""
    scale = params.scale.astype(np.float64) * float(input_scale)
    if params.axis is None:
        return symmetric_params(scale, None, "int32")
    return symmetric_params(np.tile(scale, channels // len(scale)), 0, "int32")


def layer_bias(layer: Layer, shifts: Mapping[str, Array]) -> Array | None:
    """The bias of a layer with its correction, float32; None where it has neither."""
    bias, shift = constant_input(layer.node, 2), shifts.get(layer.name)
    if shift is None:
        return bias
    return shift if bias is None else bias + shift


def stored(graph: ir.Graph, name: str, array: Array, params: QuantParams) -> ir.Node:
    """A node that gives `array` back from integers, which become constants of `graph`; it is in no graph yet."""
    integers = add_constant(graph, f"{name}_quantized", params.quantize(array.astype(np.float64)))
    scale = add_constant(graph, f"{name}_scale", params.scale)
    zero_point = add_constant(graph, f"{name}_zero_point", params.zero_point)
    attributes = {} if params.axis is None else {"axis": params.axis}
    node = ir.node("DequantizeLinear", [integers, scale, zero_point], attributes, name=f"{name}_dequantize")
    node.outputs[0].name = f"{name}_dequantized"
    return node


class _Writer:
    def __init__(
        self,
        model: ir.Model,
        choice: Choice,
        ranges: Mapping[str, Range],
        scheme: Scheme,
        per_channel: bool,
        shifts: Mapping[str, Array],
    ) -> None:
        self._graph, self._choice, self._per_channel, self._shifts = model.graph, choice, per_channel, shifts
        self._params = tensor_params(choice, ranges, scheme)
        self._stored: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._readers = {layer.node for layer in choice.layers}
        self._made = {value for layer in choice.layers if layer.rounded for value in layer.outputs}

    def write(self) -> None:
        for layer in self._choice.layers:
            if layer.weighted:
                self._quantize_constants(layer)
        for value in self._choice.tensors:
            self._quantize_tensor(value)

    def _quantize_tensor(self, value: ir.Value) -> None:
        """Put Q and DQ between `value` and those who read it."""
        name, leaves = str(value.name), value.is_graph_output()
        quantize = ir.node("QuantizeLinear", [value, *self._scale_of(value)], name=f"{name}_quantize")
        quantized = quantize.outputs[0]
        dequantize = ir.node("DequantizeLinear", [quantized, *self._scale_of(value)], name=f"{name}_dequantize")
        dequantized = dequantize.outputs[0]
        quantized.name, dequantized.name = f"{name}_quantized", f"{name}_dequantized"
        quantized.shape = dequantized.shape = value.shape
        quantized.type, dequantized.type = ir.TensorType(ir.DataType[self._params[value].dtype.upper()]), value.type
        everyone = value in self._made
        for use in list(value.uses()):
            if use.node in self._readers or (everyone and use.node not in self._choice.kept):
                use.node.replace_input_with(use.idx, dequantized)
        if everyone and leaves:
            for index, output in enumerate(self._graph.outputs):
                if output is value:
                    self._graph.outputs[index] = dequantized
            value.name, dequantized.name = f"{name}_float", name
        quantize.replace_input_with(0, value)
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, [quantize, dequantize])
        else:
            self._graph.insert_before(self._graph[0], [quantize, dequantize])

    def _scale_of(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point as constants of the graph, once for all tensors that share them."""
        first = self._choice.tensors[value]
        if first not in self._stored:
            params, name = self._params[first], str(first.name)
            scale = add_constant(self._graph, f"{name}_scale", params.scale)
            self._stored[first] = scale, add_constant(self._graph, f"{name}_zero_point", params.zero_point)
        return self._stored[first]

    def _quantize_constants(self, layer: Layer) -> None:
        """Store the weights of `layer` as int8 and its bias as int32."""
        node, bias = layer.node, layer_bias(layer, self._shifts)
        input_scale = self._params[layer.inputs[0]].scale
        weights, params = layer_weights(layer, input_scale, self._per_channel, bias)
        made = [stored(self._graph, f"{layer.name}.weight", weights, params)]
        if bias is not None:
            rounded = bias_params(params, input_scale, len(bias))
            made.append(stored(self._graph, f"{layer.name}.bias", bias, rounded))
        old = list(node.inputs[1:])
        node.resize_inputs(1 + len(made))
        for index, dequantize in enumerate(made, 1):
            node.replace_input_with(index, dequantize.outputs[0])
        self._graph.insert_before(node, made)
        drop_unused(self._graph, old)
