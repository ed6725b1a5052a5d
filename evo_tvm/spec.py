"""What a model's inputs and outputs look like: plain data, shared by the compiler and the runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
