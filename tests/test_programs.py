"""Other programs: what they print, and what is said where they are missing or fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evo_tvm.errors import CompileError, EvoError
from evo_tvm.programs import find_program, find_zig, run_program


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_both_streams_are_returned_the_standard_one_first() -> None:
    code = "import sys; print('beside', file=sys.stderr, flush=True); sys.stdout.buffer.write(b'result\\n\\xff')"
    assert run_program(python(code)) == "result\n\ufffdbeside\n"


def test_a_failure_is_of_the_callers_kind_and_tells_what_was_said() -> None:
    code = "import sys; print('ignored'); sys.exit('no such thing')"
    with pytest.raises(CompileError, match=r"^python[\d.]* failed with status 1:\nno such thing$"):
        run_program(python(code), CompileError)


def test_what_is_printed_is_told_where_nothing_is_said_beside_it() -> None:
    with pytest.raises(EvoError, match=r"failed with status 3:\nlast words$"):
        run_program(python("print('last words'); raise SystemExit(3)"))
    with pytest.raises(EvoError, match=r"failed with status 3:\nit said nothing$"):
        run_program(python("raise SystemExit(3)"))


def test_of_many_lines_the_first_and_the_last_are_told() -> None:
    with pytest.raises(EvoError) as error:
        run_program(python("[print(i) for i in range(1000)]; raise SystemExit(1)"))
    _, *lines = error.value.what.splitlines()
    assert lines == [*map(str, range(10)), "...", *map(str, range(990, 1000))]


def test_a_signal_is_a_failure() -> None:
    with pytest.raises(EvoError, match="failed with status -9:"):
        run_program(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))


def test_a_program_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(EvoError, match=r"none did not start: No such file or directory$"):
        run_program([str(tmp_path / "none")])
    (tmp_path / "closed").touch()
    with pytest.raises(CompileError, match=r"closed did not start: Permission denied$"):
        run_program([str(tmp_path / "closed")], CompileError)


def test_finding_a_program() -> None:
    assert Path(find_program("sh", "dash")).name == "sh"
    with pytest.raises(EvoError, match=r"^no-such-program is not installed\nRun: apt install no-such-package$"):
        find_program("no-such-program", "no-such-package")


def test_no_zig_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_zig() is None
