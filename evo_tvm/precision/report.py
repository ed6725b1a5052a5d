"""Why a model that may be in float, in integers or in both is what it is: plain data, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evo_tvm.quantize.report import finite


@dataclass(frozen=True)
class LayerPrecision:
    """A layer that could be in integers, and what it is in the form that was taken: "fp32" or "int8".

    float_ms, int8_ms: of its kernel in either; float_ms is None where in float it is part of another layer's kernel.
    """

    layer: str
    precision: str
    float_ms: float | None
    int8_ms: float


@dataclass(frozen=True)
class Form:
    """One way to compute the model. turns_ms: the shortest run of each turn, all forms in turn.

    float_layers: of those that could be in integers. outputs_db: SQNR of its worst output against "fp32"; None where
    it was not run. refused: why it could not be taken, or "".
    """

    name: str
    float_layers: int
    turns_ms: tuple[float, ...]
    outputs_db: float | None
    refused: str = ""

    @property
    def latency_ms(self) -> float:
        """Of the fastest run."""
        return min(self.turns_ms)


@dataclass(frozen=True)
class PrecisionReport:
    """chosen: the name of a form. source: "measured" on this machine; "predicted", for another or as was
    asked for; or "estimated", where there is no predictor.

    forms: "fp32" and "int8" are the pure ones, as `--precision` gives them; "fused" is "int8" without the roundings in
    the middle of kernels; each "mixed" has layers in float besides. layers: in the order of the model.
    """

    chosen: str
    reason: str
    source: str
    forms: tuple[Form, ...]
    layers: tuple[LayerPrecision, ...]

    def as_json(self) -> dict[str, Any]:
        """In what JSON has: an infinite ratio, of what has no error, becomes None."""
        found: Mapping[str, Any] = finite(asdict(self))
        forms = [
            {**shown, "latency_ms": form.latency_ms} for shown, form in zip(found["forms"], self.forms, strict=True)
        ]
        return {**found, "forms": forms}
