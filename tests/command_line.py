"""Runs `evo-tvm` in a process of its own, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def evo(*arguments: object, env: dict[str, str] | None = None, timeout_s: float = 240) -> Result:
    """Run `evo-tvm ARGUMENTS`; `env` is added to the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "evo_tvm.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | (env or {}),
        timeout=timeout_s,
    )
    return Result(done.returncode, done.stdout, done.stderr)
