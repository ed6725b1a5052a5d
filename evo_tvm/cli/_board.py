"""The options that have a command work on a board, and what such commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evo_tvm.cli._options import PATH
from evo_tvm.errors import UsageError

if TYPE_CHECKING:
    from evo_tvm.bench.inputs import Array
    from evo_tvm.rpc.protocol import Address
    from evo_tvm.rpc.remote_module import RemoteModule
    from evo_tvm.rpc.session import Session, Step
    from evo_tvm.runtime import Module
    from evo_tvm.spec import TensorSpec

_OPTIONS = (
    click.option("--rpc", metavar="HOST:PORT", help="Work on the board whose RPC server listens there."),
    click.option("--tracker", metavar="HOST:PORT", help="Work on a board that this tracker has for --key."),
    click.option("--key", metavar="NAME", help="The board's key."),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        help="How long a board may be busy, and any step on it may take.",
    ),
)

reference_option = click.option(
    "--reference",
    metavar="FILE",
    type=PATH,
    help="Compare the outputs with those of this .evo or .onnx on this machine, or in this .npz.  "
    "[default: with the model itself, where this machine can run it]",
)


@dataclass(frozen=True)
class BoardChoice:
    """Which board a command works on."""

    rpc: Address | None
    tracker: Address | None
    key: str
    timeout_s: float

    def load(self, model: Path, threads: int | None, step: Step) -> RemoteModule:
        """The model on the board. Raises EvoError: see `rpc.session.connect` and `RemoteModule`."""
        from evo_tvm.rpc.remote_module import RemoteModule

        return RemoteModule(model, self.connect(), threads, step)

    def connect(self) -> Session:
        """A session on the board. Raises BoardError: see `rpc.session.connect`."""
        from evo_tvm.rpc.session import connect

        return connect(self.rpc, self.tracker, self.key, self.timeout_s)


def board_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` the options, and as its `board` a BoardChoice, or None for this machine."""

    @wraps(command)
    def call(*, rpc: str | None, tracker: str | None, key: str | None, timeout: float, **others: Any) -> None:
        command(board=_choice(rpc, tracker, key, timeout), **others)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def _choice(rpc: str | None, tracker: str | None, key: str | None, timeout_s: float) -> BoardChoice | None:
    from evo_tvm.rpc.protocol import Address

    if rpc is not None and tracker is not None:
        raise UsageError("--rpc and --tracker exclude each other")
    if rpc is None and tracker is None:
        if key is not None:
            raise UsageError("--key needs --rpc or --tracker", where="--key")
        return None
    if tracker is not None and key is None:
        raise UsageError(
            "a tracker needs the key of a board",
            where="--tracker",
            hint=f"Use --key NAME; keys are listed by: evo-tvm rpc status --tracker {tracker}",
        )
    return BoardChoice(
        Address.parse(rpc, "--rpc") if rpc is not None else None,
        Address.parse(tracker, "--tracker") if tracker is not None else None,
        key or "",
        timeout_s,
    )


def load(board: BoardChoice | None, model: Path, threads: int | None, step: Step) -> Module | RemoteModule:
    """The model on the board, or on this machine."""
    if board is not None:
        return board.load(model, threads, step)
    import evo_tvm

    return evo_tvm.load(model, num_threads=threads)


def compare_outputs(
    model: Path,
    board: BoardChoice | None,
    reference: Path | None,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    specs: tuple[TensorSpec, ...],
) -> tuple[float | None, str | None]:
    """How far the outputs are from the reference's, and as a sentence; None where there is nothing to compare with.

    Raises EvoError: too far.
    """
    if board is None and reference is None:
        return None, None
    from evo_tvm.bench.reference import check_outputs, reference_outputs

    expected = reference_outputs(model, reference, inputs, specs)
    if expected is None:
        return None, "outputs not compared: this machine cannot run the model; give it --reference MODEL.onnx"
    difference = check_outputs(outputs, expected, model)
    return difference, f"outputs agree with {reference or 'this machine'}: difference {difference:.2g}"
