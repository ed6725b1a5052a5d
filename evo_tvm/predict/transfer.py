"""A predictor for another target, or another situation, from few measurements there.

What was learnt elsewhere is the starting point: its features are ratios to what a target can do. A line through it and
through the bound of the cycles is fitted to the new measurements, with an offset for each kind of kernel, and few small
trees correct the rest (Pan and Yang, "A Survey on Transfer Learning", TKDE 2010: transfer of parameters).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evo_tvm.predict.model import Correction, Predictor, base_of, booster_text
from evo_tvm.predict.train import Examples, calibrated, centre_of, centre_of_sums, part_of, sizes_of

#: Of XGBoost, for some hundred measurements.
PARAMETERS: Mapping[str, Any] = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "max_depth": 4,
    "eta": 0.05,
    "min_child_weight": 3.0,
    "subsample": 0.8,
    "colsample_bytree": 0.4,
    "lambda": 3.0,
}
ROUNDS = 200
PARTS = 4
#: Measurements that an offset of one kind has to outweigh.
_SHRINK = 4.0


def transfer(
    source: Predictor, examples: Examples, name: str, rounds: int = ROUNDS, for_sums: bool = False
) -> Predictor:
    """What predicts `examples`' target, starting from `source`. name: of the target in the logs.

    for_sums: predictions are right on the whole, as the time of a model needs it, rather than each for itself.
    """
    part = part_of(examples.keys, PARTS)
    predicted = np.zeros((PARTS, len(examples)))
    corrections = []
    for number in range(PARTS):
        inside = part != number if len(set(examples.keys)) > PARTS else np.full(len(examples), True)
        corrections.append(_correct(source, examples.take(inside), rounds, number))
        made = replace(source, source=source, corrections=(corrections[-1],), boosters=(), networks=(), centre=0.0)
        predicted[number], _ = made.logarithms(examples.rows, examples.kinds)
    errors = predicted[part, np.arange(len(examples))] - examples.logarithms
    centre = centre_of_sums(errors, examples.values) if for_sums else centre_of(errors)
    floor, widening = calibrated(np.abs(errors - centre), predicted.std(axis=0))
    return replace(
        source,
        target=name,
        metric=examples.metric,
        threads=examples.threads,
        kinds=dict(examples.revisions),
        known=examples.known,
        boosters=(),
        networks=(),
        source=source,
        corrections=tuple(corrections),
        floor=floor,
        widening=widening,
        centre=centre,
    )


def _correct(source: Predictor, examples: Examples, rounds: int, seed: int) -> Correction:
    import xgboost

    start, _ = source.logarithms(examples.rows, examples.kinds)
    bound = base_of(examples.rows)
    weights = 1 / sizes_of(examples.keys)
    share, level = _line(start - bound, examples.logarithms - bound, weights)
    left = examples.logarithms - bound - share * (start - bound) - level
    kinds = np.array(examples.kinds)
    offsets = {}
    for kind in sorted(set(examples.kinds)):
        chosen = kinds == kind
        offsets[kind] = float((left * weights)[chosen].sum() / (weights[chosen].sum() + _SHRINK))
        left[chosen] -= offsets[kind]
    rows = np.column_stack([examples.rows, start - bound])
    data = xgboost.DMatrix(rows, left, weight=weights)
    booster = xgboost.train({**PARAMETERS, "seed": seed, "nthread": 1}, data, rounds)
    return Correction(share, level, offsets, booster_text(booster))


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """(share, level) for which share * x + level is nearest to y; share is 0, where nothing carries over, to 1.2."""
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    spread = float(np.average((x - mean_x) ** 2, weights=weights))
    share = float(np.average((x - mean_x) * (y - mean_y), weights=weights)) / spread if spread > 0 else 0.0
    share = min(max(share, 0.0), 1.2)
    return share, float(mean_y - share * mean_x)
