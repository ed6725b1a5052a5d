"""`evo-tvm board`: what a board needs to run and measure models."""

from __future__ import annotations

import time
from pathlib import Path

import click

from evo_tvm.cli._command import Command
from evo_tvm.cli._options import PATH, json_option
from evo_tvm.cli._show import progress, show, show_json, size_text


@click.group(short_help="Make what a board needs.")
def board() -> None:
    """Make what a board without Python needs to run and measure models."""


@board.command(cls=Command, epilog="Example: evo-tvm board build --target cortex-a76 -o rpi5")
@click.option("--target", metavar="NAME", required=True, help="The board's CPU, or a triple; see evo-tvm targets.")
@click.option("-o", "--output", metavar="DIR", type=PATH, required=True, help="The folder to make.")
@click.option("--without-server", is_flag=True, help="Make evo-run alone, which needs nothing of TVM.")
@json_option
def build(target: str, output: Path, without_server: bool, as_json: bool) -> None:
    """Make a folder to copy to a board: evo-run, which runs and times models, and an RPC server for bench, profile and
    run of other machines.
    """
    from evo_tvm.board.build import build_board
    from evo_tvm.target import resolve

    started = time.perf_counter()
    with progress() as step:
        size = build_board(resolve(target), output, server=not without_server, progress=step)
    seconds = time.perf_counter() - started
    if as_json:
        show_json({"output": str(output), "size_bytes": size, "seconds": seconds})
        return
    show(
        f"{output}: {size_text(size)}, {seconds:.1f} s",
        f"Next: scp -r {output} BOARD:  then there: {output.name}/rpc_server"
        if not without_server
        else f"Next: scp -r {output} BOARD:  then there: {output.name}/evo-run MODEL.evo",
    )
