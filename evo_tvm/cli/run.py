"""`evo-tvm run`: one run of a compiled model on inputs from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evo_tvm.cli._board import BoardChoice, board_options, compare_outputs, load, reference_option
from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, artifact_argument, check_writable, json_option, run_threads_option
from evo_tvm.cli._show import progress, show, show_json, table
from evo_tvm.errors import UsageError

if TYPE_CHECKING:
    from evo_tvm.bench.inputs import Array

#: Rows of a batch whose best classes are shown.
ROWS_SHOWN = 8


@click.command(
    cls=Command,
    epilog="Example: evo-tvm run resnet18.evo --input x.npz -o y.npz",
    short_help="Run a compiled model once.",
)
@artifact_argument
@click.option("--input", "source", metavar="X.npz", type=PATH, help="Inputs by name (.npz), or the only input (.npy).")
@click.option("--random", "seed", metavar="SEED", type=click.IntRange(min=0), help="Random inputs instead of a file.")
@click.option("-o", "--output", metavar="Y.npz", type=PATH, help="Write the outputs by name.")
@run_threads_option
@board_options
@reference_option
@json_option
def run(
    model: Path,
    source: Path | None,
    seed: int | None,
    output: Path | None,
    threads: int | None,
    board: BoardChoice | None,
    reference: Path | None,
    as_json: bool,
) -> None:
    """Run a compiled model once, and show its outputs or write them to a file.

    With --rpc or --tracker it runs on a board, and its outputs are compared with this machine's.
    """
    if (source is None) == (seed is None):
        raise UsageError("give the inputs either as a file or as random", hint="Use --input X.npz or --random SEED.")
    if output is not None:
        if output.suffix != ".npz":
            raise UsageError(
                f"cannot write {output.name!r}",
                where="-o",
                hint="Outputs are written as .npz: give the file that ending.",
            )
        check_writable(output)

    from evo_tvm.bench.arrays import load_inputs, save_arrays
    from evo_tvm.bench.inputs import random_inputs

    with progress() as step, load(board, model, threads, step) as module:
        inputs = load_inputs(source, module.inputs) if source is not None else random_inputs(module.inputs, seed or 0)
        outputs = module.run(inputs)
    difference, agreement = compare_outputs(model, board, reference, inputs, outputs, module.outputs)
    if output is not None:
        save_arrays(output, outputs)
    if as_json:
        compared = {} if difference is None else {"difference": difference}
        show_json({"outputs": [_summary(name, value) for name, value in outputs.items()], **compared})
    elif output is not None:
        show(f"{output}: {', '.join(f'{name} {_type_text(value)}' for name, value in outputs.items())}")
    else:
        _show_outputs(outputs)
    if agreement is not None and not as_json:
        show(agreement)


def _type_text(value: Array) -> str:
    return f"{value.dtype}[{'x'.join(map(str, value.shape)) or 'scalar'}]"


def _best_classes(value: Array) -> list[list[tuple[int, float]]]:
    """The five largest (class, score) of each row of a classifier's output: one that is N x C or N x C x 1 x 1."""
    import numpy as np

    if value.dtype.kind != "f" or value.ndim < 2 or value.size == 0 or value.shape[1] < 2 or value[0, 0].size != 1:
        return []
    rows = value.reshape(value.shape[0], -1)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :5]
    return [[(int(best), float(row[best])) for best in chosen] for row, chosen in zip(rows, order, strict=True)]


def _summary(name: str, value: Array) -> dict[str, object]:
    figures: dict[str, object] = {"name": name, "dtype": str(value.dtype), "shape": list(value.shape)}
    if value.size and value.dtype.kind in "fiu":
        figures |= {"min": float(value.min()), "max": float(value.max()), "mean": float(value.mean())}
    best = _best_classes(value)
    if best:
        figures["top"] = [[{"class": index, "value": score} for index, score in row] for row in best]
    return figures


def _show_outputs(outputs: Mapping[str, Array]) -> None:
    overview = table("output", "type", ">min", ">max", ">mean")
    for name, value in outputs.items():
        figures = _summary(name, value)
        numbers = [f"{figures[key]:.6g}" if key in figures else "" for key in ("min", "max", "mean")]
        overview.add_row(name, _type_text(value), *numbers)
    show(overview)
    for name, value in outputs.items():
        _show_best(name, _best_classes(value))


def _show_best(name: str, rows: Sequence[Sequence[tuple[int, float]]]) -> None:
    for number, row in enumerate(rows[:ROWS_SHOWN]):
        best = table(">class", ">value", title=f"\n{name}, row {number}: the largest")
        for index, score in row:
            best.add_row(str(index), f"{score:.6g}")
        show(best)
    if len(rows) > ROWS_SHOWN:
        show(f"... and {len(rows) - ROWS_SHOWN} more rows; write all with -o Y.npz")
