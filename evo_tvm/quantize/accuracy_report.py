"""What accuracy control found and did: plain data, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evo_tvm.quantize.report import finite


@dataclass(frozen=True)
class GivenLayer:
    """A layer that can be in integers: the SQNR in dB of its output with it alone quantized, and where it ended."""

    name: str
    operator: str
    own_db: float
    given_back: bool


@dataclass(frozen=True)
class Trial:
    """A model that was measured: how many layers it had back in float, its score, and how far below float's that is."""

    given_back: int
    score: float
    drop: float


@dataclass(frozen=True)
class AccuracyReport:
    """metric, max_drop: what was asked for. samples: how many scores a model has.

    float_score, score: means, of the float model and of the result. drop: the first less the second. interval: where
    the drop over as many other samples lies with 95 % confidence, see `of_other_samples`; it does not know that the
    result was chosen on these. worse, better: samples with a lower, a higher score than in float. layers: all, those
    with the largest errors first. trials: in the order in which they were made.
    """

    metric: str
    max_drop: float
    samples: int
    float_score: float
    score: float
    drop: float
    interval: tuple[float, float]
    worse: int
    better: int
    layers: tuple[GivenLayer, ...]
    trials: tuple[Trial, ...]

    @property
    def given_back(self) -> tuple[str, ...]:
        """Names of the layers that were given back to float, the one with the largest error first."""
        return tuple(layer.name for layer in self.layers if layer.given_back)

    def as_json(self) -> dict[str, Any]:
        """The report in what JSON has: infinities become None."""
        return dict(finite({**asdict(self), "given_back": self.given_back}))
