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


ACTIONS = ("stat", "best", "check", "merge", "compact")


@click.command(cls=Command, epilog="Example: evo-tvm logs stat", short_help="Show, check and merge tuning logs.")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("folders", metavar="[DIR]...", type=PATH, nargs=-1)
@click.option("--count", type=click.IntRange(min=1), help="Configurations to show or keep.  [default: 1; compact: 3]")
@click.option("-o", "--output", metavar="DIR", type=PATH, help="merge: the folder to write.")
@click.option("--compress", is_flag=True, help="merge: write .jsonl.xz, and the best of all into best.jsonl.xz.")
@json_option
def logs(
    action: str, folders: tuple[Path, ...], count: int | None, output: Path | None, compress: bool, as_json: bool
) -> None:
    """Show what tuning logs hold (stat), the fastest configurations (best), whether every line can be read (check);
    write all of several folders into one (merge), or keep the fastest alone (compact).

    Without DIR: the logs that come with evo_tvm, and your own; merge and compact need DIR.
    """
    with needs_extra("compiler"):
        from evo_tvm.tune.folders import shipped_folder, user_folder
        from evo_tvm.tune.summary import best_of, compact, logs_in, merge, summarize
    if action in ("merge", "compact") and not folders:
        raise UsageError(f"{action} needs folders", where="DIR", hint=f"Example: evo-tvm logs {action} my_logs")
    if (action == "merge") != (output is not None):
        raise UsageError("merge, and nothing else, needs a folder to write", where="--output", expected="-o DIR")
    given = folders or [f for f in (shipped_folder(), user_folder()) if f is not None and f.is_dir()]
    paths = logs_in(given)
    if action == "best":
        _show_best(list(best_of(paths, count or 1)), as_json)
        return
    if action == "compact":
        for path in paths:
            compact(path, count or 3)
    if output is not None:
        merge(paths, output, compress)
        paths = logs_in([output])
    found = [summarize(path) for path in paths]
    if as_json:
        show_json([each.as_json() for each in found])
    else:
        numbers = ("lines", "workloads", "failures", "stale", "misplaced", "broken")
        rows = table("log", ">size", *(f">{name}" for name in numbers))
        for f in found:
            rows.add_row(f.path, size_text(f.size_bytes), *(str(getattr(f, name)) for name in numbers))
        show(rows if found else "no tuning logs")
    broken = [each.path for each in found if each.broken]
    if action == "check" and broken:
        raise EvoError(
            f"{len(broken)} of {len(found)} logs have broken lines: {', '.join(broken)}",
            hint="They are skipped when the log is read; evo-tvm logs merge DIR -o OUT leaves them out.",
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
