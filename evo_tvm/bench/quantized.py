"""A model as ONNX Runtime's static quantization makes it: the QDQ form in which int8 engines are compared."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx

from evo_tvm.bench.inputs import Array, random_inputs
from evo_tvm.bench.peers.prepare_model import input_specs

#: Random inputs that the ranges of activations are taken from.
SAMPLES = 8
#: The operator set since which a scale for each channel is part of the standard.
_PER_CHANNEL_OPSET = 13


def quantize_as_ort(source: Path, target: Path) -> None:
    """Writes `source` in QDQ form: u8 activations, s8 weights with a scale for each channel, ranges by minimum and
    maximum over random inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    specs = input_specs(onnx.load(source, load_external_data=False))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(range(1, 1 + SAMPLES))

        def get_next(self) -> dict[str, Array] | None:
            seed = next(self._left, None)
            return None if seed is None else random_inputs(specs, seed)

    logging.getLogger().setLevel(logging.ERROR)  # it advises its own preparation, which has run
    with tempfile.TemporaryDirectory(prefix="evo_tvm-quantize-") as folder:
        model = onnx.load(source)
        if next(o.version for o in model.opset_import if o.domain == "") < _PER_CHANNEL_OPSET:
            model = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
