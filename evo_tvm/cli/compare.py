"""`evo-tvm compare`: the same model through evo_tvm and through other runtimes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import json_option, onnx_argument, parse_shapes, rounds_option, shapes_option, threads_option
from evo_tvm.cli._show import bold, progress, show, show_json, table, warn
from evo_tvm.cli.bench import describe
from evo_tvm.errors import EvoError

if TYPE_CHECKING:
    from evo_tvm.bench.compare import Comparison


@click.command(
    cls=Command,
    epilog="Example: evo-tvm compare resnet18.onnx --peers ort,openvino,ncnn,mnn",
    short_help="Put a model beside other runtimes: outputs and times.",
)
@onnx_argument
@click.option(
    "--peers", metavar="NAMES", default="ort", show_default=True, help="Runtimes to compare with, comma-separated."
)
@threads_option("Threads that each runtime gets.")
@rounds_option
@shapes_option
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="Largest max |difference| / max |reference| that passes.",
)
@json_option
def compare(
    model: Path, peers: str, threads: int, rounds: int, shapes: tuple[str, ...], tolerance: float, as_json: bool
) -> None:
    """Compile a model, check its outputs against other runtimes, and time them in turn.

    Peers: ort, openvino, ncnn, mnn, and openvino-bf16, which is OpenVINO in its own choice of precision. One that
    refuses the model is shown with "-" and its reason. The speedup is the ratio of the minima over all rounds; its
    range is that of the single rounds. The exit status is 1 where outputs of a float32 peer differ.
    """
    from evo_tvm.bench.compare import compare as put_side_by_side

    input_shapes = parse_shapes(shapes)
    with progress(animated=False) as step:
        found = put_side_by_side(
            model,
            [name.strip() for name in peers.split(",") if name.strip()],
            threads=threads,
            rounds=rounds,
            input_shapes=input_shapes,
            progress=step,
        )
    if as_json:
        show_json(found.as_json())
    else:
        _show(found)
    wrong = [result for result in found.peers if result.peer.fp32 and not result.agrees(tolerance)]
    if wrong:
        raise EvoError(
            f"the outputs differ from {wrong[0].peer.title}'s by {wrong[0].difference:.2e}",
            where=model,
            hint=f"More than --tolerance {tolerance:g}: please report the model, or allow more.",
        )


def _show(found: Comparison) -> None:
    side_by_side = table("runtime", ">min ms", ">median ms", ">spread", ">speedup", ">by round", ">difference")
    ours = found.timing
    side_by_side.add_row("evo_tvm", f"{ours.min_ms:.3f}", f"{ours.median_ms:.3f}", f"{ours.spread:.1%}")
    for result in found.peers:
        theirs, ratio = result.timing, result.speedup
        side_by_side.add_row(
            result.peer.title,
            f"{theirs.min_ms:.3f}",
            f"{theirs.median_ms:.3f}",
            f"{theirs.spread:.1%}",
            bold(f"{ratio.value:.2f}x"),
            f"{ratio.low:.2f} to {ratio.high:.2f}",
            f"{result.difference:.1e}",
        )
    for refused in found.refused:
        side_by_side.add_row(refused.peer.title, *["-"] * 6)
    show(f"{found.model}: {', '.join(found.inputs)}", side_by_side, describe(found.provenance))
    warn([*(refused.error.what for refused in found.refused), *found.warnings()])
