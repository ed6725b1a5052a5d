"""How well the drop of a score is known, from the same samples under both models; and what others will show."""

from __future__ import annotations

import math

import numpy as np

from evo_tvm.quantize.params import Array

#: How often such intervals hold the true drop.
CONFIDENCE = 0.95
#: The 97.5 % quantile of the normal distribution.
_Z = 1.959963984540054


def paired_interval(differences: Array, right_or_wrong: bool) -> tuple[float, float]:
    """The 95 % confidence interval of the mean of `differences`: each sample's score in float less that in int8.

    differences: float64[samples]. right_or_wrong: they are of samples that are right (1) or wrong (0), so -1, 0 or 1.
    These get the interval of Agresti and Min ("Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 2005): Wald's, with half a sample added to each cell of the two-by-two table of McNemar's
    test, so that it has a width where the models differ in no sample. Others get the normal approximation, mean
    +- z s / sqrt(samples), with s the standard deviation of the differences; infinite for a single sample.
    """
    samples, total, squares = len(differences), float(differences.sum()), float(np.square(differences).sum())
    if right_or_wrong:
        samples, squares = samples + 2, squares + 1  # of the cells, two differ: by 1 and by -1
        mean = total / samples
        variance = squares / samples - mean**2
    else:
        mean = total / samples
        variance = float(np.var(differences, ddof=1)) if samples > 1 else math.inf
    return _around(mean, _Z * math.sqrt(variance / samples), right_or_wrong)


def of_other_samples(differences: Array, right_or_wrong: bool) -> tuple[float, float]:
    """The 95 % interval for the mean over as many other samples of the kind: what a test that comes later shows.

    Their own chance adds as much variance as that of `differences` has, so it is sqrt(2) times as wide as
    `paired_interval`: a prediction interval (Hahn and Meeker, "Statistical Intervals", 1991).
    """
    low, high = paired_interval(differences, right_or_wrong)
    if math.isinf(low) or math.isinf(high):
        return low, high
    return _around((low + high) / 2, math.sqrt(2) * (high - low) / 2, right_or_wrong)


def _around(mean: float, half: float, right_or_wrong: bool) -> tuple[float, float]:
    low, high = mean - half, mean + half
    return (max(low, -1.0), min(high, 1.0)) if right_or_wrong else (low, high)
