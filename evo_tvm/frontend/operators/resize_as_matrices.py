"""Resize(x) => a product with one constant matrix for each axis that changes, or a Gather where it takes the nearest.

Interpolation is separable and linear, so this covers every mode, anti-aliasing, regions of interest, any axes and any
scale. The usual case (nearest or linear, over the last two of four axes, whole scales) stays with TVM, which is faster.
https://onnx.ai/onnx/operators/onnx__Resize.html gives the coordinate transformations and the cubic filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

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

# Elements; a larger matrix costs more time and memory than what it computes.
_MAX_MATRIX = 1 << 20
_ROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class _Axis:
    """How one axis changes: `size` elements become `result`, `scale` as the model gives it, region in 0..1."""

    size: int
    result: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def _resize(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Resize with constant scales or sizes."""
    x = required(node, 0)
    mode, transformation = (
        attribute(node, "mode", "nearest"),
        attribute(node, "coordinate_transformation_mode", "half_pixel"),
    )
    axes = _axes(node, static_shape(x))
    if _is_usual(node, axes, mode, transformation):
        raise CannotRewrite("TVM resizes such images itself")
    dtype = known_dtype(x)
    outside: ir.Value | None = None
    for number, axis in enumerate(axes):
        if axis.size == axis.result and axis.scale == 1 and transformation != "tf_crop_and_resize":
            continue
        places = _coordinates(axis, transformation)
        if transformation == "tf_crop_and_resize":
            outside = _add_outside(op, outside, places, axis, number, len(axes))
        if mode == "nearest":
            nearest = _ROUND[attribute(node, "nearest_mode", "round_prefer_floor")](places)
            taken = np.clip(nearest, 0, axis.size - 1).astype(np.int64)
            x = op.op("Gather", x, op.const(taken), axis=number)
        else:
            x = _multiply(op, x, _matrix(node, axis, places, mode), number, len(axes), dtype)
    if outside is not None:
        x = op.op("Where", outside, op.const(attribute(node, "extrapolation_value", 0.0), dtype), x)
    return [x if x is not node.inputs[0] else op.op("Identity", x)]


def _axes(node: ir.Node, shape: Sequence[int]) -> list[_Axis]:
    """Return how each axis of a tensor of `shape` changes."""
    if len(node.inputs) == 2:  # operator set 10 had no region
        roi, scales, sizes = None, constant(operand(node, 1)), None
    else:
        roi, scales, sizes = (constant(operand(node, index)) for index in (1, 2, 3))
    chosen = [axis % len(shape) for axis in attribute(node, "axes") or range(len(shape))]
    changed = [_Axis(size, size, 1.0) for size in shape]
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    sizes = sizes if sizes is not None and sizes.size else None
    scales = scales if scales is not None and scales.size else None
    if sizes is None and scales is None:
        raise CannotRewrite("neither its scales nor its sizes are known")
    kept: float | None = None
    if sizes is not None and policy != "stretch":
        pick = min if policy == "not_larger" else max
        kept = pick(int(size) / shape[axis] for size, axis in zip(sizes, chosen, strict=True))
    for index, axis in enumerate(chosen):
        if kept is not None:
            scale, result = kept, math.floor(kept * shape[axis] + 0.5)
        elif sizes is not None:
            result = int(sizes[index])
            scale = result / shape[axis]
        elif scales is not None:
            scale = float(scales[index])
            result = math.floor(shape[axis] * scale)
        region = (float(roi[index]), float(roi[index + len(chosen)])) if roi is not None and roi.size else (0.0, 1.0)
        changed[axis] = _Axis(shape[axis], result, scale, *region)
    return changed


def _is_usual(node: ir.Node, axes: Sequence[_Axis], mode: str, transformation: str) -> bool:
    """Whether TVM's own resize2d computes this, and exactly so."""
    return (
        len(axes) == 4
        and mode in ("nearest", "linear")
        and transformation in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        and not attribute(node, "antialias", 0)
        and not attribute(node, "axes")
        and not attribute(node, "exclude_outside", 0)
        and attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
        and all(axis.size == axis.result for axis in axes[:2])
        and all(axis.scale >= 1 and float(axis.scale).is_integer() for axis in axes)
    )


def _coordinates(axis: _Axis, transformation: str) -> np.ndarray:
    """Return where each element of the result lies in the operand, [result] float64."""
    place = np.arange(axis.result, dtype=np.float64)
    last = axis.size - 1
    length = axis.size * axis.scale
    if transformation == "align_corners":
        return place * last / (length - 1) if length != 1 else np.zeros_like(place)
    if transformation == "asymmetric":
        return place / axis.scale
    if transformation == "tf_crop_and_resize":
        if axis.result == 1:
            return np.array([0.5 * (axis.start + axis.end) * last])
        return axis.start * last + place * (axis.end - axis.start) * last / (length - 1)
    if transformation == "pytorch_half_pixel" and length <= 1:
        return np.zeros_like(place)
    half = (place + 0.5) / axis.scale - 0.5
    if transformation == "half_pixel_symmetric":
        centre = axis.size / 2
        return half + centre * (1 - axis.result / length)
    return half


def _add_outside(
    op: Builder, outside: ir.Value | None, places: np.ndarray, axis: _Axis, number: int, rank: int
) -> ir.Value | None:
    """Return the mask `outside` with the elements added that lie beyond the ends of this axis."""
    beyond = (places < 0) | (places > axis.size - 1)
    if not beyond.any():
        return outside
    sizes = [1] * rank
    sizes[number] = axis.result
    mask = op.const(beyond.reshape(sizes))
    return mask if outside is None else op.op("Or", outside, mask)


def _matrix(node: ir.Node, axis: _Axis, places: np.ndarray, mode: str) -> np.ndarray:
    """Return the weights [result, size] of linear or cubic interpolation."""
    if axis.result * axis.size > _MAX_MATRIX:
        raise CannotRewrite(f"an axis of {axis.size} elements becomes {axis.result}")
    stretch = max(1.0, 1.0 / axis.scale) if attribute(node, "antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) * stretch
    offset = np.arange(-math.ceil(reach), math.ceil(reach) + 2)
    source = np.floor(places)[:, None] + offset[None, :]
    weights = _kernel((source - places[:, None]) / stretch, mode, attribute(node, "cubic_coeff_a", -0.75))
    if attribute(node, "exclude_outside", 0):
        weights = np.where((source < 0) | (source > axis.size - 1), 0.0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((axis.result, axis.size))
    rows = np.broadcast_to(np.arange(axis.result)[:, None], source.shape)
    np.add.at(matrix, (rows, np.clip(source, 0, axis.size - 1).astype(np.int64)), weights)
    return matrix


def _kernel(distance: np.ndarray, mode: str, a: float) -> np.ndarray:
    """Return the weight of an element at `distance`: a triangle, or Keys' cubic with coefficient `a`."""
    far = np.abs(distance)
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    tail = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    cubic: np.ndarray = np.where(far <= 1, near, np.where(far < 2, tail, 0.0))
    return np.maximum(0.0, 1.0 - far) if mode == "linear" else cubic


def _multiply(op: Builder, x: ir.Value, matrix: np.ndarray, number: int, rank: int, dtype: ir.DataType) -> ir.Value:
    """Return the product of `matrix` with axis `number` of `x`."""
    if number == rank - 1:
        return op.op("MatMul", x, op.const(matrix.T, dtype))
    if number == rank - 2:
        return op.op("MatMul", op.const(matrix, dtype), x)
    order = [*(axis for axis in range(rank) if axis != number), number]
    back = [order.index(axis) for axis in range(rank)]
    moved = op.op("MatMul", op.op("Transpose", x, perm=order), op.const(matrix.T, dtype))
    return op.op("Transpose", moved, perm=back)


def _upsample(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Upsample, the predecessor of Resize: asymmetric coordinates, rounded down."""
    scales = constant(operand(node, 1)) if len(node.inputs) > 1 else np.asarray(attribute(node, "scales"))
    if scales is None:
        raise CannotRewrite("its scales are not known")
    x, mode = required(node, 0), attribute(node, "mode", "nearest")
    shape = static_shape(x)
    dtype = known_dtype(x)
    for number, (size, scale) in enumerate(zip(shape, scales, strict=True)):
        if scale == 1:
            continue
        axis = _Axis(size, math.floor(size * float(scale)), float(scale))
        places = _coordinates(axis, "asymmetric")
        if mode == "nearest":
            x = op.op("Gather", x, op.const(np.clip(np.floor(places), 0, size - 1), np.int64), axis=number)
        else:
            x = _multiply(op, x, _matrix(node, axis, places, "linear"), number, len(shape), dtype)
    return [op.op("Identity", x)]


REWRITES: dict[tuple[str, str], Rewrite] = {("", "Resize"): _resize, ("", "Upsample"): _upsample}
