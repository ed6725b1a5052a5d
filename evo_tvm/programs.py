"""Other programs: found, run, and reported where they fail."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from evo_tvm.errors import EvoError

#: Lines that an error tells of what a program has said, as many of the first as of the last.
_SAID = 20


def find_program(name: str, package: str) -> str:
    """The path of a program. Raises EvoError: it is not installed; `package` is Debian's that has it."""
    found = shutil.which(name)
    if found is None:
        raise EvoError(f"{name} is not installed", hint=f"Run: apt install {package}")
    return found


def find_zig() -> str | None:
    """The path of the `ziglang` package's program, where that package is installed."""
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        zig = Path(folder) / "zig"
        if zig.is_file():
            return str(zig)
    return None


def run_program(command: Sequence[str], error: type[EvoError] = EvoError) -> str:
    """What the command prints, its standard output before what it says beside it.

    Raises `error`: it failed, or did not start.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as reason:
        raise error(f"{command[0]} did not start: {reason.strerror}") from None
    if done.returncode != 0:
        raise error(f"{Path(command[0]).name} failed with status {done.returncode}:\n{_said(done)}")
    return done.stdout + done.stderr


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    if len(lines) > _SAID:
        lines = [*lines[: _SAID // 2], "...", *lines[-_SAID // 2 :]]
    return "\n".join(lines) or "it said nothing"
