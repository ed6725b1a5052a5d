"""`evo-tvm profile`: where the time of a compiled model goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._board import BoardChoice, board_options, load
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import artifact_argument, json_option, run_threads_option
from evo_tvm.cli._show import clip, dim, progress, show, show_json, table
from evo_tvm.errors import UsageError

if TYPE_CHECKING:
    from evo_tvm.runtime.gates import GateRate
    from evo_tvm.runtime.timing import KernelProfile, Profile

#: Kernels with less of the time than this share one line.
_SMALL = 0.01
#: Columns of the table, and the longest texts of two of them; layers get what is left.
_WIDTH, _OPERATOR, _ALGORITHM = 120, 20, 16


@click.command(
    cls=Command,
    epilog="Example: evo-tvm profile resnet18.evo --top 10",
    short_help="Show where a model's time goes, kernel by kernel.",
)
@artifact_argument
@run_threads_option
@click.option("--repeat", type=click.IntRange(min=1), default=20, show_default=True, help="Runs to take medians over.")
@click.option("--top", type=click.IntRange(min=1), help="Show this many kernels only.")
@click.option("--all", "everything", is_flag=True, help="Show kernels under 1 % of the time one by one, too.")
@board_options
@json_option
def profile(
    model: Path,
    threads: int | None,
    repeat: int,
    top: int | None,
    everything: bool,
    board: BoardChoice | None,
    as_json: bool,
) -> None:
    """Show each kernel's time, and how near it comes to what the CPU does at most, the slowest first.

    The limits are measured: arithmetic, in float32 and in integers, and reading memory, on as many threads. With --rpc
    or --tracker all of it happens on a board.
    """
    if top is not None and everything:
        raise UsageError("--top and --all exclude each other")
    with progress() as step, load(board, model, threads, step) as module:
        taken = module.profile(repeat=repeat)
    if as_json:
        show_json(taken.as_dict())
        return
    slowest_first = sorted(range(len(taken.kernels)), key=lambda i: -taken.kernels[i].median_ms)
    least = 0.0 if everything or top is not None else _SMALL
    shown = [i for i in slowest_first if taken.kernels[i].share >= least][:top]
    _show(taken, shown)


def _show(taken: Profile, shown: Sequence[int]) -> None:
    """The kernels of these numbers one by one, and the others together."""
    integers = any(kernel.dtype == "int8" for kernel in taken.kernels)
    known = any(kernel.predicted_ms is not None for kernel in taken.kernels)
    rate = ">GOP/s" if integers else ">GFLOP/s"
    heads = (">#", "operator", "algorithm", *_only("type", integers), ">ms", *_only(">predicted", known))
    heads = (*heads, ">share", rate, ">peak", ">GB/s", ">mem.", "bound")
    cells = []
    for number in shown:
        kernel = taken.kernels[number]
        names = clip(kernel.operator, _OPERATOR, start=True), clip(kernel.algorithm, _ALGORITHM, start=True)
        time = f"{kernel.median_ms:.4f}", *_only(_predicted([kernel]), known), f"{kernel.share:.1%}"
        cells.append((str(number), *names, *_only(kernel.dtype, integers), *time, *_rates(kernel), kernel.bound or ""))
    others = [kernel for i, kernel in enumerate(taken.kernels) if i not in shown]
    if others:
        ms, share = sum(kernel.median_ms for kernel in others), sum(kernel.share for kernel in others)
        time = f"{ms:.4f}", *_only(_predicted(others), known), f"{share:.1%}"
        together = f"{len(others)} others", "", *_only("", integers), *time
        cells.append(("", *together, "", "", "", "", ""))
    time = f"{taken.total_ms:.4f}", *_only(_predicted(taken.kernels), known), ""
    cells.append(("", "all", "", *_only("", integers), *time, *_rates(taken), ""))
    used = sum(2 + max(map(len, column)) for column in zip([head.lstrip(">") for head in heads], *cells, strict=True))
    rows = table(*heads, "layers")
    for i, row in enumerate(cells):
        layers = " + ".join(taken.kernels[shown[i]].layers) if i < len(shown) else ""
        rows.add_row(*row, clip(layers, max(_WIDTH - used, len("layers"))))
    source = taken.provenance
    threads = f"{source.threads} thread{'s'[: source.threads > 1]}"
    show(
        rows,
        f"\n{taken.total_ms:.3f} ms in {len(taken.kernels)} kernels, median of {taken.samples} runs",
        _limits(taken, threads),
        *map(_gate_line, taken.gates),
        dim(f"{source.cpu}, {threads} of {source.cores} cores; evo_tvm {source.evo_tvm}; {source.date}"),
    )


def _gate_line(gate: GateRate) -> str:
    """How often a gate was on in the runs that were profiled."""
    rate = "not asked" if gate.rate is None else f"on in {gate.rate:.0%} of {gate.asked} decisions"
    return f"gate {gate.name} ({gate.kind}): {rate}"


def _only(text: str, shown: bool) -> tuple[str, ...]:
    """A cell of a column that only some models have."""
    return (text,) if shown else ()


def _predicted(kernels: Sequence[KernelProfile]) -> str:
    """The sum of what was predicted, where it was of all of them."""
    found = [kernel.predicted_ms for kernel in kernels if kernel.predicted_ms is not None]
    return f"{sum(found):.4f}" if len(found) == len(kernels) else ""


def _rates(of: KernelProfile | Profile) -> tuple[str, str, str, str]:
    gflops, gbytes = ("" if value is None else f"{value:.1f}" for value in (of.gflops_per_s, of.gbytes_per_s))
    peak, memory = ("" if value is None else f"{value:.0%}" for value in (of.peak_share, of.memory_share))
    return gflops, peak, gbytes, memory


def _limits(taken: Profile, threads: str) -> str:
    """What the shares are shares of."""
    limits = (
        (taken.peak_gflops_per_s, "GFLOP/s"),
        (taken.integer_peak_gops_per_s, "GOP/s in int8"),
        (taken.memory_gbytes_per_s, "GB/s from memory"),
    )
    known = [f"{value:.1f} {unit}" for value, unit in limits if value is not None]
    return f"measured as the most of this CPU on {threads}: {', '.join(known) or 'nothing'}"
