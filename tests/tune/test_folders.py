"""Where logs lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from evo_tvm.errors import UsageError
from evo_tvm.target import host
from evo_tvm.tune.folders import log_name, logged_target


def write(folder: Path, name: str, size: int) -> None:
    (folder / name).mkdir()
    (folder / name / "dense.jsonl").write_bytes(bytes(size))


def test_this_machine_else_the_target_with_the_most(tmp_path: Path) -> None:
    boards = {"cortex-a72": 20, "cortex-a53": 30, "sifive-u74": 10}
    boards.pop(log_name(host()), None)
    for name, size in (*boards.items(), ("no CPU", 99)):
        write(tmp_path, name, size)
    assert logged_target(tmp_path).name == max(boards, key=boards.__getitem__)
    write(tmp_path, log_name(host()), 1)
    assert logged_target(tmp_path) == host()


def test_no_logs(tmp_path: Path) -> None:
    (tmp_path / "znver4").mkdir()
    with pytest.raises(UsageError, match="no tuning logs of a known target") as error:
        logged_target(tmp_path)
    assert "--logs" in str(error.value)
