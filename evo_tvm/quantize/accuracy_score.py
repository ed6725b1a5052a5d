"""Scores a model on samples: against labels, against the classes of the float model, or against its outputs.

A score is a number for each sample, 1 at most, so that the float model and another can be compared sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import onnx_ir as ir

from evo_tvm.errors import InputError, UsageError
from evo_tvm.quantize.calibration_data import CalibrationData
from evo_tvm.quantize.params import Array
from evo_tvm.quantize.run_model import MakeRunner, Progress, run_on, with_shapes

#: Runs a model on the samples and yields its outputs; the text is shown with the progress, None shows nothing.
_Run: TypeAlias = Callable[[ir.Model, "str | None"], Iterator[Mapping[str, Array]]]


class Scorer(Protocol):
    """Scores models with the inputs and outputs of the float model that it was made with."""

    #: Whether a sample is right (1) or wrong (0), and nothing in between.
    right_or_wrong: bool
    #: float64[samples]: the scores of the float model.
    float_scores: Array

    def scores(self, model: ir.Model, text: str) -> Array:
        """float64[samples]: the scores of `model`; `text` is shown with the progress."""
        ...


def make_scorer(
    metric: str | None,
    model: ir.Model,
    data: CalibrationData,
    labels: Array | None,
    make_runner: MakeRunner,
    progress: Progress | None = None,
) -> tuple[str, Scorer]:
    """The metric, chosen as `AccuracyGoal` says where it is None, and its scorer; the float `model` runs on `data`.

    labels: int64[samples]. Raises UsageError: a metric that needs labels or classes, and there are none. InputError:
    a label beyond the classes, or not one for each result.
    """

    def run(model: ir.Model, text: str | None) -> Iterator[Mapping[str, Array]]:
        names = [str(value.name) for value in model.graph.outputs]
        shown = progress if text is not None else None
        return run_on(model, names, data, make_runner, shown, text or "", pass_bytes=None)

    classes = _classes(model, data)
    if metric is None:
        only = len(model.graph.outputs) == 1 and classes is not None
        metric = "accuracy" if labels is not None else "agreement" if only else "cosine"
    if metric == "cosine":
        return metric, _Cosine(model, run, len(data))
    if classes is None:
        raise UsageError(
            f"the metric {metric} needs scores of classes, and output '{model.graph.outputs[0].name}' has none",
            where="metric",
            expected="samples x classes, all other dimensions 1",
            hint="The metric cosine suits any model.",
        )
    if metric == "accuracy" and labels is None:
        raise UsageError("the metric accuracy needs labels", where="metric", hint="Give them, or take agreement.")
    return metric, _Classes(model, run, classes, labels if metric == "accuracy" else None)


class _Classes:
    """Whether the highest score is that of the label, or of the class that the float model takes."""

    right_or_wrong = True

    def __init__(self, model: ir.Model, run: _Run, classes: int, labels: Array | None) -> None:
        self._run, self._output = run, str(model.graph.outputs[0].name)
        taken = self._taken(model, "float model")
        self._wanted = taken if labels is None else labels
        found, highest = len(self._wanted), int(self._wanted.max())
        if found != len(taken):
            raise InputError("not one label for each result", where="labels", expected=len(taken), got=found)
        if highest >= classes:
            raise InputError(
                "a label is beyond the classes", where="labels", expected=f"0 to {classes - 1}", got=highest
            )
        self.float_scores = self._score(taken)

    def scores(self, model: ir.Model, text: str) -> Array:
        return self._score(self._taken(model, text))

    def _taken(self, model: ir.Model, text: str) -> Array:
        """int64[samples]: the class with the highest score."""
        rows = (np.asarray(found[self._output]) for found in self._run(model, text))
        return np.concatenate([row.reshape(*row.shape[:2]).argmax(axis=1) for row in rows])

    def _score(self, taken: Array) -> Array:
        return np.asarray(taken == self._wanted, np.float64)


class _Cosine:
    """The cosine of the angle between outputs and those of the float model, which runs again beside: outputs of all
    samples might not fit into memory."""

    right_or_wrong = False

    def __init__(self, model: ir.Model, run: _Run, samples: int) -> None:
        self._model, self._run = model, run
        self.float_scores = np.ones(samples)

    def scores(self, model: ir.Model, text: str) -> Array:
        pairs = zip(self._run(self._model, None), self._run(model, text), strict=True)
        return np.array([np.mean([_cosine(exact[name], rough[name]) for name in exact]) for exact, rough in pairs])


def _cosine(a: Array, b: Array) -> float:
    """The cosine similarity of two arrays; of two that are zero, 1."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    squares = float(a @ a) * float(b @ b)
    if squares == 0:
        return float(not a.any() and not b.any())
    return float(a @ b) / float(np.sqrt(squares))


def _classes(model: ir.Model, data: CalibrationData) -> int | None:
    """How many classes the first output has scores of: samples x classes, all other dimensions 1. None: it has not."""
    output = with_shapes(model, data).graph.outputs[0]
    shape = output.shape
    if shape is None or not shape.is_static() or output.dtype is None or not output.dtype.is_floating_point():
        return None
    sizes = [int(str(size)) for size in shape]
    return sizes[1] if len(sizes) > 1 and sizes[1] > 1 and set(sizes[2:]) <= {1} else None
