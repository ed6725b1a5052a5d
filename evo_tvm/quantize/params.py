"""Scales and zero points: `real = scale * (integer - zero_point)` (Jacob et al., CVPR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

#: Least and largest integer of each type. Symmetric weights leave -128 out, so that a range and its negative are equal.
LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "int32": (-(2**31), 2**31 - 1)}
#: The smallest scale: a normal float32, of which the reciprocal is finite.
_SMALLEST_SCALE = 1e-37


@dataclass(frozen=True)
class Range:
    """What a tensor's values span; it always includes zero, which padding and ReLU need exactly."""

    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", min(float(self.low), 0.0))
        object.__setattr__(self, "high", max(float(self.high), 0.0))

    def __or__(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Scheme:
    """How activations are quantized. dtype: "uint8" or "int8". symmetric: real zero is the middle of the integers."""

    dtype: str = "uint8"
    symmetric: bool = False

    def params(self, span: Range) -> QuantParams:
        """The parameters of one tensor with these values.

        Symmetric uint8 has the zero point 128, or 0 where no value is negative (Nagel et al., 2021, section 2.2.2).
        The range of a tensor that is always zero gives the scale 1.
        """
        least, largest = LIMITS[self.dtype]
        if self.symmetric and not (self.dtype == "uint8" and span.low == 0):
            middle = 128 if self.dtype == "uint8" else 0
            scale = max(-span.low, span.high) / (largest - middle)
            return _params(scale, middle, self.dtype)
        scale = max((span.high - span.low) / (largest - least), _SMALLEST_SCALE)
        zero_point = int(np.clip(np.rint(least - span.low / scale), least, largest))
        # Rounding moved zero: the scale grows until both ends fit again; an end on which zero lies now is cut off.
        ends = [span.high / (largest - zero_point)] if zero_point < largest else []
        ends += [span.low / (least - zero_point)] if zero_point > least else []
        return _params(max(ends, default=0.0), zero_point, self.dtype)


@dataclass(frozen=True, eq=False)
class QuantParams:
    """scale: float32, and zero_point: integers of type `dtype`; both of shape (), or (channels,) along `axis`."""

    scale: Array
    zero_point: Array
    dtype: str
    axis: int | None = None

    def quantize(self, values: Array) -> Array:
        """round(values / scale) + zero_point, ties to even, clipped to the integers of `dtype`; as ONNX does it."""
        scale, zero_point = self._along(values.ndim)
        least, largest = LIMITS[self.dtype]
        found: Array = np.rint(values / scale.astype(values.dtype)) + zero_point
        return np.clip(found, least, largest).astype(self.dtype)

    def dequantize(self, integers: Array) -> Array:
        """scale * (integers - zero_point), float32."""
        scale, zero_point = self._along(integers.ndim)
        return ((integers.astype(np.int64) - zero_point) * scale).astype(np.float32)

    def round_trip(self, values: Array) -> Array:
        """What is left of `values`: dequantize(quantize(values))."""
        return self.dequantize(self.quantize(values))

    def _along(self, ndim: int) -> tuple[Array, Array]:
        if self.axis is None:
            return self.scale, self.zero_point.astype(np.int64)
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.astype(np.int64).reshape(shape)


def weight_params(weights: Array, axis: int | None) -> QuantParams:
    """Symmetric int8 in [-127, 127]: one scale for each index along `axis`, or one for all where it is None."""
    if weights.size == 0:
        largest = np.zeros(() if axis is None else weights.shape[axis])
    elif axis is None:
        largest = np.abs(weights).max()
    else:
        largest = np.abs(weights).max(axis=tuple(a for a in range(weights.ndim) if a != axis))
    return symmetric_params(np.asarray(largest, np.float64) / 127, axis, "int8")


def symmetric_params(scale: Array, axis: int | None, dtype: str) -> QuantParams:
    """Parameters with zero point 0; a scale of zero, all its values being zero, becomes 1."""
    safe = np.where(scale > 0, np.maximum(scale, _SMALLEST_SCALE), 1.0).astype(np.float32)
    return QuantParams(safe, np.zeros(safe.shape, dtype), dtype, axis)


def _params(scale: float, zero_point: int, dtype: str) -> QuantParams:
    safe = max(scale, _SMALLEST_SCALE) if scale > 0 else 1.0
    return QuantParams(np.asarray(safe, np.float32), np.asarray(zero_point, dtype), dtype)
