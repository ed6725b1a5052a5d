"""All steps from a float model and calibration data to a QDQ model, with what was measured on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

from evo_tvm.frontend.read_model import ModelSource
from evo_tvm.quantize.accuracy import keep_accuracy, skip_of
from evo_tvm.quantize.accuracy_goal import AccuracyGoal
from evo_tvm.quantize.accuracy_labels import find_labels
from evo_tvm.quantize.accuracy_report import AccuracyReport
from evo_tvm.quantize.calibrate import calibrate
from evo_tvm.quantize.calibration_data import CalibrationSource, open_calibration
from evo_tvm.quantize.calibration_images import Preprocessing
from evo_tvm.quantize.measure_error import SAMPLES, measure_error
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.params import Array
from evo_tvm.quantize.prepare import prepare
from evo_tvm.quantize.report import QuantizeReport
from evo_tvm.quantize.run_model import MakeRunner, Progress, model_inputs

#: Calibration samples that are kept for whoever compares forms of the model.
_EXAMPLES = 16


@dataclass(frozen=True)
class Quantized:
    """model: the quantized model. layers: names of the nodes in integers; left: of others -> why they stay in float.

    report: what each layer loses; None where it was not asked for. accuracy: what accuracy control did; None without a
    goal. shapes: of the inputs, as the calibration data have them. examples: some of these data, inputs by name.
    """

    model: onnx.ModelProto = field(repr=False)
    layers: tuple[str, ...]
    left: Mapping[str, str]
    report: QuantizeReport | None = None
    accuracy: AccuracyReport | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    examples: tuple[Mapping[str, Array], ...] = field(default=(), repr=False)

    def as_json(self) -> dict[str, Any]:
        """All but the model, in what JSON has."""
        return {
            "quantized": list(self.layers),
            "left": dict(self.left),
            "report": None if self.report is None else self.report.as_json(),
            "accuracy": None if self.accuracy is None else self.accuracy.as_json(),
        }


def quantize_static(
    model: ModelSource,
    calib: CalibrationSource,
    options: QuantizeOptions,
    make_runner: MakeRunner,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    accuracy: AccuracyGoal | None = None,
    progress: Progress | None = None,
    report_samples: int = 0,
) -> Quantized:
    """Calibrate, give layers back where `accuracy` needs it, and measure errors where `report_samples` is not 0.

    Arguments and errors are those of `evo_tvm.quantize`.
    """
    prepared = prepare(model)
    inputs = model_inputs(prepared)
    data = open_calibration(calib, inputs, samples, preprocessing)
    held, labels = data, None
    if accuracy is not None:  # opened before the work begins: what is wrong with them is said at once
        source = calib if accuracy.data is None else accuracy.data
        held = data if accuracy.data is None else open_calibration(source, inputs, preprocessing=preprocessing)
        labels = find_labels(accuracy, source, held)
    calibrated = calibrate(prepared, data, make_runner, options, progress)
    skip: tuple[str, ...] = ()
    report = kept = None
    if accuracy is not None:
        report = measure_error(calibrated, data, make_runner, progress=progress)
        kept = keep_accuracy(calibrated, accuracy, held, labels, report.layers, make_runner, progress)
        skip = skip_of(kept.given_back)
    if report_samples and (report is None or skip or report_samples != SAMPLES):
        report = measure_error(calibrated, data, make_runner, skip, report_samples, progress)
    choice = calibrated.choose(calibrated.model, skip)
    names = tuple(layer.name for layer in choice.layers)
    given = dict.fromkeys(kept.given_back if kept is not None else (), "it was given back to float for accuracy")
    left = {name: given.get(name, reason) for name, reason in choice.left.items()}
    shown = report if report_samples else None
    return Quantized(calibrated.write(skip), names, left, shown, kept, data.shapes, tuple(data.few(_EXAMPLES)))
