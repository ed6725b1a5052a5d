"""Hours of measuring in which the machine was slower than it can be.

On a machine that others share memory may be slower for hours. Fixed arithmetic beside each measurement does not show
it, and of a single kernel nothing can; but all large kernels of such an hour took longer than what other hours teach.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from evo_tvm.predict.features import FEATURE_NAMES
from evo_tvm.predict.train import Examples, fit, part_of, predict_rows

#: Kernels that take so many milliseconds use more than the caches of a core.
_LARGE_MS = 0.1
#: Surely so much longer than in the quickest hour, and an hour counts as disturbed.
_LONGER = 0.05
#: Standard errors of a middle within which it surely lies.
_SURE = 2.0
#: Workloads of an hour that can be judged, and of one that others are held against.
_LEAST, _MANY = 5, 30
_ROUNDS, _PARTS = 150, 2


def disturbed_hours(examples: Examples) -> dict[str, float]:
    """Hours in which large kernels took longer than in the quickest hour, all other things being equal: how much, as a
    share. Only what was measured with a steady clock, on one thread, is looked at; counted instructions never are."""
    if examples.metric != "time":
        return {}
    lengths = _lengths(examples)
    known = {hour: each for hour, each in lengths.items() if hour and len(each) >= _LEAST}
    quickest = min((float(np.median(each)) for each in known.values() if len(each) >= _MANY), default=np.inf)
    found = {}
    for hour, each in known.items():
        longer = float(np.median(each)) - quickest
        if longer - _SURE * _standard_error(each) > _LONGER:
            found[hour] = float(np.expm1(longer))
    return found


def calm(examples: Examples, disturbed: Collection[str] | None = None) -> Examples:
    """Those that were not measured in disturbed hours. disturbed: these hours, where they are known already."""
    disturbed = disturbed_hours(examples) if disturbed is None else disturbed
    return examples.take(is_calm(examples, disturbed))


def is_calm(examples: Examples, disturbed: Collection[str]) -> np.ndarray:
    """Which were not measured in these hours, a mask."""
    return np.array([hour not in disturbed for hour in examples.hours])


def _standard_error(lengths: np.ndarray) -> float:
    """Of their median, were they normal; their spread as by the median of how far they are from it."""
    deviation = 1.4826 * float(np.median(np.abs(lengths - np.median(lengths))))
    return 1.2533 * deviation / math.sqrt(len(lengths))


def _lengths(examples: Examples) -> dict[str, np.ndarray]:
    """Of each hour, for each of its workloads the logarithm of measured over predicted, the middle of all of them.

    Each workload is predicted from others.
    """
    alone = examples.rows[:, FEATURE_NAMES.index("threads")] == 1
    some = examples.take(examples.steady & alone & (examples.values >= _LARGE_MS))
    part = part_of(some.keys, _PARTS)
    if len(set(part.tolist())) < _PARTS:
        return {}
    longer = np.zeros(len(some))
    for number in range(_PARTS):
        ours = part == number
        longer[ours] = (some.logarithms - predict_rows(fit(some.take(~ours), _ROUNDS, 0), some.rows))[ours]
    found: dict[str, dict[str, list[float]]] = {}
    for hour, key, value in zip(some.hours, some.keys, longer.tolist(), strict=True):
        found.setdefault(hour, {}).setdefault(key, []).append(value)
    return {hour: np.array([np.median(values) for values in each.values()]) for hour, each in found.items()}
