"""Numpy arrays on their way in and out of a compiled model: checked, aligned, copied only where they must be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evo_tvm.errors import InputError
from evo_tvm.spec import TensorSpec

#: Compiled code takes for granted that every tensor begins at a multiple of this many bytes.
ALIGNMENT = 64

Array = NDArray[Any]


def address(array: Array) -> int:
    """Where the array's data begins."""
    return int(array.__array_interface__["data"][0])


def aligned_bytes(size_bytes: int) -> Array:
    """`size_bytes` fresh bytes (at least one), uninitialised, at an aligned address."""
    raw = np.empty(max(size_bytes, 1) + ALIGNMENT, np.uint8)
    start = -address(raw) % ALIGNMENT
    return raw[start : start + max(size_bytes, 1)]


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A fresh C-contiguous array, uninitialised, at an aligned address."""
    return np.ndarray(shape, dtype, aligned_bytes(math.prod(shape) * dtype.itemsize))


def dtype_of(spec: TensorSpec) -> np.dtype[Any]:
    """Numpy's dtype of a tensor of the model. Raises InputError: this numpy does not know it."""
    try:
        return np.dtype(spec.dtype)
    except TypeError:
        pass
    try:  # bfloat16, float8_* and the like: numpy knows them once this is imported
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, spec.dtype))
        return found
    except (ImportError, AttributeError):
        raise InputError(
            f"numpy has no dtype {spec.dtype}", where=spec.name, hint="Run: pip install ml_dtypes"
        ) from None


def arbitrary_values(specs: Iterable[TensorSpec]) -> list[Array]:
    """What to measure with where nothing is given: normal random numbers (float) or zeros (all other dtypes)."""
    random = np.random.default_rng(0)
    values = []
    for spec in specs:
        array = aligned_empty(spec.shape, dtype_of(spec))
        array[...] = random.standard_normal(spec.shape) if np.issubdtype(array.dtype, np.floating) else 0
        values.append(array)
    return values


def in_order(inputs: Mapping[str, object], specs: Sequence[TensorSpec]) -> list[object]:
    """Inputs by name in the order of `specs`. Raises InputError: a name is missing, or the model does not have it."""
    names = [spec.name for spec in specs]
    for what, some, others in (("unknown", inputs, names), ("missing", names, inputs)):
        odd = [name for name in some if name not in others]
        if odd:
            raise InputError(
                f"{what} input{'s'[: len(odd) > 1]} {', '.join(map(repr, odd))}",
                expected=", ".join(names) or "no inputs",
                got=", ".join(map(str, inputs)) or "none",
            )
    return [inputs[name] for name in names]


class OutputSlot:
    """One output of a Module: makes the arrays that it is written to."""

    def __init__(self, spec: TensorSpec) -> None:
        self.dtype = dtype_of(spec)
        self.size_bytes = self.dtype.itemsize * spec.size
        self._shape = spec.shape

    def make(self) -> tuple[Array, int]:
        """A fresh aligned array, and its address. On the way of every call: as few steps as numpy allows."""
        raw = np.empty(self.size_bytes + ALIGNMENT, np.uint8)
        begin = raw.__array_interface__["data"][0]
        offset = -begin % ALIGNMENT
        return np.ndarray(self._shape, self.dtype, raw, offset), begin + offset


class InputSlot:
    """One input of a Module, and the aligned buffer that it keeps for arrays that cannot be used where they are."""

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.dtype = dtype_of(spec)
        self.size_bytes = self.dtype.itemsize * spec.size
        self._buffer: Array | None = None

    def take(self, value: object) -> tuple[Array, int]:
        """`value` as an array that the model can read, and its address: `value` itself where it is C-contiguous and
        aligned, else a copy. Raises InputError: not an array, or another shape or dtype.
        """
        array = value if type(value) is np.ndarray else self._as_array(value)
        if array.dtype != self.dtype:
            raise self._wrong_dtype(array)
        if array.shape != self.spec.shape:
            raise InputError(
                "wrong shape", where=self._where(), expected=_shape(self.spec.shape), got=_shape(array.shape)
            )
        begin = address(array)
        if array.flags.c_contiguous and begin % ALIGNMENT == 0:
            return array, begin
        if self._buffer is None:
            self._buffer = aligned_empty(self.spec.shape, self.dtype)
        np.copyto(self._buffer, array)
        return self._buffer, address(self._buffer)

    def _where(self) -> str:
        return f"input {self.spec.name!r}"

    def _as_array(self, value: object) -> Array:
        """Through DLPack where that shares memory, else through __array__."""
        if isinstance(value, np.ndarray):
            return np.asarray(value)  # a subclass: its data as a plain array
        reason = f"expected a numpy array, or an object with __dlpack__ or __array__, got {type(value).__name__}"
        if hasattr(value, "__dlpack__"):
            try:
                return np.from_dlpack(value)
            except (BufferError, RuntimeError, TypeError, ValueError) as error:
                reason = f"numpy cannot take this {type(value).__name__} through DLPack: {error}"
        if hasattr(value, "__array__"):
            try:
                return np.asarray(value)
            except (RuntimeError, TypeError, ValueError) as error:
                reason = f"this {type(value).__name__} does not convert to a numpy array: {error}"
        raise InputError(reason, where=self._where(), hint=f"Give it as numpy.asarray(x, dtype={self.spec.dtype!r}).")

    def _wrong_dtype(self, array: Array) -> InputError:
        return InputError(
            "wrong dtype",
            where=self._where(),
            expected=self.spec.dtype,
            got=array.dtype.name if array.dtype.isnative else array.dtype.str,
            hint=f"Nothing is converted silently; convert it yourself: x.astype({self.spec.dtype!r})",
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "a scalar (shape ())"
