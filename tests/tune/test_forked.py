from __future__ import annotations

import os
import signal
import subprocess
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from evo_tvm.errors import CompileError
from evo_tvm.tune.forked import Forked


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether the process ends within so many seconds; one that nobody has waited for counts as ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def start_another(note: Path) -> None:
    """Leaves the number of a process that sleeps."""
    pid = subprocess.Popen(["sleep", "1000"]).pid
    note.with_suffix(".part").write_text(str(pid))
    note.with_suffix(".part").rename(note)


def fail() -> None:
    raise ValueError("too bad")


def test_results_and_errors() -> None:
    assert Forked(lambda: 6 * 7).result() == 42
    with pytest.raises(CompileError, match="ValueError: too bad"):
        Forked(fail).result()
    with pytest.raises(CompileError, match=r"crashed \(SIGSEGV\)"):
        Forked(lambda: os.kill(os.getpid(), signal.SIGSEGV)).result()


@pytest.mark.parametrize("how", ["ended", "returned", "crashed"])
def test_what_it_started_ends_with_it(tmp_path: Path, how: str) -> None:
    note = tmp_path / "pid"

    def work() -> None:
        start_another(note)
        if how == "ended":
            time.sleep(1000)
        if how == "crashed":
            os.kill(os.getpid(), signal.SIGKILL)

    running = Forked(work)
    if how == "ended":
        while not note.exists():
            time.sleep(0.01)
        running.end()
    else:
        wait([running.connection])
        if how == "crashed":
            with pytest.raises(CompileError, match="crashed"):
                running.result()
        else:
            running.result()
    assert gone(int(note.read_text()))
