"""`BatchNormalization(Conv(x, W, b))  =>  Conv(x, a * W, a * b + c)`; so with Mul, Div, Add and Sub by constants.

Also `Gemm` with factors or a bias of another shape becomes one with factors 1 and a bias for each output.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from evo_tvm.quantize.constants import (
    WEIGHTED,
    constant_input,
    drop_unused,
    only_consumer,
    output_axis,
    rank,
    set_constant,
)
from evo_tvm.quantize.params import Array


def fold_affine(model: ir.Model) -> None:
    """Fold what scales or shifts the output channels of a layer with constant weights into it, in place."""
    for node in list(model.graph):
        if node.op_type not in WEIGHTED or node.domain or not _has_float_weights(node):
            continue
        if node.op_type == "Gemm":
            _make_plain(node)
        while (after := only_consumer(node.outputs[0])) is not None and (found := _affine(node, after)) is not None:
            if node.op_type == "MatMul" and found[1].any():
                break  # it has no place for a bias
            _apply(node, *found)
            _bypass(model.graph, node, after)


def _has_float_weights(node: ir.Node) -> bool:
    weights = constant_input(node, 1)
    if weights is None or weights.dtype != np.float32 or (node.op_type == "MatMul" and weights.ndim != 2):
        return False
    return len(node.inputs) < 3 or node.inputs[2] is None or constant_input(node, 2) is not None


def _channels(node: ir.Node) -> int:
    weights = constant_input(node, 1)
    assert weights is not None
    groups = node.attributes["group"].as_int() if node.op_type == "ConvTranspose" and "group" in node.attributes else 1
    return int(weights.shape[output_axis(node)] * groups)


def _affine(node: ir.Node, after: ir.Node) -> tuple[Array, Array] | None:
    """The factor and the summand of each channel, in float64, where `after` does no more to the output of `node`."""
    if after.domain or len([o for o in after.outputs if o.name and (o.uses() or o.is_graph_output())]) != 1:
        return None
    channels = _channels(node)
    if after.op_type == "BatchNormalization":
        if node.op_type == "MatMul" or after.inputs[0] is not node.outputs[0]:
            return None
        parts = [constant_input(after, index) for index in range(1, 5)]
        if any(part is None for part in parts):
            return None
        gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
        found = after.attributes.get("epsilon")
        factor = gamma / np.sqrt(variance + (1e-5 if found is None else found.as_float()))
        return factor, beta - factor * mean
    if after.op_type not in ("Mul", "Div", "Add", "Sub") or len(after.inputs) != 2:
        return None
    side = 0 if after.inputs[0] is node.outputs[0] else 1
    other = constant_input(after, 1 - side)
    if other is None or (side == 1 and after.op_type in ("Div", "Sub")):
        return None
    values = _per_channel(other, channels, rank(node.outputs[0]), 1 if "Conv" in node.op_type else -1)
    if values is None or (after.op_type == "Div" and not values.all()):
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    return {"Mul": (values, zero), "Div": (one / np.where(values, values, 1), zero)}.get(
        after.op_type, (one, values if after.op_type == "Add" else -values)
    )


def _per_channel(array: Array, channels: int, ndim: int | None, axis: int) -> Array | None:
    """`array` as one number for each channel, where it broadcasts so over a tensor with channels along `axis`."""
    if ndim is None or array.ndim > ndim:
        return None
    full = array.reshape((1,) * (ndim - array.ndim) + array.shape)
    if full.size != full.shape[axis] or full.size not in (1, channels):
        return None
    return np.broadcast_to(full.reshape(-1), (channels,)).astype(np.float64)


def _apply(node: ir.Node, factor: Array, summand: Array) -> None:
    """Scale the weights and the bias of `node`, and add to the bias."""
    weights, bias = constant_input(node, 1), constant_input(node, 2)
    assert weights is not None
    if (factor != 1).any():
        set_constant(node, 1, f"{node.name}.weight", (weights * _spread(node, weights, factor)).astype(np.float32))
    if bias is not None or summand.any():
        moved = factor * (0.0 if bias is None else bias.astype(np.float64)) + summand
        set_constant(node, 2, f"{node.name}.bias", moved.astype(np.float32))


def _spread(node: ir.Node, weights: Array, factor: Array) -> Array:
    """`factor`, one for each output channel, in a shape that multiplies the weights."""
    axis = output_axis(node)
    if node.op_type == "ConvTranspose":  # its weights are (IC, OC / groups, ...): groups lie along the first axis
        per_group = factor.reshape(-1, weights.shape[1])
        rows = np.repeat(per_group, weights.shape[0] // len(per_group), axis=0)
        return rows.reshape(*weights.shape[:2], *[1] * (weights.ndim - 2))
    shape = [1] * weights.ndim
    shape[axis] = -1
    return factor.reshape(shape)


def _make_plain(node: ir.Node) -> None:
    """Take alpha and beta of a Gemm into its constants, and give its bias the shape (N,)."""
    alpha, beta = (node.attributes[name].as_float() if name in node.attributes else 1.0 for name in ("alpha", "beta"))
    weights, bias, channels = constant_input(node, 1), constant_input(node, 2), _channels(node)
    if (bias is not None and bias.size not in (1, channels)) or (
        bias is not None and bias.ndim == 2 and bias.shape[0] != 1
    ):
        return  # a bias for each row
    if alpha != 1:
        assert weights is not None
        set_constant(node, 1, f"{node.name}.weight", (weights * np.float64(alpha)).astype(np.float32))
    if bias is not None and (beta != 1 or bias.shape != (channels,)):
        values = np.broadcast_to(bias.reshape(-1) * np.float64(beta), (channels,))
        set_constant(node, 2, f"{node.name}.bias", values.astype(np.float32))
    for name in ("alpha", "beta"):
        node.attributes.pop(name, None)


def _bypass(graph: ir.Graph, node: ir.Node, after: ir.Node) -> None:
    """Let `node` give what `after` gave, under its name, and remove `after`."""
    old, new = after.outputs[0], node.outputs[0]
    constants = list(after.inputs)
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(after, safe=True)
    new.name, new.shape, new.type = name, old.shape, old.type
    drop_unused(graph, constants)
