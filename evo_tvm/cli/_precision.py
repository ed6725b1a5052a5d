"""What `--precision auto` chose, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evo_tvm.cli._show import show, table


def show_precision(found: Mapping[str, Any]) -> None:
    """Show a `PrecisionReport`, as JSON has it."""
    rows = table("form", ">layers in float", ">ms", ">SQNR dB", "")
    for form in found["forms"]:
        quality = "-" if form["outputs_db"] is None else f"{form['outputs_db']:.1f}"
        note = "taken" if form["name"] == found["chosen"] else form["refused"]
        rows.add_row(form["name"], str(form["float_layers"]), f"{form['latency_ms']:.3f}", quality, note)
    show(f"{len(found['layers'])} layers could be in integers; times are {found['source']}:", rows)
    show(f"\n{found['chosen']}: {found['reason']}", "")
