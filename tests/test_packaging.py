"""The packages lie where `pip install` puts them, once, and the base of the distribution stays light."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import evo_tvm

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schedules", "targets", "tuning_logs")


def python(code: str, cwd: Path) -> str:
    """What a fresh interpreter prints when it runs `code` in `cwd`."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("order", ["{0}, evo_tvm.{0}", "evo_tvm.{0}, {0}"])
def test_a_room_has_one_identity(room: str, order: str) -> None:
    code = (
        f"import {order.format(room)}, sys; print({room} is evo_tvm.{room} is sys.modules['{room}'], {room}.__name__)"
    )
    assert python(code, ROOT) == f"True evo_tvm.{room}"


def test_what_lies_in_a_room_has_one_identity(tmp_path: Path) -> None:
    package = tmp_path / "schedules"
    package.mkdir()
    (package / "__init__.py").write_text((ROOT / "schedules" / "__init__.py").read_text())
    (package / "rule.py").write_text("LANES = object()\n")
    code = (
        "import evo_tvm.schedules\n"
        f"evo_tvm.schedules.__path__.append({str(package)!r})\n"
        "import schedules.rule, evo_tvm.schedules.rule as real\n"
        "from schedules.rule import LANES\n"
        "print(schedules.rule is real, LANES is real.LANES, real.__spec__.name)"
    )
    assert python(code, tmp_path) == "True True evo_tvm.schedules.rule"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_importable_from_anywhere(room: str, tmp_path: Path) -> None:
    assert python(f"import evo_tvm.{room} as room; print(room.__name__)", tmp_path) == f"evo_tvm.{room}"


def test_the_version_has_one_source() -> None:
    assert version("evo_tvm") == evo_tvm.__version__


def test_the_console_script_is_installed() -> None:
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.name == "evo-tvm")
    assert script.value == "evo_tvm.cli:main"


def test_the_base_brings_no_compiler() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = " ".join(project["dependencies"])
    assert "apache-tvm-ffi==0.1.14.post1" in base
    for heavy in ("apache-tvm=", "onnx", "torch", "xgboost", "scipy", "ziglang"):
        assert heavy not in base
    assert "apache-tvm==0.27.0.post1" in project["optional-dependencies"]["compiler"]


@pytest.mark.slow
def test_the_wheel_carries_the_rooms_and_their_data(tmp_path: Path) -> None:
    # From a copy: setuptools builds in the tree, and would pack what an earlier build left there.
    source = tmp_path / "source"
    source.mkdir()
    for part in ("evo_tvm", *ROOMS):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / part, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = tmp_path.glob("evo_tvm-*.whl")
    code = f"import zipfile; print('\\n'.join(zipfile.ZipFile({str(wheel)!r}).namelist()))"
    names = python(code, tmp_path).splitlines()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"evo_tvm"}
    ours = [path for part in ("evo_tvm", *ROOMS) for path in (ROOT / part).rglob("*") if path.is_file()]
    logs = {path for path in ours if path.name.endswith(".jsonl.xz") and path.name != "best.jsonl.xz"}
    wanted = {str(path.relative_to(ROOT)) for path in ours if "__pycache__" not in path.parts and path not in logs}
    assert {name if name.startswith("evo_tvm/") else f"evo_tvm/{name}" for name in wanted} <= set(names)
    assert logs and not {f"evo_tvm/{path.relative_to(ROOT)}" for path in logs} & set(names), "the best are enough"
