"""`evo_tvm.quantize`: a float ONNX model and calibration data become a standard QDQ model."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from evo_tvm.compile_model import compiled
from evo_tvm.errors import UsageError
from evo_tvm.frontend.read_model import ModelSource
from evo_tvm.quantize.accuracy_goal import AccuracyGoal
from evo_tvm.quantize.calibration_data import CalibrationSource
from evo_tvm.quantize.calibration_images import Preprocessing
from evo_tvm.quantize.dynamic import quantize_dynamic
from evo_tvm.quantize.measure_error import SAMPLES
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.prepare import prepare
from evo_tvm.quantize.quantize_static import Quantized, quantize_static
from evo_tvm.quantize.run_model import MakeRunner, Progress


def quantize(
    model: ModelSource,
    calib: CalibrationSource | None = None,
    options: QuantizeOptions | None = None,
    *,
    dynamic: bool = False,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    accuracy: AccuracyGoal | None = None,
    make_runner: MakeRunner | None = None,
    progress: Progress | None = None,
) -> onnx.ModelProto:
    """Quantizes an ONNX model to int8. The result is a standard QDQ model, which other engines run too.

    model: a path or a loaded ModelProto; it is not changed. calib: an `.npz`, a folder of `.npy` or images, or an
    iterable of arrays or dicts; see `open_calibration`. options: which layers, and how. dynamic: quantize dense layers
    alone, and their inputs at run time; no data then. samples: at most so many of the data. preprocessing: of images.
    accuracy: gives layers back to float until this goal is met. make_runner: what runs models; evo_tvm itself where it
    is None. progress: called with (text, done, total).

    Raises ModelError: the model cannot be read, is quantized already, or has nothing to quantize. InputError: data that
    do not fit. UsageError: an option that cannot be. UnsupportedOperatorError, CompileError: it cannot be run.
    """
    arguments = (model, calib, options, dynamic, samples, preprocessing, accuracy, make_runner, progress)
    return quantize_with_report(*arguments, report_samples=0).model


def quantize_with_report(
    model: ModelSource,
    calib: CalibrationSource | None = None,
    options: QuantizeOptions | None = None,
    dynamic: bool = False,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    accuracy: AccuracyGoal | None = None,
    make_runner: MakeRunner | None = None,
    progress: Progress | None = None,
    report_samples: int = SAMPLES,
) -> Quantized:
    """As `quantize`, and measures the error of each layer over about `report_samples` samples, unless that is 0."""
    options = options or QuantizeOptions()
    if dynamic:
        for given, what in ((calib, "calibration data"), (accuracy, "goal for accuracy")):
            if given is not None:
                raise UsageError(f"dynamic quantization needs no {what}", hint="Give the one or the other.")
        return _dynamic(prepare(model), options)
    if calib is None:
        raise UsageError(
            "there are no calibration data",
            hint="Give some samples of what the model will see, or ask for dynamic quantization of dense layers.",
        )
    run = make_runner or compiled
    return quantize_static(model, calib, options, run, samples, preprocessing, accuracy, progress, report_samples)


def _dynamic(model: ir.Model, options: QuantizeOptions) -> Quantized:
    names = quantize_dynamic(model, options)
    model.producer_name = "evo_tvm"
    return Quantized(ir.to_proto(model), names, {})
