"""`evo-tvm tune`: measures a model's kernels, here or on a board, so that it compiles to faster ones."""

from __future__ import annotations

import time
from pathlib import Path

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._board import BoardChoice, board_options
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import (
    PATH,
    json_option,
    parse_shapes,
    shapes_option,
    target_option,
    threads_option,
)
from evo_tvm.cli._show import progress, show, show_json, table, warn
from evo_tvm.errors import UsageError


@click.command(
    cls=Command,
    epilog="Example: evo-tvm tune resnet18.onnx --trials 64",
    short_help="Measure a model's kernels, for compile to choose from.",
)
@click.argument("model", metavar="MODEL.onnx", type=PATH, required=False)
@click.option("--workloads", metavar="FILE", type=PATH, help="Kernels in place of a model's: lines of tuning logs.")
@target_option("A name of this machine, or the board's.")
@threads_option("Threads that the kernels run on; measurements count for this number alone.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Configurations to measure of each kernel and algorithm.",
)
@click.option(
    "--time",
    "minutes",
    metavar="MIN",
    type=click.FloatRange(min=0),
    help="Stop after about so many minutes, all kernels having had their share.",
)
@click.option("--algorithm", "algorithms", metavar="NAME", multiple=True, help="Measure these algorithms alone.")
@click.option("--log", metavar="DIR", type=PATH, help="The folder to write.  [default: the user's own tuning logs]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random choice.")
@shapes_option
@board_options
@json_option
def tune(
    board: BoardChoice | None,
    model: Path | None,
    workloads: Path | None,
    target: str,
    threads: int,
    trials: int,
    minutes: float | None,
    algorithms: tuple[str, ...],
    log: Path | None,
    seed: int,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure configurations of each kernel of MODEL.onnx on this machine, or a board, for compile to choose from.

    Each measurement is kept at once: after an interruption the same command goes on where it was.
    """
    if (model is None) == (workloads is None):
        raise UsageError("tune takes a model, or --workloads FILE", hint="Example: evo-tvm tune resnet18.onnx")
    input_shapes = parse_shapes(shapes)
    seconds = minutes * 60 if minutes is not None else None
    started = time.perf_counter()
    try:
        with progress(animated=False) as step, needs_extra("compiler"):
            from evo_tvm.tune_model import read_workloads
            from evo_tvm.tune_model import tune as run

            what = model if workloads is None else read_workloads(workloads)
            assert what is not None
            connect = board.connect if board is not None else None
            found = run(what, target, threads, trials, seconds, algorithms, log, seed, input_shapes, step, connect)
    except KeyboardInterrupt:
        warn(["what was measured is kept; the same command goes on from there"])
        raise
    elapsed = time.perf_counter() - started
    if as_json:
        show_json({"seconds": elapsed, "threads": threads, "kernels": [tuned.as_json() for tuned in found]})
        return
    rows = table("workload", "algorithm", ">default ms", ">best ms", ">speed-up", ">trials", ">failed", "best")
    for tuned in found:
        rows.add_row(
            tuned.workload.key,
            tuned.algorithm,
            *("" if ms is None else f"{ms:.4f}" for ms in (tuned.default_ms, tuned.best_ms)),
            "" if tuned.speed_up is None else f"{tuned.speed_up:.2f}",
            str(tuned.trials),
            str(tuned.failures or ""),
            tuned.config,
        )
    show(
        rows,
        f"\n{len(found)} pairs of kernel and algorithm, {elapsed:.0f} s",
        f"Next: evo-tvm compile {model or 'MODEL.onnx'} -o M.evo" + (f" --target {target}" if target != "host" else ""),
    )
