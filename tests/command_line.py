"""Runs `evo-tvm` as a user does: in this process, which is quick, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from click.testing import CliRunner

from evo_tvm.cli import app


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def evo(*arguments: object) -> Result:
    """Run `evo-tvm ARGUMENTS` in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="evo-tvm")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def evo_apart(*arguments: object, env: dict[str, str] | None = None) -> Result:
    """Run `evo-tvm ARGUMENTS` in a process of its own; `env` is added to the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "evo_tvm.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        timeout=240,
    )
    return Result(done.returncode, done.stdout, done.stderr)
