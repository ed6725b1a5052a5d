"""Inputs for measurements: random but repeatable, of the dtypes and shapes that a model declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evo_tvm.spec import TensorSpec

Array = npt.NDArray[Any]


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> dict[str, Array]:
    """One array for each spec: floats uniform in [0, 1) as images are, integers 0 or 1 (small enough to be indices).

    Each input has a generator of its own, so that its values do not depend on the other inputs.
    """
    inputs = {}
    for number, spec in enumerate(specs):
        rng = np.random.default_rng([seed, number])
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            value: Array = np.asarray(rng.random(spec.shape, dtype=np.float32))
        else:
            value = np.asarray(rng.integers(0, 2, spec.shape))
        inputs[spec.name] = value.astype(dtype)
    return inputs
