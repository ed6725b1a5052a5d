"""What accuracy control must keep, and on which samples. Imports no compiler."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from evo_tvm.errors import UsageError
from evo_tvm.quantize.calibration_data import CalibrationSource
from evo_tvm.quantize.params import Array

#: What is measured; see `AccuracyGoal`.
METRICS = ("accuracy", "agreement", "cosine")
#: A label for each sample: integers in memory, an `.npy`, or an `.npz` with the array `labels` or but one array.
LabelSource: TypeAlias = "str | os.PathLike[str] | Sequence[int] | Array"


@dataclass(frozen=True, eq=False)
class AccuracyGoal:
    """Layers are given back to float until the score is at most `max_drop` below that of the float model.

    max_drop: in [0, 1]; 0.005 is half a point of accuracy. metric: "accuracy", the share of samples whose highest
    score is that of their label; "agreement", the share whose highest score is that of the float model; "cosine", the
    mean cosine similarity of the outputs and the float model's. The first two look at the first output. None takes
    accuracy where there are labels, else agreement where the only output has scores of classes, else cosine. data:
    samples that were held back, as `open_calibration` takes them; the calibration data where it is None. labels: of
    these samples; where it is None, the array `labels` that an `.npz` has beside the inputs.

    Raises UsageError: a value that cannot be.
    """

    max_drop: float
    metric: str | None = None
    data: CalibrationSource | None = None
    labels: LabelSource | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise UsageError(
                "not a drop that can be allowed",
                where="max_drop",
                expected="0 to 1: 0.005 is half a point",
                got=self.max_drop,
            )
        if self.metric not in (None, *METRICS):
            raise UsageError("unknown metric", where="metric", expected=" or ".join(METRICS), got=self.metric)
        if self.labels is not None and self.metric not in (None, "accuracy"):
            raise UsageError(f"labels are for the metric accuracy, not {self.metric}", where="labels")
