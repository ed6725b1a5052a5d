"""Help is there for every command, shows an example, and comes at once."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from evo_tvm import __version__
from evo_tvm.cli import app
from tests.command_line import evo

COMMANDS = (
    "bench",
    "board",
    "compare",
    "compile",
    "gate",
    "inspect",
    "logs",
    "predict",
    "profile",
    "quantize",
    "rpc",
    "run",
    "targets",
    "tune",
)


def test_the_commands_are_those_of_the_manual() -> None:
    assert tuple(sorted(app.commands)) == COMMANDS


def _leaves() -> dict[str, click.Command]:
    """The commands that do something by their full names, "rpc server" for one."""
    found: dict[str, click.Command] = {}
    for name, command in app.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        found |= {f"{name} {part}".strip(): leaf for part, leaf in inner.items()}
    return found


LEAVES = _leaves()
#: What they print is not figures.
WITHOUT_FIGURES = frozenset(("rpc server", "rpc tracker"))


@pytest.mark.parametrize("command", LEAVES)
def test_help_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: evo-tvm {command} " in result.output
    assert "--verbose" in result.output
    assert "--json" in result.output or command in WITHOUT_FIGURES


@pytest.mark.parametrize("command", LEAVES)
def test_the_example_uses_options_that_the_command_has(command: str) -> None:
    epilog = LEAVES[command].epilog
    assert epilog is not None
    known = {name for option in LEAVES[command].params for name in option.opts}
    assert {word for word in epilog.split() if word.startswith("-")} <= known


def test_help_imports_no_array_library_and_no_compiler() -> None:
    code = (
        "import sys\n"
        "from evo_tvm.cli import main\n"
        "sys.argv = ['evo-tvm', 'compile', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({'numpy', 'tvm', 'tvm_ffi', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.output == f"evo-tvm {__version__}\n"


def test_wrong_use_ends_with_status_2_and_the_way_to_help() -> None:
    for arguments in (["compil"], ["compile"], ["compile", "m.onnx", "-o", "m.evo", "--treads", "2"]):
        result = evo(*arguments)
        assert result.status == 2
        assert "--help" in result.err and result.out == ""
