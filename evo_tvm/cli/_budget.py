"""--latency-budget: what a run may take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._show import note

if TYPE_CHECKING:
    from evo_tvm.predict_model import ModelPrediction

budget_option = click.option(
    "--latency-budget",
    "budget_ms",
    metavar="MS",
    type=click.FloatRange(min=0, min_open=True),
    help="Say whether a run will take at most so many milliseconds.",
)
_VERDICTS = {
    "yes": "is met",
    "probably": "is probably met, but it is close",
    "hardly": "is probably missed, but it is close",
    "no": "is missed",
}


def budget_text(found: ModelPrediction, budget_ms: float) -> str:
    """ "the budget of 20 ms is met: 15.2 ms predicted, between 14.1 and 16.4" """
    verdict, between = _VERDICTS[found.meets(budget_ms)], f"between {found.low_ms:.3g} and {found.high_ms:.3g}"
    return f"the budget of {budget_ms:g} ms {verdict}: {found.latency_ms:.3g} ms predicted, {between}"


def tell_budget(
    model: Path,
    target: str,
    threads: int,
    shapes: Mapping[str, tuple[int, ...]] | None,
    precision: str,
    budget_ms: float | None,
) -> dict[str, Any]:
    """Says on standard error, before the work, whether the budget is met, and returns that for `--json`; nothing where
    there is no budget. A float model is predicted in float, whatever it is to be quantized to."""
    if budget_ms is None:
        return {}
    with needs_extra("compiler"):
        from evo_tvm.predict_model import predict

        found = predict(model, target, threads, shapes)
    note(budget_text(found, budget_ms) + ("" if precision == "fp32" else "; without quantizing it"))
    return {"latency_budget_ms": budget_ms, "predicted_ms": found.latency_ms, "meets_budget": found.meets(budget_ms)}
