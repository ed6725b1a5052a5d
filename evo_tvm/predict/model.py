"""A latency predictor: gradient-boosted trees and small networks over the features of a kernel, kept as JSON.

Chen and Guestrin, "XGBoost: A Scalable Tree Boosting System" (KDD 2016); the networks are those of `network.py`. Trees
and network of a model err in different ways, so their mean errs less. Several models, each trained without a part of
the workloads, say by how much they differ how sure they are (Lakshminarayanan et al., "Simple and Scalable Predictive
Uncertainty Estimation using Deep Ensembles", NeurIPS 2017).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.errors import UsageError
from evo_tvm.files import write_whole
from evo_tvm.predict.features import FEATURE_NAMES, bound_cycles, features_of_many, kind_of, rule_cycles
from evo_tvm.predict.network import Network, load_network
from evo_tvm.target import Target
from evo_tvm.tune.revision import revision_of
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    import xgboost

FORMAT = 4
_CONTENT = "evo_tvm latency predictor"
#: What a predictor may have learnt to predict: milliseconds, or thousands of instructions of an emulated CPU.
METRICS = ("time", "instructions")
#: Half the width of an interval in standard deviations: nine of ten lie within.
_DEVIATIONS = 1.645
#: A model's kernels err together by this share of their variance; the rest averages out.
_COMMON = 0.3
#: What a bound of the cycles is made of.
_BASE = ("tiled_cycles", "epilogue_cycles", "all_bytes")

#: A workload, an algorithm and its configuration.
Kernel = tuple[Workload, str, Any]


@dataclass(frozen=True)
class Prediction:
    """What one kernel takes, in milliseconds or in thousands of instructions; nine of ten lie between `low` and `high`.

    source: "predictor", or "rule", the analytic estimate, where `reason` says why.
    """

    value: float
    low: float
    high: float
    source: str = "predictor"
    reason: str = ""

    @property
    def deviation(self) -> float:
        """Of the logarithm of the value: about the relative error to expect."""
        return math.log(self.high / self.low) / 2 / _DEVIATIONS


@dataclass(frozen=True)
class Correction:
    """What makes a predictor fit another target, or situation: the bound of the cycles, `share` of what the other says
    over the bound, `level`, an offset for each kind, and a model of XGBoost for the rest (`booster_text`)."""

    share: float
    level: float
    offsets: Mapping[str, float]
    booster: str

    def apply(self, rows: np.ndarray, kinds: Sequence[str], start: np.ndarray) -> np.ndarray:
        """Logarithms. start: what the other says."""
        import xgboost

        over = start - base_of(rows)
        trees = self._loaded.predict(xgboost.DMatrix(np.column_stack([rows, over])))
        offsets = np.array([self.offsets.get(kind, 0.0) for kind in kinds])
        found: np.ndarray = start - over + self.share * over + self.level + offsets + trees
        return found

    @cached_property
    def _loaded(self) -> xgboost.Booster:
        return load_booster(self.booster)


@dataclass(frozen=True)
class Predictor:
    """Trained models, and what they were trained from.

    target: its name in the logs. threads: the numbers of threads that were measured. metric: one of `METRICS`. kinds:
    what was measured (`kind_of`) -> the revision of its kernels then. known: kind -> workloads. deviation: of the
    logarithm, on workloads that a model was not trained on, in parts of what the models differ by; floor: the least.
    centre: what their mean is above the logarithm of the best prediction (`evo_tvm.predict.train.centre_of`).
    boosters, networks: of each model its trees (`booster_text`) and its network (`network_text`), both of the logarithm
    of the value over `base_of`. call_ms, step_ms: what a run takes beside its kernels, and more for each of them.
    source, corrections: a predictor that was learnt elsewhere, and what is predicted from it in place of models, one
    for each part of the workloads.
    """

    target: str
    threads: tuple[int, ...]
    metric: str
    kinds: Mapping[str, str]
    known: Mapping[str, int]
    boosters: tuple[str, ...]
    networks: tuple[str, ...]
    floor: float = 0.05
    widening: float = 1.0
    centre: float = 0.0
    call_ms: float = 0.0
    step_ms: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    source: Predictor | None = None
    corrections: tuple[Correction, ...] = ()

    def why_not(self, workload: Workload, algorithm: str, target: Target, num_threads: int) -> str:
        """Why there is nothing to predict this kernel from; "" where there is."""
        kind = kind_of(workload, algorithm)
        if kind not in self.kinds:
            return f"nothing was measured of {kind}"
        if self.kinds[kind] != revision_of(target.isa, workload.operator, algorithm):
            return f"the kernels of {kind} have changed since they were measured"
        if num_threads not in self.threads:
            return f"nothing was measured on {num_threads} threads"
        return ""

    def predict(
        self, kernels: Sequence[Kernel], target: Target, num_threads: int = 1, between_bytes: float | None = None
    ) -> list[Prediction]:
        """What each kernel takes, in order; those that the predictor knows nothing of by the analytic rule.

        between_bytes: as of `features_of_many`.
        """
        reasons = [self.why_not(workload, algorithm, target, num_threads) for workload, algorithm, _ in kernels]
        known = [kernel for kernel, reason in zip(kernels, reasons, strict=True) if not reason]
        found = iter(self._known(known, target, num_threads, between_bytes))
        return [
            next(found) if not reason else by_rule(kernel, target, num_threads, reason)
            for kernel, reason in zip(kernels, reasons, strict=True)
        ]

    def _known(
        self, kernels: Sequence[Kernel], target: Target, num_threads: int, between_bytes: float | None
    ) -> list[Prediction]:
        if not kernels:
            return []
        kinds = [kind_of(workload, algorithm) for workload, algorithm, _ in kernels]
        means, deviations = self.logarithms(features_of_many(kernels, target, num_threads, between_bytes), kinds)
        values = np.exp(means) * unit(self.metric, target)
        widths = np.exp(_DEVIATIONS * deviations)
        return [
            Prediction(value, value / width, value * width)
            for value, width in zip(values.tolist(), widths.tolist(), strict=True)
        ]

    def logarithms(self, rows: np.ndarray, kinds: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(mean, deviation) of the logarithm of cycles or instructions. rows: (kernels, features); kinds: of each."""
        import xgboost

        if self.source is not None:
            start, _ = self.source.logarithms(rows, kinds)
            found = np.stack([correction.apply(rows, kinds, start) for correction in self.corrections])
        else:
            data, base = xgboost.DMatrix(rows), base_of(rows)
            found = np.stack([(trees.predict(data) + net.predict(rows)) / 2 + base for trees, net in self._loaded])
        spread = found.std(axis=0) if len(found) > 1 else np.zeros(len(rows))
        return found.mean(axis=0) - self.centre, np.sqrt(self.floor**2 + (self.widening * spread) ** 2)

    @cached_property
    def _loaded(self) -> list[tuple[xgboost.Booster, Network]]:
        pairs = zip(self.boosters, self.networks, strict=True)
        return [(load_booster(booster), load_network(network)) for booster, network in pairs]

    def save(self, path: Path) -> None:
        """Writes the JSON file. Raises UsageError: it cannot be written."""
        fields = {"content": _CONTENT, "format": FORMAT, "feature_names": list(FEATURE_NAMES), **self._fields()}
        with write_whole(path) as file:
            file.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")

    def _fields(self) -> dict[str, Any]:
        fields = {each.name: getattr(self, each.name) for each in fields_of(self)}
        fields["source"] = self.source._fields() if self.source is not None else None
        fields["corrections"] = [
            {each.name: getattr(correction, each.name) for each in fields_of(correction)}
            for correction in self.corrections
        ]
        return fields


def load_predictor(path: Path, target: str | None = None, metric: str = "time") -> Predictor:
    """Reads what `Predictor.save` wrote. target: its name in the logs that it shall be for; None: any.

    Raises UsageError: it cannot be read, is something else, or of another target, metric or set of features.
    """
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read this predictor: {(error.strerror or str(error)).lower()}", where=path) from None
    except (ValueError, RecursionError):
        raise _refused(path, "it is not JSON, or cut short") from None
    if not isinstance(fields, dict) or fields.get("content") != _CONTENT:
        raise _refused(path, "it is not a latency predictor")
    if fields.get("format") != FORMAT:
        raise _refused(path, "it is in another format", str(FORMAT), str(fields.get("format")))
    if fields.get("feature_names") != list(FEATURE_NAMES):
        raise _refused(path, "it was trained on other features than this evo_tvm extracts")
    for name, expected in (("target", target), ("metric", metric)):
        if expected is not None and fields.get(name) != expected:
            raise _refused(path, f"it is for another {name}", expected, str(fields.get(name)))
    try:
        return _predictor(fields)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise _refused(path, "a part of it is missing or altered") from None


def _predictor(fields: Mapping[str, Any]) -> Predictor:
    """What `Predictor._fields` made. Raises what a part that is missing or wrong raises."""
    made = Predictor(
        target=str(fields["target"]),
        threads=tuple(map(int, fields["threads"])),
        metric=str(fields["metric"]),
        kinds={str(kind): str(revision) for kind, revision in fields["kinds"].items()},
        known={str(kind): int(count) for kind, count in fields["known"].items()},
        boosters=tuple(fields["boosters"]),
        networks=tuple(fields["networks"]),
        **{name: float(fields[name]) for name in ("floor", "widening", "centre", "call_ms", "step_ms")},
        versions=dict(fields["versions"]),
        source=None if fields["source"] is None else _predictor(fields["source"]),
        corrections=tuple(
            Correction(float(each["share"]), float(each["level"]), dict(each["offsets"]), each["booster"])
            for each in fields["corrections"]
        ),
    )
    if not (made._loaded if made.source is None else [each._loaded for each in made.corrections]):
        raise ValueError("there is no model in it")
    if any(len(network.mean) != len(FEATURE_NAMES) for _, network in made._loaded):
        raise ValueError("a network of other features")
    return made


def load_booster(text: str) -> xgboost.Booster:
    """A model from what `booster_text` wrote. Raises ValueError: XGBoost does not take it."""
    import xgboost

    try:
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(zlib.decompress(base64.b64decode(text))))
    except (xgboost.core.XGBoostError, zlib.error, binascii.Error) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def booster_text(booster: xgboost.Booster) -> str:
    """A model as base64 of compressed Universal Binary JSON, which loads quickly, without what says only how it was
    trained; its predictions are the same."""
    import xgboost

    found: dict[str, Any] = json.loads(booster.save_raw("json"))
    for tree in found["learner"]["gradient_booster"]["model"]["trees"]:
        for name in ("base_weights", "loss_changes", "sum_hessian"):
            tree[name] = [0.0] * len(tree[name])
        # What leaves add may be rounded; where nodes split may not: values lie exactly there.
        values = zip(tree["split_conditions"], tree["left_children"], strict=True)
        tree["split_conditions"] = [float(f"{value:.5g}") if left < 0 else value for value, left in values]
    lean = xgboost.Booster(model_file=bytearray(json.dumps(found).encode()))
    return base64.b64encode(zlib.compress(lean.save_raw("ubj"), 9)).decode()


def by_rule(kernel: Kernel, target: Target, num_threads: int, reason: str) -> Prediction:
    """The analytic estimate in milliseconds: right within a factor of two or so."""
    workload, algorithm, config = kernel
    value = rule_cycles(workload, algorithm, config, target, num_threads) / target.clock_hz * 1e3
    return Prediction(value, value / 2, value * 2, "rule", reason)


def unit(metric: str, target: Target) -> float:
    """Of a prediction, in cycles or instructions: times are in milliseconds, instructions in thousands."""
    return 1e3 / target.clock_hz if metric == "time" else 1e-3


def base_of(rows: np.ndarray) -> np.ndarray:
    """The natural logarithm of a bound of the cycles, which trees then only correct: they do not extrapolate.

    See `bound_cycles`. rows: (kernels, features).
    """
    tiled, epilogue, moved = (np.exp2(rows[:, FEATURE_NAMES.index(name)].astype(np.float64)) for name in _BASE)
    found: np.ndarray = np.log(bound_cycles(tiled + epilogue, moved))
    return found


def total(predictions: Sequence[Prediction]) -> Prediction:
    """Of several kernels one after the other: errors are partly common to all, and partly cancel."""
    value = sum(p.value for p in predictions)
    errors = [p.value * p.deviation for p in predictions]
    variance = _COMMON * sum(errors) ** 2 + (1 - _COMMON) * sum(e * e for e in errors)
    width = math.exp(_DEVIATIONS * math.sqrt(variance) / value) if value else 1.0
    rules = sum(p.source == "rule" for p in predictions)
    return Prediction(value, value / width, value * width, "rule" if rules == len(predictions) else "predictor")


def _refused(path: Path, why: str, expected: str | None = None, got: str | None = None) -> UsageError:
    hint = "Train another with scripts/train_predictor, or delete the file: estimates take its place."
    return UsageError(f"this predictor cannot be used: {why}", where=path, expected=expected, got=got, hint=hint)
