"""`evo_tvm.compile` over the cache: the same artifact without the compiler, and never one of another model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import evo_tvm
from evo_tvm import compile_model
from evo_tvm.errors import ModelError, TargetError, UsageError
from evo_tvm.executor.cache import Cache, CacheWarning
from tests.conftest import small_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder, which the environment names."""
    monkeypatch.setenv("EVO_TVM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_same_artifact_again(folder: Path, small_onnx: Path, pipeline_runs: list[object], tmp_path: Path) -> None:
    first, second = evo_tvm.compile(small_onnx), evo_tvm.compile(small_onnx)
    assert len(pipeline_runs) == 1
    assert (second.manifest, second.library, bytes(second.weights)) == (
        first.manifest,
        first.library,
        bytes(first.weights),
    )
    first.save(tmp_path / "1.evo")
    second.save(tmp_path / "2.evo")
    assert (tmp_path / "1.evo").read_bytes() == (tmp_path / "2.evo").read_bytes()
    x = np.ones((1, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(second.module()(x), first.module()(x))


def test_a_second_compile_imports_no_tvm(folder: Path, small_onnx: Path) -> None:
    evo_tvm.compile(small_onnx)
    code = "import sys, evo_tvm; evo_tvm.compile(sys.argv[1]); print('tvm' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(small_onnx)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_what_makes_another_artifact(
    folder: Path, small_onnx: Path, pipeline_runs: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = small_model()
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    other = tmp_path / "other.onnx"
    other.write_bytes(changed.SerializeToString())
    evo_tvm.compile(small_onnx)
    evo_tvm.compile(other)
    evo_tvm.compile(small_onnx, num_threads=2)
    evo_tvm.compile(small_onnx, target="x86-64-v3")
    evo_tvm.compile(small_onnx, input_shapes={"image": (1, 3, 16, 16)})
    evo_tvm.compile(small_onnx, dump=tmp_path / "dump")
    monkeypatch.setattr(compile_model, "revision", lambda left_out: "other sources")
    evo_tvm.compile(small_onnx)
    assert len(pipeline_runs) == 7
    assert list((tmp_path / "dump").iterdir())
    evo_tvm.compile(small_model())  # the same bytes, whether in a file or in memory
    assert len(pipeline_runs) == 7


def test_a_model_in_several_files_is_compiled_each_time(
    folder: Path, pipeline_runs: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.ones((1, 3, 16, 16), np.float32)
    first = evo_tvm.compile(path).module()(x)
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    (tmp_path / "weights.bin").write_bytes(bytes(len(data)))
    assert not np.array_equal(evo_tvm.compile(path).module()(x), first)
    assert len(pipeline_runs) == 2


def test_an_altered_artifact_is_compiled_again(folder: Path, small_onnx: Path, pipeline_runs: list[object]) -> None:
    first = evo_tvm.compile(small_onnx)
    (path,) = folder.glob("model-*")
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    with pytest.warns(CacheWarning, match=r"model-[0-9a-f]{64}: a cache entry was altered \(.*compiling it again") as w:
        second = evo_tvm.compile(small_onnx)
    assert len(w) == 1 and len(pipeline_runs) == 2 and second.library == first.library
    evo_tvm.compile(small_onnx)
    assert len(pipeline_runs) == 2


def test_a_large_artifact_is_not_kept(
    folder: Path, small_onnx: Path, pipeline_runs: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_model, "open_cache", lambda: Cache(folder, limit_bytes=50_000))
    for _ in range(2):
        evo_tvm.compile(small_onnx)
    assert len(pipeline_runs) == 2 and not list(folder.glob("model-*"))


def test_one_warning_for_a_folder_that_cannot_be_used(
    small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVO_TVM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(CacheWarning, match="the cache folder .* cannot be") as caught:
        evo_tvm.compile(small_onnx)
    assert len(caught) == 1


def test_errors_are_the_pipelines(folder: Path, tmp_path: Path, small_onnx: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for model in (tmp_path / "none.onnx", tmp_path / "empty.onnx", tmp_path):
        with pytest.raises(ModelError):
            evo_tvm.compile(model)
    with pytest.raises(TargetError):
        evo_tvm.compile(small_onnx, target="no such")
    with pytest.raises(UsageError):
        evo_tvm.compile(small_onnx, num_threads=0)
    with pytest.raises(UsageError):
        evo_tvm.compile(small_onnx, precision="fp7")
    assert os.listdir(tmp_path / "cache") == [] if (tmp_path / "cache").exists() else True
