"""QLinearX(x, ...) => QuantizeLinear(X(DequantizeLinear(x), ...)): operators in QOperator form become QDQ form.

ConvInteger, whose result is an int32, is computed in the floating-point type that holds every possible sum exactly.
MatMulInteger by weights becomes a product in QDQ form, of scale 1, which integer kernels compute.
The operators of com.microsoft are documented in ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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

_CONTRIB = "com.microsoft"
_CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL_ATTRIBUTES = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
# Integers up to these are exact.
_EXACT_IN_FLOAT, _LARGEST_PRODUCT = 1 << 24, 255 * 255
_MIDDLE = 128  # of uint8


def _dequantize(
    op: Builder, value: ir.Value, scale: ir.Value, zero_point: ir.Value | None, axis: int | None = None
) -> ir.Value:
    """Return the real numbers that `value` stands for; `axis` is where a scale of several elements lies."""
    scale = _scalar(op, scale)
    zero_point = _scalar(op, zero_point) if zero_point is not None else None
    if not static_shape(scale):
        return op.op("DequantizeLinear", value, scale, zero_point)
    if axis is None or len(static_shape(scale)) != 1:
        return _dequantize_by_hand(op, value, scale, zero_point)
    if op.opset >= 13:
        return op.op("DequantizeLinear", value, scale, zero_point, axis=axis)
    sizes = [1] * len(static_shape(value))
    sizes[axis] = -1
    zero_point = op.shape_op("Reshape", zero_point, sizes) if zero_point is not None else None
    return _dequantize_by_hand(op, value, op.shape_op("Reshape", scale, sizes), zero_point)


def _dequantize_by_hand(op: Builder, value: ir.Value, scale: ir.Value, zero_point: ir.Value | None) -> ir.Value:
    """Return (value - zero_point) * scale, broadcast."""
    dtype = known_dtype(scale)
    real = op.op("Cast", value, to=int(dtype))
    if zero_point is not None:
        real = op.op("Sub", real, op.op("Cast", zero_point, to=int(dtype)))
    return op.op("Mul", real, scale)


def _quantize(op: Builder, value: ir.Value, scale: ir.Value, zero_point: ir.Value | None) -> ir.Value:
    """Return `value` in the integers of `zero_point` (uint8 where it is left out)."""
    scale = _scalar(op, scale)
    zero_point = _scalar(op, zero_point) if zero_point is not None else None
    if static_shape(scale):
        raise CannotRewrite("the result has a scale per channel")
    return op.op("QuantizeLinear", value, scale, zero_point)


def _scalar(op: Builder, value: ir.Value) -> ir.Value:
    """Return a tensor of one element as a scalar, and a scale as float32: float16 would lose bits of the products."""
    if known_dtype(value) == ir.DataType.FLOAT16:
        wide = op.op("Cast", value, to=int(ir.DataType.FLOAT))
        wide.shape, wide.dtype = value.shape, ir.DataType.FLOAT
        value = wide
    if static_shape(value) == () or math.prod(static_shape(value)) != 1:
        return value
    scalar = op.shape_op("Reshape", value, [])
    scalar.shape, scalar.dtype = ir.Shape(()), known_dtype(value)
    return scalar


def _kept(node: ir.Node, names: Sequence[str]) -> dict[str, object]:
    """Return those attributes of `node` that the operator in floating point has too."""
    return {name: attribute(node, name) for name in names if name in node.attributes}


def _qlinear_conv(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias (int32 of x_scale*w_scale)."""
    x_scale, w_scale, bias = required(node, 1), required(node, 4), operand(node, 8)
    inputs = [
        _dequantize(op, required(node, 0), x_scale, operand(node, 2)),
        _dequantize(op, required(node, 3), w_scale, operand(node, 5), axis=0),
    ]
    if bias is not None:
        real = op.op("Cast", bias, to=int(ir.DataType.FLOAT))
        inputs.append(op.op("Mul", real, op.op("Mul", x_scale, w_scale)))
    result = op.op("Conv", *inputs, **_kept(node, _CONV_ATTRIBUTES))
    return [_quantize(op, result, required(node, 6), operand(node, 7))]


def _qlinear_matmul(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """a, a_scale (per tensor or row), a_zero_point, b, b_scale (per tensor or column), ..., y_scale, y_zero_point."""
    a, b = required(node, 0), required(node, 3)
    left = _dequantize(op, a, required(node, 1), operand(node, 2), axis=len(static_shape(a)) - 2)
    right = _dequantize(op, b, required(node, 4), operand(node, 5), axis=len(static_shape(b)) - 1)
    return [_quantize(op, op.op("MatMul", left, right), required(node, 6), operand(node, 7))]


def _qgemm(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """a, a_scale, a_zero_point, b, b_scale (per tensor or column), b_zero_point, c (int32), y_scale, y_zero_point."""
    a_scale, b, b_scale, c = required(node, 1), required(node, 3), required(node, 4), operand(node, 6)
    left = _dequantize(op, required(node, 0), a_scale, operand(node, 2))
    right = _dequantize(op, b, b_scale, operand(node, 5), axis=0 if attribute(node, "transB", 0) else 1)
    inputs = [left, right]
    if c is not None:
        real = op.op("Cast", c, to=int(ir.DataType.FLOAT))
        scaled = op.op("Mul", real, op.op("Mul", a_scale, b_scale))
        alpha = attribute(node, "alpha", 1.0)
        inputs.append(scaled if alpha == 1.0 else op.op("Mul", scaled, op.const(alpha, np.float32)))
    result = op.op("Gemm", *inputs, **_kept(node, ("alpha", "transA", "transB")))
    y_scale = operand(node, 7)
    return [result if y_scale is None else _quantize(op, result, y_scale, operand(node, 8))]


def _qlinear_binary(op_type: str) -> Rewrite:
    """Return the rewrite of an operator on a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, ..."""

    def rewrite(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
        left = _dequantize(op, required(node, 0), required(node, 1), operand(node, 2))
        right = _dequantize(op, required(node, 3), required(node, 4), operand(node, 5))
        return [_quantize(op, op.op(op_type, left, right), required(node, 6), operand(node, 7))]

    return rewrite


def _qlinear_unary(op_type: str, attributes: Sequence[str] = ()) -> Rewrite:
    """Return the rewrite of an operator on x, x_scale, x_zero_point, y_scale, y_zero_point."""

    def rewrite(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
        if attribute(node, "channels_last", 0):
            raise CannotRewrite("the channels are last")
        real = _dequantize(op, required(node, 0), required(node, 1), operand(node, 2))
        result = op.op(op_type, real, **_kept(node, attributes))
        return [_quantize(op, result, required(node, 3), operand(node, 4))]

    return rewrite


def _qlinear_concat(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """y_scale, y_zero_point, then x, x_scale, x_zero_point of each tensor."""
    parts = [
        _dequantize(op, required(node, index), required(node, index + 1), operand(node, index + 2))
        for index in range(2, len(node.inputs), 3)
    ]
    result = op.op("Concat", *parts, axis=attribute(node, "axis"))
    return [_quantize(op, result, required(node, 0), operand(node, 1))]


def _matmul_integer_to_float(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """a, b, a_scale, b_scale (per tensor or column), a_zero_point, b_zero_point, bias."""
    b, bias = required(node, 1), operand(node, 6)
    left = _dequantize(op, required(node, 0), required(node, 2), operand(node, 4))
    right = _dequantize(op, b, required(node, 3), operand(node, 5), axis=len(static_shape(b)) - 1)
    product = op.op("MatMul", left, right)
    return [product if bias is None else op.op("Add", product, bias)]


def _dynamic_quantize_matmul(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """a (real), b, b_scale (per tensor or column), b_zero_point, bias."""
    b, bias = required(node, 1), operand(node, 4)
    integers, scale, zero_point = op.ops("DynamicQuantizeLinear", required(node, 0), outputs=3)
    left = op.op("DequantizeLinear", integers, scale, zero_point)
    right = _dequantize(op, b, required(node, 2), operand(node, 3), axis=len(static_shape(b)) - 1)
    product = op.op("MatMul", left, right)
    return [product if bias is None else op.op("Add", product, bias)]


def _conv_integer(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """x, w, x_zero_point, w_zero_point (per tensor or output channel); the result is an exact int32."""
    w = required(node, 1)
    products = math.prod(static_shape(w)[1:])
    exact = products * _LARGEST_PRODUCT < _EXACT_IN_FLOAT
    dtype = ir.DataType.FLOAT if exact else ir.DataType.DOUBLE
    x = _centred(op, required(node, 0), operand(node, 2), (), dtype)
    w = _centred(op, w, operand(node, 3), (-1, *[1] * (len(static_shape(w)) - 1)), dtype)
    result = op.op("Conv", x, w, **_kept(node, _CONV_ATTRIBUTES))
    return [op.op("Cast", result, to=int(ir.DataType.INT32))]


def _matmul_integer(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """a, b, a_zero_point, b_zero_point (per tensor or column); the result is an exact int32.

    (a - z) b = (a - 128) b - (z - 128) sum(b), since z, of values quantized at run time, is not known now. Where all
    that read the result convert it to float32, the float32 takes its place: what exceeds 2^24 is rounded anyway.
    """
    a, weights, zero_point = required(node, 0), constant(required(node, 1)), operand(node, 2)
    if weights is None or weights.ndim != 2 or known_dtype(a) != ir.DataType.UINT8:
        raise CannotRewrite("it is no product of uint8 and a constant matrix")
    if zero_point is not None and math.prod(static_shape(zero_point)) != 1:
        raise CannotRewrite("there is a zero point per row")
    offset = 0 if operand(node, 3) is None else constant(operand(node, 3))
    if offset is None:
        raise CannotRewrite("the zero point of the weights is not constant")
    centred = weights.astype(np.int32) - np.asarray(offset, np.int32)
    if centred.min() < -128 or centred.max() > 127:
        raise CannotRewrite("the weights, less their zero point, are not int8")
    output = node.outputs[0]
    real = not output.is_graph_output() and all(_is_cast_to_float(user) for user, _ in output.uses())
    if not real and 2 * _MIDDLE * np.abs(centred).sum(axis=0).max() >= _EXACT_IN_FLOAT:
        raise CannotRewrite("its sums are not exact in float32")

    one, middle = op.const(1, np.float32), op.const(_MIDDLE, np.uint8)
    right = op.op("DequantizeLinear", op.const(centred, np.int8), one, op.const(0, np.int8))
    product = op.op("MatMul", op.op("DequantizeLinear", a, one, middle), right)
    zero = op.const(0, np.float32) if zero_point is None else op.op("Cast", zero_point, to=int(ir.DataType.FLOAT))
    columns = op.const(centred.sum(axis=0), np.float32)
    shift = op.op("Mul", op.op("Sub", zero, op.const(_MIDDLE, np.float32)), columns)
    result = op.op("Sub", product, shift)
    return [result if real else op.op("Cast", result, to=int(ir.DataType.INT32))]


def _is_cast_to_float(node: ir.Node) -> bool:
    return node.op_type == "Cast" and attribute(node, "to") == int(ir.DataType.FLOAT)


def _centred(
    op: Builder, value: ir.Value, zero_point: ir.Value | None, per_channel: Sequence[int], dtype: ir.DataType
) -> ir.Value:
    """Return value - zero_point as `dtype`; a zero point of several elements is reshaped to `per_channel`."""
    real = op.op("Cast", value, to=int(dtype))
    if zero_point is None:
        return real
    sizes = per_channel if math.prod(static_shape(zero_point)) > 1 else ()
    return op.op("Sub", real, op.op("Cast", op.shape_op("Reshape", zero_point, sizes), to=int(dtype)))


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "ConvInteger"): _conv_integer,
    ("", "MatMulInteger"): _matmul_integer,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    (_CONTRIB, "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
    (_CONTRIB, "MatMulIntegerToFloat"): _matmul_integer_to_float,
    (_CONTRIB, "QGemm"): _qgemm,
    (_CONTRIB, "QLinearAdd"): _qlinear_binary("Add"),
    (_CONTRIB, "QLinearAveragePool"): _qlinear_unary("AveragePool", _POOL_ATTRIBUTES),
    (_CONTRIB, "QLinearConcat"): _qlinear_concat,
    (_CONTRIB, "QLinearGlobalAveragePool"): _qlinear_unary("GlobalAveragePool"),
    (_CONTRIB, "QLinearLeakyRelu"): _qlinear_unary("LeakyRelu", ("alpha",)),
    (_CONTRIB, "QLinearMul"): _qlinear_binary("Mul"),
    (_CONTRIB, "QLinearSigmoid"): _qlinear_unary("Sigmoid"),
    (_CONTRIB, "QLinearSoftmax"): _qlinear_unary("Softmax", ("axis",)),
}
