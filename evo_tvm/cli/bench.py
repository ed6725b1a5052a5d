"""`evo-tvm bench`: how long a compiled model takes, on this machine or on a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._board import BoardChoice, board_options, compare_outputs, reference_option
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, artifact_argument, json_option, rounds_option, run_threads_option
from evo_tvm.cli._show import dim, progress, show, show_json, table, warn
from evo_tvm.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from evo_tvm.bench.provenance import Provenance


#: On a board, a round is so many calls at least, and so long.
_CALLS, _ROUND_S = 3, 0.3


@click.command(
    cls=Command,
    epilog="Example: evo-tvm bench resnet18.evo --threads 2",
    short_help="Measure a compiled model's latency.",
)
@artifact_argument
@run_threads_option
@rounds_option
@board_options
@reference_option
@click.option("--data", type=PATH, metavar="X.npz", help="Measure over these inputs, labels beside them.")
@json_option
def bench(
    model: Path,
    threads: int | None,
    rounds: int,
    board: BoardChoice | None,
    reference: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Measure a compiled model's latency with random inputs, on this machine or, with --rpc or --tracker, on a board.

    Outputs of a board are compared with this machine's first. Its times are taken there, without the network. With
    --data each input is run once, on this machine: average and percentiles of their latencies, which way through the
    model's gates they take, and, with labels, the accuracy.
    """
    if data is not None:
        if board is not None:
            raise UsageError("--data is measured on this machine", hint="Leave out the board, or --data.")
        _bench_over_data(model, threads, data, as_json)
        return
    from evo_tvm.bench.inputs import random_inputs

    if board is not None:
        _bench_on_board(model, threads, rounds, board, reference, as_json)
        return

    import evo_tvm
    from evo_tvm.bench import provenance, timing

    module = evo_tvm.load(model, num_threads=threads)
    inputs = random_inputs(module.inputs)
    difference, agreement = compare_outputs(model, None, reference, inputs, module.run(inputs), module.outputs)
    circumstances = provenance.here(module.num_threads)
    with progress(animated=False) as step:
        (taken,) = timing.measure({str(model): lambda: module.run(inputs)}, rounds=rounds, progress=step).values()
    warnings = (*circumstances.warnings(), *taken.warnings())
    if as_json:
        compared = {} if difference is None else {"difference": difference}
        show_json({**taken.as_json(), **compared, "provenance": circumstances.as_json(), "warnings": warnings})
        return
    figures = table("model", ">min ms", ">median ms", ">spread", ">runs")
    figures.add_row(
        str(model), f"{taken.min_ms:.3f}", f"{taken.median_ms:.3f}", f"{taken.spread:.1%}", str(len(taken.samples_ms))
    )
    show(figures, *([agreement] if agreement else []), describe(circumstances))
    warn(warnings)


def _bench_on_board(
    model: Path, threads: int | None, rounds: int, board: BoardChoice, reference: Path | None, as_json: bool
) -> None:
    from evo_tvm.bench.inputs import random_inputs

    with progress() as step, board.load(model, threads, step) as module:
        inputs = random_inputs(module.inputs)
        outputs = module.run(inputs)
        difference, agreement = compare_outputs(model, board, reference, inputs, outputs, module.outputs)
        taken = module.benchmark(
            repeat=_CALLS * rounds, warmup=1, min_time_s=_ROUND_S * rounds, inputs=inputs, progress=step
        )
        where = module.board
    warnings = [text for text in (taken.warning,) if text is not None]
    if difference is None and agreement is not None:
        warnings.append(agreement)
    if as_json:
        show_json({**taken.as_dict(), "difference": difference, "board": where.as_json(), "warnings": warnings})
        return
    figures = table("model", ">min ms", ">median ms", ">p90 ms", ">p99 ms", ">runs")
    times = (taken.min_ms, taken.median_ms, taken.p90_ms, taken.p99_ms)
    figures.add_row(str(model), *(f"{time:.3f}" for time in times), str(len(taken.samples_ms)))
    source = taken.provenance
    line = (
        f"{where.cpu}, {source.threads} thread{'s'[: source.threads > 1]} of {where.cores} cores; "
        f"server {where.server}; {source.date}"
    )
    show(figures, *([agreement] if difference is not None and agreement else []), dim(line))
    warn(warnings)


def _bench_over_data(model: Path, threads: int | None, data: Path, as_json: bool) -> None:
    import evo_tvm
    from evo_tvm.bench import provenance
    from evo_tvm.bench.paths import measure_inputs
    from evo_tvm.gates.samples import open_samples
    from evo_tvm.quantize.calibration_data import ModelInput

    module = evo_tvm.load(model, num_threads=threads)
    inputs = [ModelInput(spec.name, spec.shape, spec.dtype) for spec in module.inputs]
    taken = measure_inputs(module, open_samples(data, None, inputs))
    circumstances = provenance.here(module.num_threads)
    if as_json:
        show_json({**taken.as_json(), "provenance": circumstances.as_json(), "warnings": circumstances.warnings()})
        return
    figures = table("inputs", ">average ms", ">median ms", ">p90 ms", ">p99 ms", ">max ms", ">accuracy")
    times = (taken.average_ms, taken.median_ms, taken.p90_ms, taken.p99_ms, taken.max_ms)
    accuracy = "" if taken.accuracy is None else f"{taken.accuracy:.2%}"
    figures.add_row(str(taken.inputs), *(f"{time:.3f}" for time in times), accuracy)
    ways = table(">share", "left out")
    for path in taken.paths:
        ways.add_row(f"{path.share:.1%}", "nothing" if path.path == "all" else path.path)
    show(figures)
    if taken.gates:
        show("", ways)
    show(describe(circumstances))
    warn(circumstances.warnings())


def describe(taken: Provenance) -> Text:
    """One line under a table: where its figures come from."""
    versions = ", ".join(f"{name} {number}" for name, number in taken.versions.items() if name != "python")
    threads = f"{taken.threads} thread{'s' if taken.threads > 1 else ''}"
    return dim(f"{taken.cpu}, {threads} of {taken.usable_cores} cores; {versions}; {taken.date}")
