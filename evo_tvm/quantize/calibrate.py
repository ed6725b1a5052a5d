"""From a float model and calibration data to a quantized model, in two steps: calibrate, then write.

Calibration is what takes time; what it finds serves any choice of layers, so accuracy control can give layers back to
float and write the model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from evo_tvm.errors import ModelError
from evo_tvm.quantize.calibration_data import CalibrationData
from evo_tvm.quantize.choose_layers import Choice, choose_layers
from evo_tvm.quantize.collect_ranges import Mean, names_of, observe
from evo_tvm.quantize.correct_bias import bias_shifts
from evo_tvm.quantize.equalize import equalize
from evo_tvm.quantize.observers import make_observer
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.params import Array, Range
from evo_tvm.quantize.run_model import PASS_BYTES, MakeRunner, Progress, run_on
from evo_tvm.quantize.write_qdq import write_qdq


@dataclass(frozen=True)
class Calibrated:
    """A float model, prepared, and what calibration found.

    ranges: of each tensor that may be quantized, by name. shifts: float32[channels] for the bias of each layer, by its
    name; empty without bias correction. equalized: pairs of layers that were. original: the model before that.
    """

    model: ir.Model = field(repr=False)
    original: ir.Model = field(repr=False)
    options: QuantizeOptions
    ranges: Mapping[str, Range] = field(repr=False)
    shifts: Mapping[str, Array] = field(repr=False)
    equalized: int = 0

    def choose(self, model: ir.Model, skip: Sequence[str] = ()) -> Choice:
        """The layers of `model`, a copy of the prepared model, without those that `skip` names too.

        Raises UsageError: a name that is not there.
        """
        return _choose(model, self.options, skip)

    def write(self, skip: Sequence[str] = ()) -> onnx.ModelProto:
        """The QDQ model; nodes of the names `skip` stay in float, beside those that the options name.

        Raises UsageError: a name that is not there.
        """
        return ir.to_proto(self.write_graph(skip))

    def write_graph(self, skip: Sequence[str] = ()) -> ir.Model:
        """As `write`, for who reads the graph on."""
        model, options = self.model.clone(), self.options
        choice = self.choose(model, skip)
        write_qdq(model, choice, self.ranges, options.scheme, options.per_channel, self.shifts)
        model.producer_name = "evo_tvm"
        return model


def calibrate(
    model: ir.Model,
    data: CalibrationData,
    make_runner: MakeRunner,
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
    pass_bytes: int = PASS_BYTES,
) -> Calibrated:
    """Run the prepared float `model` on all of `data`, and find how to quantize it. `model` is not changed.

    make_runner: gives what runs a model. pass_bytes: more is not taken out of one run; the data are then read more than
    once. Raises ModelError: no layer can be quantized, or a value is not finite. InputError: a bad sample.
    UsageError: an option that names what the model does not have.
    """
    options = options or QuantizeOptions()
    original, model = model, model.clone()
    equalized = equalize(model) if options.equalize else 0
    choice = _choose(model, options, ())
    if not any(layer.weighted for layer in choice.layers):
        reasons = "; ".join(sorted(set(choice.left.values())))
        raise ModelError(
            "no layer can be quantized" + (f": {reasons}" if reasons else ": it has none with weights"),
            hint="Layers are Conv, ConvTranspose, Gemm and MatMul with constant float32 weights.",
        )
    weighted = [layer for layer in choice.layers if layer.weighted]
    tensors = [str(value.name) for value in choice.tensors]
    averaged = [str(layer.inputs[0].name) for layer in weighted] if options.bias_correction else []
    observers = {name: make_observer(options.observer, options.scheme, options.percentile) for name in tensors}
    means = {name: Mean() for name in averaged}
    for found in run_on(model, names_of(tensors, averaged), data, make_runner, progress, pass_bytes=pass_bytes):
        observe(found, observers, means)
    ranges = {name: observer.range() for name, observer in observers.items()}
    averages = {name: mean.value for name, mean in means.items()}
    opset = model.opset_imports[""]
    shifts = bias_shifts(weighted, averages, opset, options.per_channel, make_runner) if averages else {}
    return Calibrated(model, original, options, ranges, shifts, equalized)


def _choose(model: ir.Model, options: QuantizeOptions, skip: Sequence[str]) -> Choice:
    return choose_layers(model, (*options.skip, *skip), options.skip_operators, options.keep_first, options.keep_last)
