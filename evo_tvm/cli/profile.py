"""`evo-tvm profile`: where the time of a compiled model goes, kernel by kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import artifact_argument, json_option, run_threads_option
from evo_tvm.cli._show import dim, show, show_json, table

if TYPE_CHECKING:
    from evo_tvm.runtime.timing import Profile


@click.command(
    cls=Command,
    epilog="Example: evo-tvm profile resnet18.evo --top 10",
    short_help="Show where a model's time goes, kernel by kernel.",
)
@artifact_argument
@run_threads_option
@click.option("--repeat", type=click.IntRange(min=1), default=20, show_default=True, help="Runs to take medians over.")
@click.option("--top", type=click.IntRange(min=1), help="Show this many kernels only.")
@json_option
def profile(model: Path, threads: int | None, repeat: int, top: int | None, as_json: bool) -> None:
    """Show each kernel's time, share, GFLOP/s and algorithm, the slowest first."""
    import evo_tvm

    taken = evo_tvm.load(model, num_threads=threads).profile(repeat=repeat)
    if as_json:
        show_json(taken.as_dict())
    else:
        _show(taken, top)


def _show(taken: Profile, top: int | None) -> None:
    rows = table(">#", "operator", "algorithm", ">median ms", ">share", ">GFLOP/s", ">GB/s", "layers")
    slowest_first = sorted(enumerate(taken.kernels), key=lambda numbered: -numbered[1].median_ms)
    for number, kernel in slowest_first[:top]:
        rows.add_row(
            str(number),
            kernel.operator,
            kernel.algorithm,
            f"{kernel.median_ms:.4f}",
            f"{kernel.share:.1%}",
            "" if kernel.gflops_per_s is None else f"{kernel.gflops_per_s:.1f}",
            "" if kernel.gbytes_per_s is None else f"{kernel.gbytes_per_s:.1f}",
            " + ".join(kernel.layers),
        )
    source = taken.provenance
    threads = f"{source.threads} thread{'s'[: source.threads > 1]}"
    show(
        rows,
        f"\n{taken.total_ms:.3f} ms in {len(taken.kernels)} kernels, median of {taken.samples} runs",
        dim(f"{source.cpu}, {threads} of {source.cores} cores; evo_tvm {source.evo_tvm}; {source.date}"),
    )
