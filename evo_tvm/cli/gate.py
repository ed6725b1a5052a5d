"""`evo-tvm gate`: attaches gates that skip work where an input does not need it, and compiles the model with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, check_writable, json_option, onnx_argument, target_option, threads_option
from evo_tvm.cli._show import progress, show, show_json, size_text, table
from evo_tvm.files import write_whole

if TYPE_CHECKING:
    from evo_tvm.gates.report import GateReport


@click.command(
    cls=Command,
    epilog="Example: evo-tvm gate resnet.onnx --data train.npz --holdout held_back.npz -o resnet.evo",
    short_help="Attach gates that skip work where an input does not need it.",
)
@onnx_argument
@click.option("--data", metavar="DATA", type=PATH, required=True, help="Samples that hooks learn from, as .npz.")
@click.option("--labels", metavar="FILE", type=PATH, help='Their labels.  [default: "labels" beside the samples]')
@click.option(
    "--holdout", metavar="DATA", type=PATH, help="Samples that thresholds are chosen on.  [default: a fifth of --data]"
)
@click.option("--holdout-labels", metavar="FILE", type=PATH, help="Their labels.  [default: beside them]")
@click.option(
    "--max-drop", metavar="D", type=float, default=0.003, show_default=True, help="How far the accuracy may fall."
)
@click.option(
    "--kinds",
    metavar="KIND,...",
    default="skip,exit",
    show_default=True,
    help="Kinds of gates to try: skip, exit, channel, space, precision.",
)
@click.option(
    "--trainer",
    type=click.Choice(["backprop", "forward-forward", "near-zero"]),
    default="backprop",
    show_default=True,
    help="near-zero trains nothing; of channels alone.",
)
@click.option(
    "--samples", metavar="N", type=click.IntRange(min=1), default=20_000, show_default=True, help="Of --data."
)
@click.option("--memory", metavar="MB", type=float, default=256.0, show_default=True, help="What samples may take.")
@click.option("--epochs", metavar="N", type=click.IntRange(min=1), default=12, show_default=True, help="Of training.")
@click.option("-o", "--output", metavar="M.evo", type=PATH, required=True, help="The file to write.")
@click.option("--save", metavar="M.hooks", type=PATH, help="Write the trained hooks, too.")
@click.option("--plot", metavar="FILE.svg", type=PATH, help="Draw the accuracy-latency curve.")
@target_option("What to compile for; it must run here.")
@threads_option("Threads that the compiled model runs with.")
@json_option
def gate(
    model: Path,
    data: Path,
    labels: Path | None,
    holdout: Path | None,
    holdout_labels: Path | None,
    max_drop: float,
    kinds: str,
    trainer: str,
    samples: int,
    memory: float,
    epochs: int,
    output: Path,
    save: Path | None,
    plot: Path | None,
    target: str,
    threads: int,
    as_json: bool,
) -> None:
    """Attach gates to MODEL.onnx, train them on samples, keep those that pay, and write a compiled model.

    The model's own weights stay as they are. Thresholds are chosen on samples that were held back.
    """
    for path in (output, save, plot):
        if path is not None:
            check_writable(path)
    started = time.perf_counter()
    with progress() as step, needs_extra("compiler"):
        from evo_tvm.gate_model import gate as attach
        from evo_tvm.gates.hook import as_kinds
        from evo_tvm.gates.hooks_file import save_hooks

        found = attach(
            model,
            data,
            labels=labels,
            holdout=holdout,
            holdout_labels=holdout_labels,
            max_drop=max_drop,
            kinds=as_kinds(kinds.split(",")),
            target=target,
            num_threads=threads,
            trainer=trainer,
            samples=samples,
            memory_mb=memory,
            epochs=epochs,
            progress=step,
        )
    report = found.report
    found.artifact.save(output)
    if save is not None:
        save_hooks(save, found.hooks, report.as_json())
    if plot is not None:
        from evo_tvm.gates.plot import svg

        with write_whole(plot) as file:
            file.write(svg(report).encode())
    seconds = time.perf_counter() - started
    if as_json:
        show_json({"output": str(output), "seconds": seconds, **report.as_json()})
        return
    _show_report(report)
    show(
        f"{output}: {size_text(output.stat().st_size)}, {len(found.hooks)} gates, {seconds:.1f} s",
        f"Next: evo-tvm bench {output}",
    )


def _show_report(report: GateReport) -> None:
    rows = table("site", "kind", ">threshold", ">rate", ">saves", ">hook takes", "attached")
    for one in report.gates:
        rows.add_row(
            one.site,
            one.kind,
            f"{one.threshold:.4g}" if one.attached else "",
            f"{one.rate:.1%}",
            f"{one.saved:.1%}",
            f"{one.own:.2%}",
            one.reason or "yes",
        )
    show("Gates; of the time of the model without gates:", rows, "")
    for absent in report.absent:
        show(f"There is no site for a gate of the kind {absent}.", "")
    rows = table("held-back samples", f">{report.metric}", ">latency")
    rows.add_row("without gates", f"{report.ungated:.2%}", "100.0%")
    for kind in report.kinds:
        rows.add_row(f"{kind.kind} gates alone, predicted", f"{kind.accuracy:.2%}", f"{kind.latency:.1%}")
    rows.add_row("gates, predicted", f"{report.predicted[0]:.2%}", f"{report.predicted[1]:.1%}")
    rows.add_row("gates, measured", f"{report.measured[0]:.2%}", f"{report.measured[1]:.1%}")
    show(rows, "", "Along the curve, by mod(x, budget=LATENCY):")
    rows = table(">latency", f">{report.metric}")
    for point in report.curve:
        rows.add_row(f"{point.latency:.1%}", f"{point.accuracy:.2%}")
    show(rows, f"\nHooks have {report.share:.2%} of the model's parameters.", "")
