"""`evo-tvm compile`: an ONNX model becomes one `.evo` file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._budget import budget_option, tell_budget
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import (
    PATH,
    check_writable,
    json_option,
    onnx_argument,
    parse_shapes,
    shapes_option,
    target_option,
    threads_option,
)
from evo_tvm.cli._plan import layouts_text, plan_text
from evo_tvm.cli._precision import show_precision
from evo_tvm.cli._quantize import quantize_options, read_quantize_options, refuse_given, show_accuracy
from evo_tvm.cli._show import progress, show, show_json, size_text
from evo_tvm.errors import UsageError


@click.command(
    "compile", cls=Command, epilog="Example: evo-tvm compile resnet18.onnx -o resnet18.evo --input input:1x3x224x224"
)
@onnx_argument
@click.option("-o", "--output", metavar="M.evo", type=PATH, required=True, help="The file to write.")
@target_option('"host", a name that "evo-tvm targets" lists, or an LLVM triple.')
@threads_option("Threads that the model will run with.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "auto"]),
    default="fp32",
    show_default=True,
    help="What the model is compiled to compute in: int8 quantizes it first, with --calib and the options below it; "
    "auto then takes float or integers for each layer, whichever is faster here.",
)
@shapes_option
@click.option(
    "--algorithm",
    "algorithms",
    metavar="LAYER=ALGORITHM",
    multiple=True,
    help='Compute this layer so; once for each. LAYER "*": all layers that the algorithm fits.',
)
@click.option("--explain", is_flag=True, help="Show the algorithms of each layer, their times, and why one was taken.")
@budget_option
@click.option("--predict", is_flag=True, help="--precision auto: decide by predicted times, and compile once.")
@click.option("--measure", is_flag=True, help="Measure the few configurations of each kernel that are predicted best.")
@click.option("--dump", metavar="DIR", type=PATH, help="Write the module after each phase into this folder.")
@quantize_options
@json_option
@click.pass_context
def compile_(
    context: click.Context,
    /,
    model: Path,
    output: Path,
    target: str,
    threads: int,
    precision: str,
    shapes: tuple[str, ...],
    algorithms: tuple[str, ...],
    explain: bool,
    budget_ms: float | None,
    predict: bool,
    measure: bool,
    dump: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile an ONNX model into one .evo file."""
    input_shapes, asked = parse_shapes(shapes), parse_algorithms(algorithms)
    check_writable(output)
    if precision == "fp32":
        refuse_given(context, options, "is for --precision int8 and auto")
    started = time.perf_counter()
    budget = tell_budget(model, target, threads, input_shapes, precision, budget_ms)
    with progress() as step, needs_extra("compiler"):
        import evo_tvm

        quantization = vars(read_quantize_options(options)) if precision != "fp32" else {}
        artifact = evo_tvm.compile(
            model,
            target=target,
            num_threads=threads,
            precision=precision,
            input_shapes=input_shapes,
            algorithms=asked,
            dump=dump,
            progress=step,
            measure=measure,
            predict=predict,
            **quantization,
        )
        artifact.save(output)
    seconds = time.perf_counter() - started
    manifest = artifact.manifest
    if as_json:
        show_json(
            {
                "output": str(output),
                "size_bytes": output.stat().st_size,
                "seconds": seconds,
                "target": manifest.target.name,
                "num_threads": threads,
                "kernels": len(manifest.kernels),
                "arena_bytes": manifest.arena_bytes,
                **budget,
                **({"plan": manifest.plan, "layouts": manifest.layouts} if explain else {}),
                **({"quantization": manifest.quantization} if manifest.quantization else {}),
            }
        )
        return
    if explain:
        show(plan_text(manifest.plan, output), "")
        if manifest.layouts:
            show(layouts_text(manifest.layouts, output), "")
    if manifest.quantization.get("accuracy"):
        show_accuracy(manifest.quantization["accuracy"])
    if "precision" in manifest.quantization:
        show_precision(manifest.quantization["precision"])
    from evo_tvm.runtime import cpu

    show(
        f"{output}: {size_text(output.stat().st_size)}, {len(manifest.kernels)} kernels for {manifest.target.name}, "
        f"compiled in {seconds:.1f} s",
        f"Next: evo-tvm bench {output}"
        if manifest.target.arch == cpu.arch()
        else f"Next: copy it to the board, and there: evo-run {output.name}",
    )


def parse_algorithms(texts: Sequence[str]) -> dict[str, str] | None:
    """`["conv1=winograd2"]` as `{"conv1": "winograd2"}`; None where there is nothing. A layer may have "=" in its name.

    Raises UsageError: a text of another form, or a layer that is given twice.
    """
    asked: dict[str, str] = {}
    for text in texts:
        layer, equals, algorithm = text.rpartition("=")
        if not (equals and layer and algorithm):
            raise UsageError("wrong form", where="--algorithm", expected="LAYER=ALGORITHM", got=repr(text))
        if layer in asked:
            raise UsageError(f"'{layer}' is given twice", where="--algorithm", hint="Give each layer one algorithm.")
        asked[layer] = algorithm
    return asked or None
