"""The command line, `evo-tvm COMMAND`: one file a command. Commands import what they need when they run."""

from __future__ import annotations

import click

from evo_tvm import __version__
from evo_tvm.cli.bench import bench
from evo_tvm.cli.board import board
from evo_tvm.cli.compare import compare
from evo_tvm.cli.compile import compile_
from evo_tvm.cli.gate import gate
from evo_tvm.cli.inspect import inspect
from evo_tvm.cli.logs import logs
from evo_tvm.cli.predict import predict
from evo_tvm.cli.profile import profile
from evo_tvm.cli.quantize import quantize
from evo_tvm.cli.rpc import rpc
from evo_tvm.cli.run import run
from evo_tvm.cli.targets import targets
from evo_tvm.cli.tune import tune


@click.group(
    name="evo-tvm",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: evo-tvm compile MODEL.onnx -o MODEL.evo",
)
@click.version_option(__version__, message="evo-tvm %(version)s")
def app() -> None:
    """Compile trained neural networks for edge CPUs, run them, and measure them."""


for command in (
    compile_,
    quantize,
    gate,
    run,
    bench,
    profile,
    compare,
    inspect,
    targets,
    predict,
    tune,
    logs,
    board,
    rpc,
):
    app.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="evo-tvm")
