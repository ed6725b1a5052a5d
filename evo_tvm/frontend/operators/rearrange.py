"""Operators that move elements, written with the ones that TVM imports."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from evo_tvm.errors import ModelError
from evo_tvm.frontend.operators.builder import (
    Builder,
    CannotRewrite,
    Rewrite,
    attribute,
    constant,
    known_dtype,
    operand,
    required,
    static_shape,
)


def _reverse_sequence(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Element t of a sequence of length n comes from n-1-t where t < n, else from t."""
    x, lengths = required(node, 0), required(node, 1)
    time_axis, batch_axis = attribute(node, "time_axis", 0), attribute(node, "batch_axis", 1)
    shape = static_shape(x)
    time, batch = np.ones(len(shape), np.int64), np.ones(len(shape), np.int64)
    time[time_axis], batch[batch_axis] = shape[time_axis], shape[batch_axis]
    place = op.const(np.arange(shape[time_axis]).reshape(time), np.int64)
    length = op.shape_op("Reshape", lengths, [int(size) for size in batch])
    mirrored = op.op("Sub", op.op("Sub", length, op.const(1, np.int64)), place)
    source = op.op("Where", op.op("Less", place, length), mirrored, place)
    return [op.op("GatherElements", x, op.shape_op("Expand", source, shape), axis=time_axis)]


def _tensor_scatter(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Write `update` [N, ..., n, ...] into a cache at a place of its own for each of the N sequences."""
    cache, update, first = required(node, 0), required(node, 1), operand(node, 2)
    rank, shape = len(static_shape(cache)), static_shape(update)
    axis = attribute(node, "axis", -2) % rank
    along = np.ones(rank, np.int64)
    along[axis] = shape[axis]
    place = op.const(np.arange(shape[axis]).reshape(along), np.int64)
    if first is not None:
        place = op.op("Add", place, op.shape_op("Reshape", first, [-1, *[1] * (rank - 1)]))
    if attribute(node, "mode", "linear") == "circular":
        place = op.op("Mod", place, op.const(static_shape(cache)[axis], np.int64))
    return [op.op("ScatterElements", cache, op.shape_op("Expand", place, shape), update, axis=axis)]


def _column_to_image(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Add the columns [N, C*K, L] of a sliding block onto the image [N, C, ...] that they were taken from."""
    columns, image, block = required(node, 0), constant(operand(node, 1)), constant(operand(node, 2))
    if image is None or block is None:
        raise CannotRewrite("the sizes of image and block are not known")
    rank = len(image)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    pads = np.asarray(attribute(node, "pads", [0] * 2 * rank)).reshape(2, rank)
    padded = [int(size) for size in image + pads.sum(axis=0)]
    # Where element (kernel position, block position) lies on each axis, and from that in the padded image.
    axes = [
        np.arange(extent)[:, None] * dilation + np.arange(0, size - (extent - 1) * dilation, stride)[None, :]
        for extent, size, stride, dilation in zip(block, padded, strides, dilations, strict=True)
    ]
    flat = np.zeros((1, 1), np.int64)
    for place, size in zip(axes, padded, strict=True):
        flat = (flat[:, None, :, None] * size + place[None, :, None, :]).reshape(
            flat.shape[0] * place.shape[0], flat.shape[1] * place.shape[1]
        )
    batch, channels = static_shape(columns)[0], static_shape(columns)[1] // math.prod(int(size) for size in block)
    values = op.shape_op("Reshape", columns, [batch, channels, flat.size])
    index = op.const(np.broadcast_to(flat.reshape(1, 1, -1), (batch, channels, flat.size)), np.int64)
    empty = op.const(np.zeros((batch, channels, math.prod(padded)), known_dtype(columns).numpy()))
    summed = op.op("ScatterElements", empty, index, values, axis=2, reduction="add")
    result = op.shape_op("Reshape", summed, [batch, channels, *padded])
    for axis in range(rank):
        if pads[:, axis].any():
            begin = int(pads[0, axis])
            result = op.slice(result, axis + 2, begin, begin + int(image[axis]))
    return [result]


def _vector_of_axes(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """An axis given as a scalar becomes a vector of one axis, as the specification has it."""
    axes = constant(operand(node, 1))
    if axes is None or axes.ndim == 1:
        raise CannotRewrite("its axes are a vector already")
    attributes = {name: value.value for name, value in node.attributes.items()}
    return [op.op(node.op_type, required(node, 0), op.const(axes.reshape(1)), **attributes)]


def _space_to_depth(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """SpaceToDepth in the order column, row, depth; TVM knows the other order alone."""
    if attribute(node, "mode", "DCR") != "CRD":
        raise CannotRewrite("TVM has this order")
    x, block = required(node, 0), attribute(node, "blocksize")
    batch, channels, height, width = static_shape(x)
    parts = op.shape_op("Reshape", x, [batch, channels, height // block, block, width // block, block])
    moved = op.op("Transpose", parts, perm=[0, 1, 3, 5, 2, 4])
    return [op.shape_op("Reshape", moved, [batch, channels * block * block, height // block, width // block])]


def _roi_align(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Refuse the one mode in which TVM's numbers differ from ONNX's."""
    if attribute(node, "mode", "avg") == "max":
        raise ModelError("RoiAlign with mode 'max' cannot be compiled", where=f"node '{node.name}'")
    raise CannotRewrite("TVM imports it")


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "Col2Im"): _column_to_image,
    ("", "ReverseSequence"): _reverse_sequence,
    ("", "RoiAlign"): _roi_align,
    ("", "SpaceToDepth"): _space_to_depth,
    ("", "Squeeze"): _vector_of_axes,
    ("", "TensorScatter"): _tensor_scatter,
    ("", "Unsqueeze"): _vector_of_axes,
}
