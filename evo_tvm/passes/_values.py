"""Constants as numpy, shapes as tuples of int, and channels: what the rules of the passes ask of expressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.ir import Call, Expr, GenericConst, Op

#: What numpy has; constants of other dtypes (bfloat16, int4, ...) are left alone.
_NUMPY_DTYPES = frozenset(
    ["bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)

#: Transposed matrices are copied in blocks of this many rows and columns, thrice as fast as row by row.
_BLOCK = (256, 64)

#: The operator name of an item of a tuple.
TUPLE_ITEM = "tuple_get_item"

#: Operators whose results are at least zero.
_NEVER_NEGATIVE = ("relax.nn.relu", "relax.sigmoid", "relax.nn.softmax", "relax.exp", "relax.abs")

Array = npt.NDArray[Any]

#: Names by the address of the operator's object, which lives as long as TVM does: reading one takes microseconds.
_operator_names: dict[int, str] = {}


def operator_name(value: Expr) -> str:
    """What rules name as their root: "relax.add" for such a call, "tuple_get_item" for an item, "" for all else."""
    if isinstance(value, Call):
        callee = value.op
        name = _operator_names.get(hash(callee))
        if name is None and isinstance(callee, Op):
            name = _operator_names[hash(callee)] = str(callee.name)
        return name or ""
    return TUPLE_ITEM if isinstance(value, relax.TupleGetItem) else ""


def shape_of(expr: Expr) -> tuple[int, ...] | None:
    """The shape of a tensor; None where it is not a tensor or a dimension is not a number."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    dims = ty.shape.values[:]
    return tuple(int(dim.value) for dim in dims) if all(type(dim) is tvm.tirx.IntImm for dim in dims) else None


def dtype_of(expr: Expr) -> str:
    """The dtype of a tensor as numpy spells it; "" for all else."""
    return str(expr.ty.dtype) if isinstance(expr.ty, relax.TensorType) else ""


def in_numpy(dtype: str) -> bool:
    """Whether numpy has this dtype."""
    return dtype in _NUMPY_DTYPES


def is_float(dtype: str) -> bool:
    """Whether numbers of this dtype are rounded."""
    return dtype.startswith("float")


def same_type(a: Expr, b: Expr) -> bool:
    """Whether two tensors have equal, static shapes and equal dtypes."""
    return shape_of(a) is not None and shape_of(a) == shape_of(b) and dtype_of(a) == dtype_of(b)


def is_constant(expr: Expr) -> bool:
    """Whether `expr` is a constant tensor that numpy can hold."""
    return isinstance(expr, GenericConst) and in_numpy(dtype_of(expr))


def array_of(expr: Expr) -> Array | None:
    """The values of a constant tensor, read-only and not copied; None where `expr` is none."""
    if not is_constant(expr):
        return None
    array: Array = expr.value.numpy() if dtype_of(expr) == "bool" else np.from_dlpack(expr.value)
    array.flags.writeable = False
    return array


def values_of(expr: Expr) -> Array:
    """The same for what is known to be a constant."""
    array = array_of(expr)
    assert array is not None, "not a constant"
    return array


def scalar_of(expr: Expr) -> float | int | bool | None:
    """The one value that all elements of a constant tensor have; None where they differ or `expr` is no constant."""
    array = array_of(expr)
    if array is None or array.size == 0:
        return None
    first = array.reshape(-1)[0]
    value: float | int | bool = first.item()
    return value if array.size == 1 or bool((array == first).all()) else None


def constant(array: Array | float | int, dtype: str | None = None) -> GenericConst:
    """A constant tensor with a copy of `array`, as `dtype` (default: its own)."""
    values = np.asarray(array)
    dtype = str(values.dtype) if dtype is None else dtype
    if dtype == "bool":  # DLPack has it, TVM's tensors do not hand it out
        return relax.const(values, dtype)
    target, result = empty_constant(values.shape, dtype)
    if values.ndim == 2 and values.size > _BLOCK[0] * _BLOCK[1] and values.strides[0] < values.strides[1]:
        for row in range(0, values.shape[0], _BLOCK[0]):
            for column in range(0, values.shape[1], _BLOCK[1]):
                block = slice(row, row + _BLOCK[0]), slice(column, column + _BLOCK[1])
                target[block] = values[block]
    else:
        np.copyto(target, values, casting="unsafe")
    return result


def empty_constant(shape: Sequence[int], dtype: str) -> tuple[Array, GenericConst]:
    """A constant whose values are still to be written, through the array that shares its memory."""
    tensor = tvm.runtime.empty(tuple(shape), dtype)
    return np.from_dlpack(tensor), GenericConst(tensor, relax.TensorType(list(shape), dtype))


def channel_vector(expr: Expr, shape: Sequence[int], axis: int) -> Array | None:
    """`expr` as one float64 value a channel, shape `(shape[axis],)`.

    That is where it is a floating constant which, broadcast against a tensor of `shape`, differs along `axis` only and
    does not make the tensor larger; else None.
    """
    array = array_of(expr) if is_float(dtype_of(expr)) else None
    if array is None or array.ndim > len(shape):
        return None
    dims = (1,) * (len(shape) - array.ndim) + array.shape
    if any(dim != 1 and (place != axis or dim != shape[axis]) for place, dim in enumerate(dims)):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (shape[axis],))


def along(vector: Array, rank: int, axis: int, dtype: str) -> GenericConst:
    """A vector of one value a channel as a constant that broadcasts along `axis` of a tensor of `rank`.

    Shape `(C,)` where the channels are the last axis, `(1, C, 1, ...)` elsewhere.
    """
    if axis == rank - 1:
        return constant(vector, dtype)
    return constant(vector.reshape([-1 if place == axis else 1 for place in range(rank)]), dtype)


def bytes_of(shape: Sequence[int], dtype: str) -> int:
    """Size of a tensor in bytes."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def is_never_negative(call: Call | None) -> bool:
    """Whether every element that `call` gives is at least zero."""
    name = "" if call is None else operator_name(call)
    return name in _NEVER_NEGATIVE or (call is not None and name == "relax.clip" and float(call.args[1].value) >= 0)
