"""`evo-tvm profile`: where the time of a compiled model goes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import artifact_argument, json_option, run_threads_option
from evo_tvm.cli._show import clip, dim, show, show_json, table
from evo_tvm.errors import UsageError

if TYPE_CHECKING:
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
@json_option
def profile(model: Path, threads: int | None, repeat: int, top: int | None, everything: bool, as_json: bool) -> None:
    """Show each kernel's time, and how near it comes to what this CPU does at most, the slowest first.

    The limits are measured: arithmetic, in float32 and in integers, and reading memory, on as many threads.
    """
    import evo_tvm

    if top is not None and everything:
        raise UsageError("--top and --all exclude each other")
    taken = evo_tvm.load(model, num_threads=threads).profile(repeat=repeat)
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
    rate = ">GOP/s" if integers else ">GFLOP/s"
    heads = (">#", "operator", "algorithm", *_type("type", integers), ">ms", ">share", rate, ">peak", ">GB/s", ">mem.")
    heads = (*heads, "bound")
    cells = []
    for number in shown:
        kernel = taken.kernels[number]
        names = clip(kernel.operator, _OPERATOR, start=True), clip(kernel.algorithm, _ALGORITHM, start=True)
        time = f"{kernel.median_ms:.4f}", f"{kernel.share:.1%}"
        cells.append((str(number), *names, *_type(kernel.dtype, integers), *time, *_rates(kernel), kernel.bound or ""))
    others = [kernel for i, kernel in enumerate(taken.kernels) if i not in shown]
    if others:
        ms, share = sum(kernel.median_ms for kernel in others), sum(kernel.share for kernel in others)
        together = f"{len(others)} others", "", *_type("", integers), f"{ms:.4f}", f"{share:.1%}"
        cells.append(("", *together, "", "", "", "", ""))
    cells.append(("", "all", "", *_type("", integers), f"{taken.total_ms:.4f}", "", *_rates(taken), ""))
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
        dim(f"{source.cpu}, {threads} of {source.cores} cores; evo_tvm {source.evo_tvm}; {source.date}"),
    )


def _type(text: str, integers: bool) -> tuple[str, ...]:
    """A cell of the column that only models with integer kernels have."""
    return (text,) if integers else ()


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
