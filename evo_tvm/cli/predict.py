"""`evo-tvm predict`: what a model will take, before it is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._budget import budget_option, budget_text
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import (
    PATH,
    json_option,
    onnx_argument,
    parse_shapes,
    shapes_option,
    target_option,
    threads_option,
)
from evo_tvm.cli._show import clip, show, show_json, size_text, table, warn

if TYPE_CHECKING:
    from evo_tvm.predict_model import ModelPrediction

#: The longest texts of two columns.
_OPERATOR, _LAYER = 28, 40
_SOURCES = {"predictor": "predicted", "rule": "estimated"}


@click.command(
    cls=Command,
    epilog="Example: evo-tvm predict resnet18.onnx --target cascadelake --latency-budget 20",
    short_help="Say what a model will take, before it is compiled.",
)
@onnx_argument
@target_option('"host", a name that "evo-tvm targets" lists, or an LLVM triple.')
@threads_option("Threads that the model will run with.")
@budget_option
@click.option("--predictor", metavar="FILE", type=PATH, help="In place of the one that lies with the tuning logs.")
@shapes_option
@json_option
def predict(
    model: Path,
    target: str,
    threads: int,
    budget_ms: float | None,
    predictor: Path | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what MODEL.onnx will take on a target, kernel by kernel, and how much memory, without compiling it.

    Kernels that nothing like was measured of are estimated, and named. Nine of ten times lie between the two figures
    that are given beside each.
    """
    input_shapes = parse_shapes(shapes)
    with needs_extra("compiler"):
        from evo_tvm.predict_model import predict as run

        found = run(model, target, threads, input_shapes, predictor)
    verdict = found.meets(budget_ms) if budget_ms is not None else None
    if as_json:
        budget = {} if budget_ms is None else {"latency_budget_ms": budget_ms, "meets_budget": verdict}
        show_json({**found.as_json(), **budget})
        return
    _show(found)
    warn(f"{count} kernels are estimated: {reason}" for reason, count in found.unknown.items())
    if budget_ms is not None:
        show(budget_text(found, budget_ms))


def _show(found: ModelPrediction) -> None:
    rows = table("operator", "algorithm", ">ms", ">from", ">to", "", "layer")
    for layer in found.layers:
        times = (f"{ms:.4f}" for ms in (layer.latency_ms, layer.low_ms, layer.high_ms))
        operator = clip(layer.operator, _OPERATOR, start=True)
        rows.add_row(operator, layer.algorithm, *times, _SOURCES[layer.source], clip(layer.layer, _LAYER))
    rows.add_row("a call", "", f"{found.call_ms:.4f}", "", "", "", "")
    threads = f"{found.num_threads} thread{'s'[: found.num_threads > 1]}"
    memory = found.arena_bytes + found.weights_bytes + found.prepared_bytes
    show(
        rows,
        f"\n{found.latency_ms:.3f} ms on {found.target}, {threads}; nine of ten times between {found.low_ms:.3f} and "
        f"{found.high_ms:.3f} ms",
        f"memory: {size_text(memory)}, of which {size_text(found.arena_bytes)} for activations",
    )
