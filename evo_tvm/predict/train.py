"""Measurements => a predictor."""

from __future__ import annotations

import itertools
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np

from evo_tvm.errors import UsageError
from evo_tvm.predict.features import FEATURE_NAMES, features_of_many, kind_of, touched_bytes
from evo_tvm.predict.model import Kernel, Predictor, base_of, booster_text, unit
from evo_tvm.predict.network import fit_network, load_network, network_text
from evo_tvm.target import Target
from evo_tvm.tune.log import Record
from evo_tvm.tune.revision import revision_of

#: Of XGBoost. Trees of depth 8 see how a configuration and a shape meet.
PARAMETERS: Mapping[str, Any] = {
    "tree_method": "hist",
    "max_bin": 256,
    "max_depth": 8,
    "eta": 0.05,
    "min_child_weight": 4.0,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "lambda": 2.0,
}
#: Of the first rounds, and of the others: when most errors are small, those beyond 3 % count by their size, not by its
#: square, as some measurements are wrong.
OBJECTIVES: Sequence[tuple[float, Mapping[str, Any]]] = (
    (0.1, {"objective": "reg:squarederror"}),
    (0.9, {"objective": "reg:pseudohubererror", "huber_slope": 0.03}),
)
ROUNDS = 600
#: What a measurement on several threads counts.
_SEVERAL_THREADS = 0.3
#: Where `centre_of` looks.
_CENTRES = np.linspace(-0.1, 0.1, 201)
#: From this timer on weights were in the last cache, where those of a kernel are that is measured by itself.
_WEIGHTS_NEAR = 3
#: Characters of a date up to its hour.
_HOUR = len("2026-11-22T05")
#: Models of an ensemble; each leaves out the workloads of one part.
PARTS = 5


@dataclass(frozen=True)
class Examples:
    """Measurements as a predictor learns them.

    rows: (examples, features). values: milliseconds, or thousands of instructions. kinds, keys: of what, and the
    workload that it is. revisions: kind -> that of its kernels. hours: when, as 2026-11-22T05; empty where it is not
    known.
    """

    target: Target
    metric: str
    threads: tuple[int, ...]
    rows: np.ndarray
    values: np.ndarray
    kinds: tuple[str, ...]
    keys: tuple[str, ...]
    revisions: Mapping[str, str]
    hours: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def logarithms(self) -> np.ndarray:
        """Of the values in cycles or instructions, (examples)."""
        found: np.ndarray = np.log(self.values / self.scale)
        return found

    @property
    def steady(self) -> np.ndarray:
        """Which were measured with a steady clock, a mask."""
        found: np.ndarray = self.rows[:, FEATURE_NAMES.index("steady")] > 0
        return found

    @property
    def known(self) -> dict[str, int]:
        """Kind -> distinct workloads."""
        distinct = set(zip(self.kinds, self.keys, strict=True))
        return dict(sorted(Counter(kind for kind, _ in distinct).items()))

    @property
    def scale(self) -> float:
        """A value for each cycle or instruction."""
        return unit(self.metric, self.target)

    def take(self, chosen: np.ndarray) -> Examples:
        """Those that `chosen`, a mask or indices, names."""
        numbers = np.arange(len(self))[chosen].tolist()
        return Examples(
            self.target,
            self.metric,
            self.threads,
            self.rows[numbers],
            self.values[numbers],
            tuple(self.kinds[i] for i in numbers),
            tuple(self.keys[i] for i in numbers),
            self.revisions,
            tuple(self.hours[i] for i in numbers),
        )


def examples_of(records: Iterable[Record], target: Target, metric: str = "time") -> Examples:
    """What can be learnt of these records for a target. Left out are failures, stale ones, those of another metric, and
    times for which the machine had no quick moment. What was measured several times counts once, by its shortest time.

    Raises UsageError: nothing is left.
    """
    kept = _shortest(r for r in records if r.samples_ms and r.measured == metric and not r.stale and is_quick(r))
    if not kept:
        raise UsageError("there is nothing to learn from: no measurement is for this target and still valid")
    kept.sort(key=lambda record: (record.threads, record.steady, record.timer))
    alike = itertools.groupby(kept, key=lambda record: (record.threads, record.steady, record.timer))
    rows = [
        features_of_many(
            [(r.workload, r.algorithm, dict(r.config)) for r in several],
            target,
            threads,
            target.evicting_bytes if timer >= _WEIGHTS_NEAR else 2.0 * max(target.l3_bytes, target.l2_bytes),
            steady,
        )
        for (threads, steady, timer), several in alike
    ]
    kinds = tuple(kind_of(r.workload, r.algorithm) for r in kept)
    return Examples(
        target=target,
        metric=metric,
        threads=tuple(sorted({r.threads for r in kept})),
        rows=np.concatenate(rows),
        values=np.array([r.latency_ms for r in kept]),
        kinds=kinds,
        keys=tuple(r.workload.key for r in kept),
        revisions={kind: r.revision for kind, r in zip(kinds, kept, strict=True)},
        hours=tuple(map(hour_of, kept)),
    )


def _shortest(records: Iterable[Record]) -> list[Record]:
    found: dict[tuple[object, ...], Record] = {}
    for record in records:
        which = record.kernel, record.threads, record.steady, record.timer
        if which not in found or record.latency_ms < found[which].latency_ms:
            found[which] = record
    return list(found.values())


def examples_of_kernels(
    kernels: Sequence[Kernel], values: Sequence[float], target: Target, num_threads: int, metric: str = "time"
) -> Examples:
    """What can be learnt of the kernels of a model that took `values`."""
    kinds = tuple(kind_of(workload, algorithm) for workload, algorithm, _ in kernels)
    return Examples(
        target=target,
        metric=metric,
        threads=(num_threads,),
        rows=features_of_many(kernels, target, num_threads, touched_bytes(kernels, target)),
        values=np.array(values, np.float64),
        kinds=kinds,
        keys=tuple(workload.key for workload, _, _ in kernels),
        revisions={
            kind: revision_of(target.isa, workload.operator, algorithm)
            for kind, (workload, algorithm, _) in zip(kinds, kernels, strict=True)
        },
        hours=("",) * len(kernels),
    )


def joined(several: Sequence[Examples]) -> Examples:
    """All of them as one, of the first one's target."""
    first = several[0]
    return Examples(
        target=first.target,
        metric=first.metric,
        threads=tuple(sorted({threads for each in several for threads in each.threads})),
        rows=np.concatenate([each.rows for each in several]),
        values=np.concatenate([each.values for each in several]),
        kinds=tuple(kind for each in several for kind in each.kinds),
        keys=tuple(key for each in several for key in each.keys),
        revisions={kind: revision for each in several for kind, revision in each.revisions.items()},
        hours=tuple(hour for each in several for hour in each.hours),
    )


def hour_of(record: Record) -> str:
    """When it was measured, as 2026-11-22T05; empty where it is not known."""
    return str(record.provenance.get("date", ""))[:_HOUR]


def is_quick(record: Record) -> bool:
    """Whether the machine was as quick as usual when this was measured."""
    return float(record.provenance.get("slowness", 1.0)) <= 1.0


def train(examples: Examples, name: str, rounds: int = ROUNDS, parts: int = PARTS) -> Predictor:
    """An ensemble of `parts` models, each without the workloads of one part, which say how wide its errors are.

    name: of the target in the logs.
    """
    part = part_of(examples.keys, parts)
    boosters, networks = [], []
    errors, spreads = np.zeros(len(examples)), np.zeros(len(examples))
    predicted = np.zeros((parts, len(examples)))
    for number in range(parts):
        inside = part != number if parts > 1 and np.any(part != number) else np.full(len(examples), True)
        taught = examples.take(inside)
        boosters.append(fit(taught, rounds, number))
        networks.append(network_text(fit_network(taught.rows, labels_of(taught), weights_of(taught), number)))
        by_network = load_network(networks[-1]).predict(examples.rows) + base_of(examples.rows)
        predicted[number] = (predict_rows(boosters[-1], examples.rows) + by_network) / 2
    for number in range(parts):
        outside = part == number
        errors[outside] = (predicted[number] - examples.logarithms)[outside]
        spreads[outside] = predicted[:, outside].std(axis=0)
    centre = centre_of(errors[examples.steady] if examples.steady.any() else errors)
    floor, widening = calibrated(np.abs(errors - centre), spreads)
    return Predictor(
        target=name,
        threads=examples.threads,
        metric=examples.metric,
        kinds=dict(examples.revisions),
        known=examples.known,
        boosters=tuple(map(booster_text, boosters)),
        networks=tuple(networks),
        floor=floor,
        widening=widening,
        centre=centre,
        versions={"xgboost": metadata.version("xgboost-cpu"), "python": platform.python_version()},
    )


def fit(examples: Examples, rounds: int, seed: int) -> Any:
    """One model of XGBoost, which corrects the bound of `base_of`."""
    import xgboost

    labels = labels_of(examples)
    data = xgboost.DMatrix(examples.rows, labels, weight=weights_of(examples))
    fixed = {**PARAMETERS, "seed": seed, "nthread": 1, "base_score": float(np.mean(labels))}
    found = None
    for share, objective in OBJECTIVES:
        found = xgboost.train({**fixed, **objective}, data, max(1, round(rounds * share)), xgb_model=found)
    return found


def labels_of(examples: Examples) -> np.ndarray:
    """What models learn: logarithms over those of the bound."""
    found: np.ndarray = examples.logarithms - base_of(examples.rows)
    return found


def predict_rows(booster: Any, rows: np.ndarray) -> np.ndarray:
    """Logarithms of cycles or instructions."""
    import xgboost

    found: np.ndarray = booster.predict(xgboost.DMatrix(rows)) + base_of(rows)
    return found


def part_of(keys: Sequence[str], parts: int) -> np.ndarray:
    """The part of each example: all of a workload are in one, whatever else there is."""
    order = {key: i % parts for i, key in enumerate(sorted(set(keys), key=_shuffled))}
    return np.array([order[key] for key in keys])


def _shuffled(key: str) -> bytes:
    from blake3 import blake3

    return blake3(key.encode()).digest()


def weights_of(examples: Examples) -> np.ndarray:
    """Of each example: what is measured on several threads is noisier, and shall not disturb the rest."""
    several = examples.rows[:, FEATURE_NAMES.index("threads")] > 1
    found: np.ndarray = np.where(several, _SEVERAL_THREADS, 1.0) / sizes_of(examples.keys)
    return found


def sizes_of(keys: Sequence[str]) -> np.ndarray:
    """The square root of how many examples each one's workload has: none shall drown the others."""
    counts = Counter(keys)
    return np.sqrt(np.array([counts[key] for key in keys], np.float64))


def centre_of(errors: np.ndarray) -> float:
    """What has to be taken off logarithms with these errors for the least mean of |predicted / measured - 1|: too much
    by a share counts more than too little by the same factor."""
    return float(min(_CENTRES, key=lambda centre: np.abs(np.expm1(errors - centre)).mean()))


def centre_of_sums(errors: np.ndarray, values: np.ndarray) -> float:
    """What has to be taken off logarithms with these errors for predictions to have the same sum as the values."""
    return float(np.log((values * np.exp(errors)).sum() / values.sum()))


def calibrated(errors: np.ndarray, spreads: np.ndarray) -> tuple[float, float]:
    """(floor, widening) with which nine of ten errors lie within their interval."""
    best = (float(np.quantile(errors, 0.9)) / 1.645, 0.0)
    for widening in (0.5, 1.0, 1.5, 2.0):
        floors = np.maximum(0.0, (errors / 1.645) ** 2 - (widening * spreads) ** 2)
        floor = float(np.sqrt(np.quantile(floors, 0.9)))
        widths = np.sqrt(floor**2 + (widening * spreads) ** 2)
        if widths.mean() < np.sqrt(best[0] ** 2 + (best[1] * spreads) ** 2).mean():
            best = (floor, widening)
    return max(best[0], 0.01), best[1]
