"""What a model's inputs and outputs look like: plain data, shared by the compiler and the runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evo_tvm.errors import UsageError


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor in row-major (NCHW) order.

    `shape` in elements, `dtype` as numpy spells it ("float32", "int64", "bool", ...).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{'x'.join(map(str, self.shape)) or 'scalar'}]"


def batched(specs: Sequence[TensorSpec], batch: int) -> tuple[TensorSpec, ...]:
    """The tensors of `batch` samples. Raises UsageError: one of them does not begin with a batch of 1."""
    if batch == 1:
        return tuple(specs)
    odd = [spec for spec in specs if spec.shape[:1] != (1,)]
    if odd:
        raise UsageError(
            "a batch needs tensors whose first dimension is the batch",
            where=odd[0].name,
            expected="1, of one sample",
            got="x".join(map(str, odd[0].shape)) or "a scalar",
            hint="Give shapes of one sample (--input NAME:1x...), or leave out the batch.",
        )
    return tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)
