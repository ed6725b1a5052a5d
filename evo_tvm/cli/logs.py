"""`evo-tvm logs`: what was measured so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm._extras import needs_extra
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, json_option
from evo_tvm.cli._show import show, show_json, size_text, table
from evo_tvm.errors import EvoError, UsageError

if TYPE_CHECKING:
    from evo_tvm.tune.log import Record


@click.command(cls=Command, epilog="Example: evo-tvm logs stat", short_help="Show, check and shorten tuning logs.")
@click.argument("action", type=click.Choice(["stat", "best", "check", "compact"]))
@click.argument("folder", metavar="[DIR]", type=PATH, required=False)
@click.option("--count", type=click.IntRange(min=1), help="Configurations to show or keep.  [default: 1; compact: 3]")
@json_option
def logs(action: str, folder: Path | None, count: int | None, as_json: bool) -> None:
    """Show what tuning logs hold (stat), the fastest configurations (best), whether every line can be read (check), or
    keep the fastest alone (compact, which needs DIR).

    Without DIR: the logs that come with evo_tvm, and your own.
    """
    with needs_extra("compiler"):
        from evo_tvm.tune.folders import shipped_folder, user_folder
        from evo_tvm.tune.summary import best_of, compact, summarize
    if action == "compact" and folder is None:
        raise UsageError("compact changes files: say which", where="DIR", hint="Example: evo-tvm logs compact my_logs")
    if folder is not None and not folder.is_dir():
        raise UsageError("there is no such folder", where=folder)
    folders = [folder] if folder is not None else [f for f in (shipped_folder(), user_folder()) if f is not None]
    paths = [path for each in folders for path in sorted(each.glob("*/*.jsonl"))]
    if action == "best":
        _show_best(list(best_of(paths, count or 1)), as_json)
        return
    if action == "compact":
        for path in paths:
            compact(path, count or 3)
    found = [summarize(path) for path in paths]
    if as_json:
        show_json([each.as_json() for each in found])
    else:
        rows = table("log", ">size", ">lines", ">workloads", ">failures", ">stale", ">broken")
        for f in found:
            numbers = (f.lines, f.workloads, f.failures, f.stale, f.broken)
            rows.add_row(f.path, size_text(f.size_bytes), *map(str, numbers))
        show(rows if found else "no tuning logs")
    broken = [each.path for each in found if each.broken]
    if action == "check" and broken:
        raise EvoError(
            f"{len(broken)} of {len(found)} logs have broken lines: {', '.join(broken)}",
            hint="They are skipped when the log is read; evo-tvm logs compact DIR removes them.",
        )


def _show_best(records: list[Record], as_json: bool) -> None:
    if as_json:
        show_json(
            [
                {
                    "target": r.target,
                    "threads": r.threads,
                    "workload": r.workload.key,
                    "algorithm": r.algorithm,
                    "latency_ms": r.latency_ms,
                    "config": dict(r.config),
                }
                for r in records
            ]
        )
        return
    rows = table("target", ">threads", "workload", "algorithm", ">ms", "configuration")
    for r in records:
        config = ",".join(f"{name}={value}" for name, value in r.config.items())
        rows.add_row(r.target, str(r.threads), r.workload.key, r.algorithm, f"{r.latency_ms:.4f}", config)
    show(rows if records else "no measurements")
