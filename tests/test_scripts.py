"""The scripts that a fresh clone is used through: whole, executable, and clear about what stops them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHELL = [ROOT / ".ci" / "run", *(ROOT / "scripts" / name for name in ("check", "quickstart", "setup", "test"))]


@pytest.mark.parametrize("script", SHELL, ids=lambda script: script.name)
def test_a_script_is_executable_and_whole(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def set_up(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/setup` in a copy that has no .venv, with `python` as the only interpreter."""
    (folder / "scripts" / "lib").mkdir(parents=True)
    for name in ("scripts/setup", "scripts/lib/setup.sh", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(
        [folder / "scripts" / "setup"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": python},
        timeout=60,
    )


def test_without_python_setup_says_what_to_install(tmp_path: Path) -> None:
    done = set_up(tmp_path, "/nonexistent/python")
    assert done.returncode == 1
    assert "no Python 3.11 or later was found" in done.stderr and "apt install python3" in done.stderr


def test_without_the_venv_module_setup_says_what_to_install(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n')
    python.chmod(0o755)
    done = set_up(tmp_path, str(python))
    assert done.returncode == 1
    assert "has no venv module" in done.stderr and "apt install python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_continuous_integration_passes_on_a_failure(tmp_path: Path) -> None:
    for name, text in (("scripts/test", "#!/bin/sh\nexit 3\n"), (".ci/run", (ROOT / ".ci" / "run").read_text())):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(0o755)
    assert subprocess.run([tmp_path / ".ci" / "run"]).returncode == 3
