"""Artifact: saved whole or not at all; and light imports."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.errors import UsageError
from evo_tvm.runtime import container


def test_save_open_module(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "m.evo")
    with Artifact.open(tmp_path / "m.evo").module(num_threads=2) as mod:
        assert mod(np.zeros((4, 16), np.float32), np.array(1))[2] == 2
    assert os.listdir(tmp_path) == ["m.evo"]
    assert "library" not in repr(artifact)


def test_save_replaces_what_was_there(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "m.evo"
    path.write_bytes(b"old")
    old_umask = os.umask(0o027)
    try:
        artifact.save(path)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert Artifact.open(path).manifest.target.name == "host"


def test_a_link_is_followed(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "real.evo").touch()
    (tmp_path / "link.evo").symlink_to(tmp_path / "real.evo")
    artifact.save(tmp_path / "link.evo")
    assert (tmp_path / "link.evo").is_symlink()
    assert Artifact.open(tmp_path / "real.evo").manifest.target.name == "host"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), OSError(errno.ENOSPC, "No space left on device")]
)
@pytest.mark.parametrize("existing", [True, False])
def test_nothing_half_written(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, existing: bool
) -> None:
    path = tmp_path / "m.evo"
    if existing:
        path.write_bytes(b"old")

    def fail(_: int) -> None:
        assert len(os.listdir(tmp_path)) == 1 + existing  # the data is there by now, under another name
        raise error

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UsageError if isinstance(error, OSError) else type(error)) as raised:
        artifact.save(path)
    if isinstance(error, OSError):
        assert str(raised.value).startswith(f"{path}: cannot write this file: no space left on device\n")
    assert os.listdir(tmp_path) == (["m.evo"] if existing else [])
    assert not existing or path.read_bytes() == b"old"


def test_a_folder_that_is_missing(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "none" / "m.evo"
    with pytest.raises(UsageError) as error:
        artifact.save(path)
    assert str(error.value) == (
        f"{path}: cannot write this file: no such file or directory\n"
        f"Make the folder {path.parent} first, or choose another path."
    )


def test_a_file_where_a_folder_should_be(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write this file: not a directory\nMake the folder"):
        artifact.save(tmp_path / "file" / "m.evo")


def test_a_folder_of_that_name(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write this file: it is a folder\nChoose a path"):
        artifact.save(tmp_path)


def test_a_folder_that_may_not_be_written(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refuse)  # root may write anywhere
    with pytest.raises(
        UsageError, match=r"m\.evo: cannot write this file: permission denied\nChoose a path that you may"
    ):
        artifact.save(tmp_path / "m.evo")


def test_too_large_for_the_format(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evo_tvm.errors import ArtifactError

    monkeypatch.setattr(container, "_LIMIT", 16 * 4096 + 1000)
    with pytest.raises(ArtifactError, match=r"the model is larger than an \.evo file can be"):
        artifact.save(tmp_path / "m.evo")
    assert not os.listdir(tmp_path)


# ---- What running a model imports ----


def test_running_imports_no_compiler(evo_file: Path) -> None:
    code = (
        "import sys, numpy as np, evo_tvm; m = evo_tvm.load(sys.argv[1]);"
        "m(np.zeros((4, 16), np.float32), np.int64(1));"
        "print([x for x in ('tvm', 'tvm_ffi', 'onnx', 'rich', 'typer', 'click', 'evo_tvm.pipeline', 'evo_tvm.executor',"
        " 'tempfile', 'subprocess') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(evo_file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_evo_tvm_imports_not_even_numpy() -> None:
    code = "import sys, evo_tvm; evo_tvm.TensorSpec, evo_tvm.EvoError; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names() -> None:
    assert evo_tvm.__all__ == sorted(evo_tvm.__all__)
    assert {"compile", "load", "Artifact", "Module", "TensorSpec", "EvoError"} <= set(dir(evo_tvm))
    assert evo_tvm.__version__ == "0.1.0"
    assert evo_tvm.load.__module__ == "evo_tvm.runtime" and evo_tvm.Module.__name__ == "Module"
    with pytest.raises(AttributeError, match="module 'evo_tvm' has no attribute 'complie'"):
        evo_tvm.complie  # noqa: B018
