"""The scripts that a fresh clone is used through: whole, executable, and clear about what stops them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("check", "quickstart", "setup", "setup_emulators", "test")
SHELL = [ROOT / ".ci" / "run", *(ROOT / "scripts" / name for name in NAMES)]


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


@pytest.mark.parametrize("emulators", [0, 1])
def test_continuous_integration_passes_on_a_failure(tmp_path: Path, emulators: int) -> None:
    scripts = {
        "scripts/setup_emulators": f"#!/bin/sh\nexit {emulators}\n",
        "scripts/test": "#!/bin/sh\nexit 3\n",
        ".ci/run": (ROOT / ".ci" / "run").read_text(),
    }
    for name, text in scripts.items():
        write_program(tmp_path / name, text)
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True)
    assert done.returncode == 3
    assert ("going on without emulated boards" in done.stderr) == bool(emulators)


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def set_up_emulators(folder: Path, apt_get: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run `scripts/setup_emulators` where only `apt_get` can be installed with: (what came of it, calls of apt-get)."""
    write_program(folder / "apt-get", f'#!/bin/sh\necho "$@" >>"{folder}/calls"\n{apt_get}\n')
    write_program(folder / "sudo", '#!/bin/sh\nshift\nexec "$@"\n')
    for tool in ("bash", "tail", "touch", "env"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        [ROOT / "scripts" / "setup_emulators"], capture_output=True, text=True, env={"PATH": str(folder)}, timeout=60
    )
    calls = folder / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


PACKAGES = "qemu-user g++-aarch64-linux-gnu g++-riscv64-linux-gnu"
INSTALL = f"install -y --no-install-recommends {PACKAGES}"


def test_emulators_are_installed_with_fresh_lists_where_the_old_ones_fail(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    done, calls = set_up_emulators(tmp_path, f'case $1 in update) touch "{fresh}";; *) [ -e "{fresh}" ];; esac')
    assert done.returncode == 0, done.stderr
    assert calls == [INSTALL, "update", INSTALL]


def test_emulators_that_cannot_be_installed(tmp_path: Path) -> None:
    done, calls = set_up_emulators(tmp_path, "echo E: no network >&2; exit 100")
    assert done.returncode == 1 and calls == [INSTALL, "update"]
    assert "error: apt-get failed:\nE: no network\n" in done.stderr
    assert f"Without {PACKAGES} the tests of emulated boards are skipped." in done.stderr


def test_emulators_that_are_there_already(tmp_path: Path) -> None:
    for arch in ("aarch64", "riscv64"):
        for tool in (f"qemu-{arch}", f"{arch}-linux-gnu-g++"):
            write_program(tmp_path / tool, "#!/bin/sh\n")
    done, calls = set_up_emulators(tmp_path, "exit 1")
    assert (done.returncode, done.stderr, calls) == (0, "", [])
