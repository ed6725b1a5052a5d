"""What commands print: results on standard output, progress and warnings on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def show(*what: str | Text | Table) -> None:
    """Print to standard output. Square brackets are themselves: shapes and names are full of them."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:  # a file or a pipe has no width: let nothing be cut or wrapped
        console.width = 400
    console.print(*what, sep="\n")


def show_json(data: object) -> None:
    """Print `data` as JSON, which has no infinities: they become null."""
    print(json.dumps(_finite(data), indent=2))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not abs(data) < float("inf"):
        return None
    return data


def warn(texts: Iterable[str]) -> None:
    """Print warnings to standard error."""
    for text in texts:
        print(f"warning: {text}", file=sys.stderr)


def note(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr)


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose columns are right-aligned where their heading starts with ">"."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return made


def clip(text: str, width: int, start: bool = False) -> str:
    """`text` in `width` characters: of one that is longer the end, which tells layers apart, or the start."""
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}\u2026" if start else f"\u2026{text[len(text) - width + 1 :]}"


def bold(text: str) -> Text:
    """`text` in bold."""
    from rich.text import Text

    return Text(text, style="bold")


def dim(text: str) -> Text:
    """`text` in a fainter colour."""
    from rich.text import Text

    return Text(text, style="dim")


@contextmanager
def progress(animated: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A `step(text, done, total)` that moves a bar on standard error while that is a terminal; it leaves no trace.

    A bar that is not `animated` moves at its steps alone: no thread of its own disturbs what is being measured.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text, done, total: None
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, auto_refresh=animated) as bar:
        task = bar.add_task("starting", total=None)

        def step(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total or None, refresh=True)

        yield step


def size_text(size_bytes: float) -> str:
    """12.3 MB and the like; units of 1,000."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
