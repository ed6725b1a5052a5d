"""Options and arguments that several commands share, and their parsers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import click

from evo_tvm._extras import needs_extra
from evo_tvm.errors import UsageError
from evo_tvm.files import write_whole

#: A path on the command line. Whether it exists is for the code that opens it to say.
PATH = click.Path(path_type=Path)

artifact_argument = click.argument("model", metavar="M.evo", type=PATH)
onnx_argument = click.argument("model", metavar="MODEL.onnx", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
rounds_option = click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Rounds; the figure is the minimum over them.",
)
run_threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to run with.  [default: as compiled]"
)
shapes_option = click.option(
    "--input",
    "shapes",
    metavar="NAME:1x3x224x224",
    multiple=True,
    help="Shape of an input that the model leaves free; once for each.",
)


Option = Callable[[Callable[..., None]], Callable[..., None]]


def target_option(meaning: str) -> Option:
    """--target: what to compile for, this machine by default."""
    return click.option("--target", metavar="NAME", default="host", show_default=True, help=meaning)


def threads_option(meaning: str) -> Option:
    """--threads: how many, one by default."""
    return click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help=meaning)


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """`["input:1x3x224x224"]` as `{"input": (1, 3, 224, 224)}`; None where there is nothing to parse.

    Raises
    ------
    UsageError: a text of another form, or a name that is given twice.
    """
    if not texts:
        return None
    with needs_extra("compiler"):
        from evo_tvm.frontend import parse_input_shape

    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in map(parse_input_shape, texts):
        if name in shapes:
            raise UsageError(f"'{name}' is given twice", where="--input", hint="Give each input's shape once.")
        shapes[name] = shape
    return shapes


class _Nothing(Exception):
    """Leaves `write_whole` without a file."""


def check_writable(path: Path) -> None:
    """Refuse an output path before the work starts, rather than after.

    Raises
    ------
    UsageError: its folder is not there or takes no files, or it is a folder.
    """
    with suppress(_Nothing), write_whole(path):
        raise _Nothing
