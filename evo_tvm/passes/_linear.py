"""Operators that are linear in a constant weight, with one slice of it for each output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.ir import Call, Expr, GenericConst

from evo_tvm.passes._rewrite import Graph, operator_name, retyped
from evo_tvm.passes._values import Array, dtype_of, empty_constant, is_constant, is_float, shape_of, values_of

#: Layouts that the passes understand: (data and output, kernel).
_LAYOUTS = {
    "relax.nn.conv1d": ("NCW", "OIW"),
    "relax.nn.conv2d": ("NCHW", "OIHW"),
    "relax.nn.conv3d": ("NCDHW", "OIDHW"),
    "relax.nn.conv1d_transpose": ("NCW", "IOW"),
    "relax.nn.conv2d_transpose": ("NCHW", "IOHW"),
    "relax.nn.conv3d_transpose": ("NCDHW", "IODHW"),
}

LINEAR = (*_LAYOUTS, "relax.matmul")


@dataclass(frozen=True)
class Linear:
    """A convolution or matrix product with a constant weight.

    `channels` output channels lie along `axis` of the output, whose shape is `shape`; `name` is the variable's.
    """

    call: Call
    name: str
    shape: tuple[int, ...]
    axis: int

    @property
    def channels(self) -> int:
        """How many output channels it has."""
        return self.shape[self.axis]

    @property
    def dtype(self) -> str:
        """Of the output."""
        return dtype_of(self.call)

    def scaled(self, scale: Array) -> Call:
        """The same operator with output channel c multiplied by `scale[c]` (float64, in the weight)."""
        return retyped(self.call, [self.call.args[0], scaled_weight(self.call, scale)])


def linear(graph: Graph, expr: Expr) -> Linear | None:
    """`expr` as the output of a linear operator in a known layout with a floating constant weight, else None."""
    call = graph.producer(expr, *LINEAR)
    return None if call is None else linear_call(call, str(expr.name))


def linear_call(call: Call, name: str) -> Linear | None:
    """The same for the call itself, whose result is (to be) called `name`."""
    shape, dtype = shape_of(call), dtype_of(call)
    if shape is None or not is_constant(call.args[1]) or dtype_of(call.args[1]) != dtype or not is_float(dtype):
        return None
    layouts = _LAYOUTS.get(operator_name(call))
    if layouts is None:
        weight = shape_of(call.args[1])
        return Linear(call, name, shape, len(shape) - 1) if weight is not None and len(weight) >= 2 else None
    attrs = call.attrs
    if (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) != (layouts[0], layouts[1], layouts[0]):
        return None
    return Linear(call, name, shape, 1)


def scaled_weight(call: Call, scale: Array) -> GenericConst:
    """The weight of a linear operator with its slice for output channel c multiplied by `scale[c]`."""
    weight = values_of(call.args[1])
    name = operator_name(call)
    if name == "relax.matmul":
        return _product(weight, scale)
    if not name.endswith("_transpose"):
        return _product(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))
    groups = int(call.attrs.groups)
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, *kernel)
    return _product(grouped, scale.reshape(groups, 1, outputs, *[1] * len(kernel)), weight.shape)


def scaled_weight_inputs(call: Call, scale: Array) -> GenericConst:
    """The weight of a convolution or matrix product with its slice for input channel c multiplied by `scale[c]`."""
    weight = values_of(call.args[1])
    if operator_name(call) == "relax.matmul":
        return _product(weight, scale.reshape(-1, 1))
    groups = int(call.attrs.groups)
    outputs, inputs, *kernel = weight.shape
    grouped = weight.reshape(groups, outputs // groups, inputs, *kernel)
    return _product(grouped, scale.reshape(groups, 1, inputs, *[1] * len(kernel)), weight.shape)


def _product(weight: Array, scale: Array, shape: tuple[int, ...] | None = None) -> GenericConst:
    """`weight * scale`, computed straight into the memory of the new constant: pages are touched once."""
    target, result = empty_constant(weight.shape if shape is None else shape, str(weight.dtype))
    np.multiply(weight, scale.astype(weight.dtype), out=target.reshape(weight.shape))
    return result
