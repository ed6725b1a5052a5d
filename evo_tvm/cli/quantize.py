"""`evo-tvm quantize`: a float ONNX model becomes a standard int8 QDQ model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, check_writable, json_option, onnx_argument
from evo_tvm.cli._quantize import LAYERS_SHOWN, quantize_options, read_quantize_options, show_accuracy
from evo_tvm.cli._show import clip, progress, show, show_json, size_text, table
from evo_tvm.errors import UsageError
from evo_tvm.files import write_whole

if TYPE_CHECKING:
    from evo_tvm.quantize.report import QuantizeReport


@click.command(
    cls=Command,
    epilog="Example: evo-tvm quantize resnet18.onnx --calib calib.npz -o resnet18_int8.onnx",
    short_help="Quantize a model to int8 with calibration data.",
)
@onnx_argument
@click.option("-o", "--output", metavar="Q.onnx", type=PATH, required=True, help="The file to write.")
@quantize_options
@click.option("--dynamic", is_flag=True, help="Quantize dense layers alone, their inputs at run time; needs no data.")
@click.option("--report", metavar="FILE.json", type=PATH, help="Measure each layer's error, and write all of it here.")
@json_option
def quantize(model: Path, output: Path, report: Path | None, dynamic: bool, as_json: bool, **options: Any) -> None:
    """Quantize MODEL.onnx to int8 and write a standard QDQ model.

    The result is compiled like any other model, and other engines run it too.
    """
    for path in (output, report):
        if path is not None:
            check_writable(path)
    if dynamic == (options["calib"] is not None):
        raise UsageError("give either --calib DATA or --dynamic")
    started = time.perf_counter()
    with progress() as step, needs_extra("compiler"):
        from evo_tvm.quantize.measure_error import SAMPLES
        from evo_tvm.quantize_model import quantize_with_report

        asked = read_quantize_options(options)
        found = quantize_with_report(
            model,
            asked.calib,
            asked.options,
            dynamic,
            asked.samples,
            asked.preprocessing,
            asked.accuracy,
            progress=step,
            report_samples=SAMPLES if report is not None else 0,
        )
        with write_whole(output) as file:
            file.write(found.model.SerializeToString())
    if report is not None and found.report is not None:
        data = found.report.as_json()
        if found.accuracy is not None:
            data["accuracy"] = found.accuracy.as_json()
        with write_whole(report) as file:
            file.write(json.dumps(data, indent=2).encode())
    seconds, sizes = time.perf_counter() - started, (model.stat().st_size, output.stat().st_size)
    if as_json:
        show_json(
            {
                "output": str(output),
                "size_bytes": sizes[1],
                "seconds": seconds,
                **found.as_json(),
            }
        )
        return
    if found.report is not None:
        _show_report(found.report)
    if found.accuracy is not None:
        show_accuracy(found.accuracy.as_json())
    show(
        f"{output}: {size_text(sizes[1])} (float {size_text(sizes[0])}), {len(found.layers)} layers in int8, "
        f"{seconds:.1f} s",
        f"Next: evo-tvm compile {output} -o M.evo",
    )


def _show_report(report: QuantizeReport) -> None:
    worst = sorted(report.layers, key=lambda layer: layer.own_db)[:LAYERS_SHOWN]
    rows = table("layer", "operator", ">alone dB", ">accumulated dB")
    for layer in worst:
        rows.add_row(clip(layer.name, 60), layer.operator, f"{layer.own_db:.1f}", f"{layer.accumulated_db:.1f}")
    outputs = ", ".join(f"{name} {value:.1f} dB" for name, value in report.outputs_db.items())
    show(f"SQNR over {report.measured_samples} samples; the layers with the largest errors of their own:", rows)
    show(f"\nOutputs against the float model: {outputs}\n")
