"""Gives layers back to float until the score of the quantized model is close enough to that of the float model.

Layers go in the order of the error that each makes alone. That says which layers hurt, not how much they hurt the
score; how many go is found by measuring: 0, 1, 2, 4, 8, ... until the goal is met, and then halfway between the last
number that did not meet it and the first that did. A model with more layers in float is taken to be no worse.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence

from evo_tvm.quantize.accuracy_goal import AccuracyGoal
from evo_tvm.quantize.accuracy_interval import of_other_samples
from evo_tvm.quantize.accuracy_report import AccuracyReport, GivenLayer, Trial
from evo_tvm.quantize.accuracy_score import Scorer, make_scorer
from evo_tvm.quantize.calibrate import Calibrated
from evo_tvm.quantize.calibration_data import CalibrationData
from evo_tvm.quantize.params import Array
from evo_tvm.quantize.report import LayerError
from evo_tvm.quantize.run_model import MakeRunner, Progress


def keep_accuracy(
    calibrated: Calibrated,
    goal: AccuracyGoal,
    data: CalibrationData,
    labels: Array | None,
    errors: Sequence[LayerError],
    make_runner: MakeRunner,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Which layers of `calibrated` must go back to float for `goal`: `calibrated.write(skip_of(report))` meets it.

    data, labels: the samples to measure on, and int64[samples]. errors: of each layer, as `measure_error` finds them.
    The result depends on the data alone. Memory: one run of a model, and a number for each sample and model.

    Raises InputError: labels that do not fit the model. UsageError: a metric that does not.
    """
    metric, scorer = make_scorer(goal.metric, calibrated.original, data, labels, make_runner, progress)
    order = sorted(errors, key=lambda layer: layer.own_db)
    search = _Search(calibrated, scorer, [layer.name for layer in order])
    count = search.least(goal.max_drop)
    differences = search.differences[count]
    layers = (GivenLayer(e.name, e.operator, e.own_db, number < count) for number, e in enumerate(order))
    return AccuracyReport(
        metric=metric,
        max_drop=goal.max_drop,
        samples=len(differences),
        float_score=float(scorer.float_scores.mean()),
        score=search.trial(count).score,
        drop=search.trial(count).drop,
        interval=of_other_samples(differences, scorer.right_or_wrong),
        worse=int((differences > 0).sum()),
        better=int((differences < 0).sum()),
        layers=tuple(layers),
        trials=tuple(search.trial(number) for number in search.differences),
    )


def skip_of(names: Sequence[str]) -> tuple[str, ...]:
    """Layers' names as `Calibrated.write` takes them: there, `*` and the like would stand for other names too."""
    return tuple(glob.escape(name) for name in names)


class _Search:
    def __init__(self, calibrated: Calibrated, scorer: Scorer, order: Sequence[str]) -> None:
        self._calibrated, self._scorer, self._order = calibrated, scorer, order
        #: Layers given back -> the score of each sample in float less that in this model.
        self.differences: dict[int, Array] = {}

    def least(self, max_drop: float) -> int:
        """The least number of layers to give back, so far as was measured; with all of them it is the float model."""
        low, high = -1, 0
        while high < len(self._order) and not self.drop(high) <= max_drop:
            low, high = high, min(max(2 * high, 1), len(self._order))
        while high - low > 1:
            middle = (low + high) // 2
            if self.drop(middle) <= max_drop:
                high = middle
            else:
                low = middle
        self.drop(high)
        return high

    def drop(self, count: int) -> float:
        """How far the mean score falls with `count` layers in float."""
        if count not in self.differences:
            model = self._calibrated.write_graph(skip_of(self._order[:count]))
            text = f"{count} of {len(self._order)} layers in float"
            self.differences[count] = self._scorer.float_scores - self._scorer.scores(model, text)
        return float(self.differences[count].mean())

    def trial(self, count: int) -> Trial:
        """What was measured with `count` layers in float."""
        drop = self.drop(count)
        return Trial(count, float(self._scorer.float_scores.mean()) - drop, drop)
