"""`evo-tvm bench`: how long a compiled model takes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import artifact_argument, json_option, rounds_option, run_threads_option
from evo_tvm.cli._show import dim, progress, show, show_json, table, warn

if TYPE_CHECKING:
    from rich.text import Text

    from evo_tvm.bench.provenance import Provenance


@click.command(
    cls=Command,
    epilog="Example: evo-tvm bench resnet18.evo --threads 2",
    short_help="Measure a compiled model's latency.",
)
@artifact_argument
@run_threads_option
@rounds_option
@json_option
def bench(model: Path, threads: int | None, rounds: int, as_json: bool) -> None:
    """Measure a compiled model's latency on this machine, with random inputs."""
    import evo_tvm
    from evo_tvm.bench import provenance, timing
    from evo_tvm.bench.inputs import random_inputs

    module = evo_tvm.load(model, num_threads=threads)
    inputs = random_inputs(module.inputs)
    circumstances = provenance.here(module.num_threads)
    with progress(animated=False) as step:
        (taken,) = timing.measure({str(model): lambda: module.run(inputs)}, rounds=rounds, progress=step).values()
    warnings = (*circumstances.warnings(), *taken.warnings())
    if as_json:
        show_json({**taken.as_json(), "provenance": circumstances.as_json(), "warnings": warnings})
        return
    figures = table("model", ">min ms", ">median ms", ">spread", ">runs")
    figures.add_row(
        str(model), f"{taken.min_ms:.3f}", f"{taken.median_ms:.3f}", f"{taken.spread:.1%}", str(len(taken.samples_ms))
    )
    show(figures, describe(circumstances))
    warn(warnings)


def describe(taken: Provenance) -> Text:
    """One line under a table: where its figures come from."""
    versions = ", ".join(f"{name} {number}" for name, number in taken.versions.items() if name != "python")
    threads = f"{taken.threads} thread{'s' if taken.threads > 1 else ''}"
    return dim(f"{taken.cpu}, {threads} of {taken.usable_cores} cores; {versions}; {taken.date}")
