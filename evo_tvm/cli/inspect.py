"""`evo-tvm inspect`: what is in an `.evo` or an ONNX file, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, json_option
from evo_tvm.cli._plan import layouts_text, plan_summary, plan_text
from evo_tvm.cli._quantize import drop_text, score_text
from evo_tvm.cli._show import show, show_json, size_text, table
from evo_tvm.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from evo_tvm.runtime.manifest import KernelInfo, Manifest, StayedFloat


@click.command(
    cls=Command, epilog="Example: evo-tvm inspect resnet18.evo", short_help="Show what is in an .evo or an ONNX file."
)
@click.argument("file", metavar="M.evo|MODEL.onnx", type=PATH)
@click.option("--plan", is_flag=True, help="Show the algorithms of each layer, their times, and why one was taken.")
@json_option
def inspect(file: Path, plan: bool, as_json: bool) -> None:
    """Show what is in a compiled model or in an ONNX file, without running it.

    Of a compiled model: its target, inputs and outputs, and each kernel with its algorithm and schedule; kernels that
    run with the default schedule, because no template covers them, are listed. --plan shows instead what the compiler
    considered for each layer. Of a quantized model also: how many kernels compute in integers, and which layers stayed
    in float, and why. Of an ONNX file: inputs, outputs and operators, and whether it is quantized.
    """
    if file.suffix == ".onnx":
        if plan:
            raise UsageError("an ONNX file has no plan", where=file, hint="Compile it: evo-tvm compile --explain")
        _inspect_onnx(file, as_json)
    elif file.suffix == ".evo":
        _inspect_evo(file, plan, as_json)
    else:
        raise UsageError("neither an .evo nor an .onnx file", where=file, hint="Give a file with one of these endings.")


def _inspect_evo(file: Path, plan: bool, as_json: bool) -> None:
    from evo_tvm.runtime import container

    contents = container.read(file)
    manifest = contents.manifest
    if plan:
        if as_json:
            show_json(manifest.plan)
        else:
            show(plan_text(manifest.plan, file))
            if manifest.layouts:
                show("", layouts_text(manifest.layouts, file))
        return
    if as_json:
        defaults = [kernel.name for kernel in default_scheduled(manifest.kernels)]
        counts = {"integer_kernels": _integers(manifest.kernels), "float_kernels": _floats(manifest.kernels)}
        show_json({**json.loads(manifest.to_json()), "default_schedule": defaults, **counts})
        return
    facts = table("", "")
    facts.show_header = False
    for name, value in _facts(file, manifest, len(contents.library), len(contents.weights)):
        facts.add_row(name, value)
    show(facts, "", _kernels(manifest.kernels), "", _default_note(manifest.kernels))
    if manifest.stayed_float:
        show("", *_float_lines(manifest.stayed_float))


def _facts(file: Path, manifest: Manifest, library_bytes: int, weights_bytes: int) -> list[tuple[str, str]]:
    target = manifest.target
    return [
        ("file", f"{file}, {size_text(file.stat().st_size)}, format {manifest.format}"),
        ("compiled by", f"evo_tvm {manifest.evo_tvm} on TVM {manifest.tvm}"),
        ("target", f"{target.name} ({target.triple}, {target.cpu})"),
        ("needs", " ".join(target.features) or "nothing beyond the architecture"),
        ("threads", str(manifest.num_threads)),
        *(("input", str(spec)) for spec in manifest.inputs),
        *(("output", str(spec)) for spec in manifest.outputs),
        ("code", size_text(library_bytes)),
        ("weights", size_text(weights_bytes)),
        ("prepared", f"{size_text(manifest.prepared_bytes)} made of weights when it is loaded"),
        ("arena", size_text(manifest.arena_bytes)),
        ("arithmetic", f"{sum(kernel.flops for kernel in manifest.kernels) / 1e9:.3f} GFLOP a run"),
        *([("kernels", _integer_note(manifest))] if _is_quantized(manifest) else []),
        *_accuracy(file, manifest),
        *(("gate", text) for text in _gates(manifest)),
        ("plan", plan_summary(manifest.plan, file)),
    ]


def _gates(manifest: Manifest) -> list[str]:
    """Each gate with its kind, its threshold, and what depends on it."""
    lines = []
    for gate in manifest.gates:
        under = sum(f"+{gate.name}" in kernel.guards or f"-{gate.name}" in kernel.guards for kernel in manifest.kernels)
        kernels = f"{under} kernel{'s'[: under != 1]} depend{'s'[: under == 1]} on it"
        decides = f"{gate.decisions} decisions" if gate.decisions > 1 else kernels
        lines.append(f"{gate.name}: {gate.kind}, on above {gate.threshold:g}, {decides}")
    if manifest.curve:
        lines.append(f"{len(manifest.curve)} points on the accuracy-latency curve to move along with a budget")
    return lines


def _integers(kernels: Sequence[KernelInfo]) -> int:
    return sum(kernel.dtype == "int8" for kernel in kernels)


def _floats(kernels: Sequence[KernelInfo]) -> int:
    return len(kernels) - _integers(kernels)


def _accuracy(file: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """What accuracy control found, where compiling quantized the model with a goal."""
    found = manifest.quantization.get("accuracy")
    try:
        return [("score", score_text(found)), ("drop", drop_text(found))] if found else []
    except (KeyError, TypeError, ValueError):
        raise ArtifactError("its accuracy is damaged", where=file, hint="Compile the model again.") from None


def _is_quantized(manifest: Manifest) -> bool:
    return bool(_integers(manifest.kernels) or manifest.stayed_float)


def _integer_note(manifest: Manifest) -> str:
    return f"{_integers(manifest.kernels)} compute in integers, {_floats(manifest.kernels)} in float"


def _float_lines(layers: Sequence[StayedFloat]) -> list[str]:
    """The layers that stayed in float, and why."""
    head = f"{len(layers)} layer{'s'[: len(layers) > 1]} of this quantized model stayed in float:"
    return [head, *(f"  {layer.layer} ({layer.operator}): {layer.reason}" for layer in layers)]


def _kernels(kernels: Sequence[KernelInfo]) -> Table:
    types = ["type"] if _integers(kernels) else []
    rows = table(">#", "operator", "algorithm", "schedule", *types, ">MFLOP", ">bytes", "layers")
    for number, kernel in enumerate(kernels):
        rows.add_row(
            str(number),
            kernel.operator,
            kernel.algorithm,
            kernel.schedule,
            *([kernel.dtype] if types else []),
            f"{kernel.flops / 1e6:.1f}",
            size_text(kernel.bytes),
            " + ".join(kernel.layers),
        )
    return rows


def default_scheduled(kernels: Sequence[KernelInfo]) -> list[KernelInfo]:
    """The kernels that no template covers: they are vectorised and parallel where that goes (`schedule` says), but not
    tuned to their shape."""
    return [kernel for kernel in kernels if kernel.algorithm == "default"]


def _default_note(kernels: Sequence[KernelInfo]) -> str:
    plain = default_scheduled(kernels)
    if not plain:
        return "Every kernel has a schedule of its own."
    operators = sorted({kernel.operator for kernel in plain})
    note = f"{len(plain)} of {len(kernels)} kernels run with the default schedule: {', '.join(operators)}"
    serial = sorted({kernel.layers[0] for kernel in plain if kernel.schedule == "serial" and kernel.layers})
    return f"{note}; in serial loops: {', '.join(serial)}" if serial else note


def _inspect_onnx(file: Path, as_json: bool) -> None:
    with needs_extra("compiler"):
        from evo_tvm.frontend.inspect_model import describe

        description = describe(file)
    if as_json:
        show_json(description.as_json())
        return
    show(str(description))
