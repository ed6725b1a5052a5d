"""`MatMul(x, W)  =>  Cast(MatMulInteger(q(x), W8)) * (s_x * s_W)`, with the scale of x found at run time.

For dense layers: weights are quantized ahead, activations as they come, so that no calibration is needed.
"""

from __future__ import annotations

import onnx_ir as ir

from evo_tvm.errors import ModelError
from evo_tvm.quantize.choose_layers import Layer, choose_layers
from evo_tvm.quantize.constants import add_constant, attribute_int, constant_input, drop_unused
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.params import weight_params


def quantize_dynamic(model: ir.Model, options: QuantizeOptions | None = None) -> tuple[str, ...]:
    """Quantize the dense layers (Gemm, MatMul) of the prepared `model`, in place; return their names.

    Of the options those about layers and `per_channel` count. Raises ModelError: there is none.
    """
    options = options or QuantizeOptions()
    choice = choose_layers(model, options.skip, options.skip_operators, options.keep_first, options.keep_last)
    dense = [layer for layer in choice.layers if layer.node.op_type in ("Gemm", "MatMul")]
    if not dense:
        raise ModelError(
            "no dense layer can be quantized",
            hint="Dynamic quantization is for Gemm and MatMul with constant float32 weights; "
            "convolutions need calibration data.",
        )
    inputs: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = {}
    for layer in dense:
        _replace(model.graph, layer, options.per_channel, inputs)
    return tuple(layer.name for layer in dense)


def _replace(
    graph: ir.Graph,
    layer: Layer,
    per_channel: bool,
    inputs: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]],
) -> None:
    """Put integer arithmetic in the place of one dense layer; its input is quantized once for all that read it."""
    node, name, value = layer.node, layer.name, layer.inputs[0]
    weights, bias = constant_input(node, 1), constant_input(node, 2)
    assert weights is not None
    if attribute_int(node, "transB", 0):
        weights = weights.T
    params = weight_params(weights, 1 if per_channel else None)
    made: list[ir.Node] = []

    def op(kind: str, what: str, *operands: ir.Value, **attributes: int) -> ir.Value:
        made.append(ir.node(kind, operands, attributes, name=f"{name}_{what}"))
        made[-1].outputs[0].name = f"{name}_{what}"
        return made[-1].outputs[0]

    if value not in inputs:
        dynamic = ir.node("DynamicQuantizeLinear", [value], num_outputs=3, name=f"{value.name}_quantize")
        made.append(dynamic)
        for output, what in zip(dynamic.outputs, ("quantized", "scale", "zero_point"), strict=True):
            output.name = f"{value.name}_{what}"
        inputs[value] = dynamic.outputs[0], dynamic.outputs[1], dynamic.outputs[2]
    integers, scale, zero_point = inputs[value]
    stored = add_constant(graph, f"{name}.weight_quantized", params.quantize(weights))
    weight_scale = add_constant(graph, f"{name}.weight_scale", params.scale)
    sums = op("MatMulInteger", "sums", integers, stored, zero_point)
    factor = op("Mul", "scale", scale, weight_scale)
    result = op("Mul", "product", op("Cast", "cast", sums, to=int(ir.DataType.FLOAT)), factor)
    if bias is not None:
        result = op("Add", "biased", result, add_constant(graph, f"{name}.bias", bias))
    constants = list(node.inputs[1:])
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, [result])
    drop_unused(graph, constants)
