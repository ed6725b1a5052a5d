"""How good predictions are: errors on workloads and families of networks that were left out of training."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from evo_tvm.predict.features import FEATURE_NAMES
from evo_tvm.predict.model import Predictor
from evo_tvm.predict.train import Examples, part_of, train

#: What counts as right.
_NEAR = 0.10
#: Kernels are told apart by these microseconds.
_SIZES_US = (0.0, 8.0, 32.0, 128.0, 512.0, math.inf)


@dataclass(frozen=True)
class Errors:
    """Of predictions against measurements. mape: mean of |predicted / measured - 1|; within_10: share of those that are
    within a tenth; both between 0 and 1, the first maybe more."""

    count: int
    mape: float
    within_10: float

    @staticmethod
    def of(predicted: np.ndarray, measured: np.ndarray) -> Errors:
        """Of arrays of one shape."""
        if not len(measured):
            return Errors(0, float("nan"), float("nan"))
        off = np.abs(predicted / measured - 1)
        return Errors(len(off), float(off.mean()), float((off <= _NEAR).mean()))

    def as_json(self) -> dict[str, Any]:
        """Plain data; None where there was nothing to compare."""
        known = self.count > 0
        return {
            "count": self.count,
            "mape": self.mape if known else None,
            "within_10": self.within_10 if known else None,
        }

    def __str__(self) -> str:
        return f"MAPE {self.mape:6.1%}, {self.within_10:6.1%} within 10 %, of {self.count}"


@dataclass(frozen=True)
class LinearBaseline:
    """value = sum of weight * count, fitted to relative errors with least squares, no weight below zero.

    names: features that are sizes; each is taken as the number that it is the logarithm of.
    """

    names: tuple[str, ...]
    weights: np.ndarray

    @staticmethod
    def fit(examples: Examples, names: Sequence[str]) -> LinearBaseline:
        """One weight for each kind of kernel's number, and one for a call."""
        from scipy.optimize import nnls

        counts = _counts(examples.rows, names)
        weights, _ = nnls(counts / examples.values[:, None], np.ones(len(examples)))
        return LinearBaseline(tuple(names), weights)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Of features, (kernels, features)."""
        found: np.ndarray = _counts(rows, self.names) @ self.weights
        return found


#: What predictors are held against.
BASELINES: Mapping[str, Sequence[str]] = {"flops": ("macs",), "flops_bytes": ("macs", "all_bytes")}


def _counts(rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    numbers = [np.exp2(rows[:, FEATURE_NAMES.index(name)].astype(np.float64)) - 1 for name in names]
    return np.stack([*numbers, np.ones(len(rows))], axis=1)


def pairs(keys: Sequence[Hashable], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(each later measurement, the one before it) of the same thing: the noise. keys: what was measured."""
    first: dict[Hashable, float] = {}
    found = []
    for key, value in zip(keys, values, strict=True):
        if key in first:
            found.append((value, first[key]))
        first[key] = value
    again = np.array(found, np.float64).reshape(-1, 2)
    return again[:, 0], again[:, 1]


def by_size(predicted: np.ndarray, measured: np.ndarray, again: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    """Errors, and the noise of `pairs`, apart for kernels of each range of measured times, in milliseconds."""
    found = []
    for low, high in itertools.pairwise(_SIZES_US):
        ours, twice = ((low <= ms * 1e3) & (ms * 1e3 < high) for ms in (measured, again[1]))
        errors = Errors.of(predicted[ours], measured[ours]), Errors.of(again[0][twice], again[1][twice])
        row = {"predictor": errors[0].as_json(), "noise": errors[1].as_json()}
        found.append({"from_us": low, "to_us": high if math.isfinite(high) else None, **row})
    return found


def halves(samples: Sequence[Sequence[float]]) -> Errors:
    """The noise within one run: of each measurement's samples the shortest of every second one against the others'."""
    pairs = [(min(found[1::2]), min(found[::2])) for found in samples if len(found) > 3]
    again = np.array(pairs, np.float64).reshape(-1, 2)
    return Errors.of(again[:, 0], again[:, 1])


#: What learns from examples, and predicts values of others.
Learner = Callable[[Examples], Callable[[Examples], np.ndarray]]


def trees(rounds: int, parts: int) -> Learner:
    """A predictor, of `parts` models of so many rounds."""

    def learn(examples: Examples) -> Callable[[Examples], np.ndarray]:
        return values_of(train(examples, "", rounds, parts))

    return learn


def linear(names: Sequence[str]) -> Learner:
    """One of `BASELINES`."""

    def learn(examples: Examples) -> Callable[[Examples], np.ndarray]:
        line = LinearBaseline.fit(examples, names)
        return lambda others: line.predict(others.rows)

    return learn


def values_of(predictor: Predictor) -> Callable[[Examples], np.ndarray]:
    """What it predicts of examples."""
    return lambda examples: np.exp(predictor.logarithms(examples.rows, examples.kinds)[0]) * examples.scale


def unseen_workloads(
    examples: Examples, learners: Mapping[str, Learner], folds: int, teach: np.ndarray
) -> dict[str, np.ndarray]:
    """Each example's value as learnt from other workloads alone, by learner. teach: a mask of those to learn from."""
    part = part_of(examples.keys, folds)
    found = {name: np.zeros(len(examples)) for name in learners}

    def predict(fold: int) -> None:
        for name, learn in learners.items():
            found[name][part == fold] = learn(examples.take(teach & (part != fold)))(examples.take(part == fold))

    side_by_side(predict, range(folds))
    return found


def side_by_side(function: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Calls it with each item, on as many cores as there are; training leaves Python to the other threads."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(function, items))


def beside_kernels(latencies: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """(what a run takes beside its kernels, and more for each of them), in milliseconds, from whole runs, the sums of
    their kernels' times and how many they are."""
    from scipy.optimize import nnls

    terms = np.stack([np.ones(len(counts)), counts], axis=1) / latencies[:, None]
    (call, step), _ = nnls(terms, np.maximum(0.0, latencies - sums) / latencies)
    return float(call), float(step)
