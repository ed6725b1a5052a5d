"""What calibration data do to the tensors of a model: the range of each, and the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evo_tvm.errors import ModelError
from evo_tvm.quantize.observers import Observer
from evo_tvm.quantize.params import Array


@dataclass
class Mean:
    """The mean of a tensor over the runs, element by element, in float64."""

    total: Array | float = 0.0
    count: int = 0

    def add(self, values: Array) -> None:
        """See one run."""
        self.total = self.total + values.astype(np.float64)
        self.count += 1

    @property
    def value(self) -> Array:
        """The mean, float32."""
        return np.asarray(self.total / max(self.count, 1), np.float32)


def check_finite(values: Array, name: str) -> None:
    """Refuse values that have no range. Raises ModelError."""
    if not np.isfinite(values).all():
        kind = "NaN" if np.isnan(values).any() else "infinity"
        raise ModelError(
            f"the float model computes {kind} from the calibration data",
            where=f"tensor '{name}'",
            hint="Are the data normalised as the model expects it?",
        )


def observe(found: dict[str, Array], observers: dict[str, Observer], means: dict[str, Mean]) -> None:
    """Show the values of one run, by name, to what watches them. Raises ModelError: they are not finite."""
    for name, values in found.items():
        check_finite(values, name)
        if name in observers:
            observers[name].add(values)
        if name in means:
            means[name].add(values)


def names_of(*groups: Sequence[str]) -> list[str]:
    """All names, each once, in order."""
    return list(dict.fromkeys(name for group in groups for name in group))
