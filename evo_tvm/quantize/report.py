"""How much each layer loses to quantization: plain data, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerError:
    """SQNR in dB of what leaves a layer: 10 log10(sum of squares / sum of squared errors); infinite without error.

    own_db: with this layer alone quantized: its inputs, weights and output, all before it in float.
    accumulated_db: in the quantized model, where what comes in is wrong already.
    """

    name: str
    operator: str
    own_db: float
    accumulated_db: float


@dataclass(frozen=True)
class QuantizeReport:
    """layers: in the order of the graph. left: nodes that stay in float -> why.

    outputs_db: SQNR of each output of the quantized model against the float model that was given. calibration_samples,
    measured_samples: runs of the model that found the ranges, and that these errors were measured over. equalized:
    pairs of layers. options: as given.
    """

    layers: tuple[LayerError, ...]
    left: Mapping[str, str]
    outputs_db: Mapping[str, float]
    calibration_samples: int
    measured_samples: int
    equalized: int
    options: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The report in what JSON has: an infinite ratio, of what has no error, becomes None."""
        return {name: finite(value) for name, value in asdict(self).items()}


def finite(value: Any) -> Any:
    """`value` in what JSON has: tuples become lists, infinities None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and math.isinf(value) else value
