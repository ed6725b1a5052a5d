"""The cache on disk: hits, altered entries, folders that cannot be used, many processes, and what goes when full."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.artifact import Artifact
from evo_tvm.errors import CompileError
from evo_tvm.executor import build
from evo_tvm.executor.cache import Cache, CacheWarning, digest, open_cache
from evo_tvm.pipeline import compile

KEY, OTHER = digest("a key"), digest("another")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder, which the environment names; nothing is there yet."""
    path = tmp_path / "cache"
    monkeypatch.setenv("EVO_TVM_CACHE", str(path))
    return path


def output(artifact: Artifact) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    return artifact.module()(x)


# ---- Entries ----


def test_an_entry_comes_back(folder: Path) -> None:
    cache = Cache(folder)
    assert cache.get("kernel", KEY) is None
    cache.put("kernel", KEY, b"code")
    cache.put("object", KEY, b"")
    assert (cache.get("kernel", KEY), cache.get("object", KEY), cache.get("kernel", OTHER)) == (b"code", b"", None)
    assert len(list(folder.iterdir())) == 2 and not list(folder.glob("*.part"))


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:5], lambda d: b"", lambda d: d[:40] + b"!" + d[41:]])
def test_an_altered_entry_warns_and_is_gone(folder: Path, damage: object) -> None:
    cache = Cache(folder)
    cache.put("kernel", KEY, b"0123456789")
    path = cache.path("kernel", KEY)
    assert path
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.warns(CacheWarning) as caught:
        assert cache.get("kernel", KEY) is None
    assert str(caught[0].message) == (
        f"{path}: a cache entry was altered (it does not match its checksum); compiling it again"
    )
    assert not path.exists()


def test_digests_tell_parts_apart() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", ""), digest()}) == 5
    assert digest("abc") == digest(b"abc")


def test_what_was_not_used_for_longest_goes_first(folder: Path) -> None:
    cache = Cache(folder, limit_bytes=3000)
    keys = [digest(str(i)) for i in range(5)]
    for i, key in enumerate(keys):
        cache.put("kernel", key, bytes(900))
        os.utime(folder / f"kernel-{key}", (i + 1, i + 1))
    stranger = folder / "notes.txt"
    stranger.write_bytes(bytes(5000))
    os.utime(stranger, (0, 0))
    dead = folder / f"kernel-{keys[0]}.0123abcd.part"
    dead.touch()
    os.utime(dead, (1, 1))
    young = folder / f"kernel-{keys[0]}.4567abcd.part"
    young.touch()
    assert cache.get("kernel", keys[0]) is not None  # used now
    cache.trim()
    left = {key for key in keys if (folder / f"kernel-{key}").exists()}
    assert left == {keys[0], keys[3], keys[4]}
    assert stranger.exists() and young.exists() and not dead.exists()


def test_what_is_being_written_stays_however_long_that_takes(folder: Path) -> None:
    cache = Cache(folder, limit_bytes=1000)
    cache.put("kernel", KEY, bytes(900))
    others = folder / f"kernel-{KEY}.0123abcd.part"
    others.write_bytes(bytes(900))
    before = time.time() - 60
    os.utime(others, (before, before))
    cache.trim()
    assert others.exists() and cache.get("kernel", KEY) is not None


def test_nothing_added_nothing_looked_at(folder: Path) -> None:
    Cache(folder).put("kernel", KEY, bytes(100))
    reader = Cache(folder, limit_bytes=10)
    reader.trim()
    assert reader.get("kernel", KEY) is not None


# ---- Where it is ----


def test_which_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVO_TVM_CACHE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_cache().folder == tmp_path / "there"
    for off in ("off", "OFF"):
        monkeypatch.setenv("EVO_TVM_CACHE", off)
        assert open_cache().folder is None
    monkeypatch.setenv("EVO_TVM_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_cache().folder == tmp_path / "xdg" / "evo_tvm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard tells us to ignore
    assert open_cache().folder == tmp_path / ".cache" / "evo_tvm"


# ---- Compiling with it ----


def test_a_hit_needs_neither_schedule_nor_compiler(
    folder: Path, small_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile(small_onnx)
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"kernel", "object", "library"}

    def never(*arguments: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(build, "schedule_group", never)
    monkeypatch.setattr(build, "build_object", never)
    monkeypatch.setattr("evo_tvm.executor.link._CompilerDriver.compile", never)
    monkeypatch.setattr("evo_tvm.executor.link._CompilerDriver.link", never)
    second = compile(small_onnx)
    assert second.library == first.library and second.manifest == first.manifest
    assert bytes(second.weights) == bytes(first.weights)
    with pytest.raises(CompileError, match="AssertionError: called"):
        compile(small_onnx, algorithms={"*": "im2col"})  # other algorithms, other kernels


def test_an_altered_kernel_is_compiled_again(folder: Path, small_onnx: Path) -> None:
    first = compile(small_onnx)
    kernels = sorted(folder.glob("kernel-*"))
    for library in folder.glob("library-*"):
        library.unlink()
    data = bytearray(kernels[0].read_bytes())
    data[len(data) // 2] ^= 1
    kernels[0].write_bytes(data)
    with pytest.warns(CacheWarning, match=r"kernel-[0-9a-f]{64}: a cache entry was altered") as caught:
        second = compile(small_onnx)
    assert len(caught) == 1
    assert second.library == first.library
    np.testing.assert_array_equal(output(second), output(first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(small_onnx)


def test_a_folder_that_cannot_be_used_is_one_warning(
    tmp_path: Path, small_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = output(compile(small_onnx))
    (tmp_path / "file").write_text("not a folder")
    for path, reason in (("file", "cannot be read (not a directory)"), ("file/below", "cannot be read (not a dir")):
        monkeypatch.setenv("EVO_TVM_CACHE", str(tmp_path / path))
        with pytest.warns(CacheWarning) as caught:
            artifact = compile(small_onnx)
        (message,) = [str(w.message) for w in caught]
        assert message.startswith(f"the cache folder {tmp_path / path} {reason}")
        assert message.endswith("compiling without it. EVO_TVM_CACHE names another folder, or is 'off'.")
        np.testing.assert_array_equal(output(artifact), expected)


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, small_onnx: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("EVO_TVM_CACHE", "off")
        expected = output(compile(small_onnx))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evo_tvm.executor.cache.os.replace", full)
    with pytest.warns(CacheWarning) as caught:
        artifact = compile(small_onnx)
    assert [str(w.message).split(";")[0] for w in caught] == [
        f"the cache folder {folder} cannot be written (no space left on device)"
    ]
    assert not list(folder.glob("*.part"))
    np.testing.assert_array_equal(output(artifact), expected)


def test_off_writes_nothing(folder: Path, small_onnx: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVO_TVM_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    output(compile(small_onnx))
    assert not folder.exists() and not (tmp_path / "xdg").exists()


def test_the_command_line_says_it_in_one_line(tmp_path: Path, small_onnx: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = subprocess.run(
        [sys.executable, "-m", "evo_tvm.cli", "compile", str(small_onnx), "-o", str(tmp_path / "small.evo")],
        env=os.environ | {"EVO_TVM_CACHE": str(tmp_path / "file")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and (tmp_path / "small.evo").exists()
    assert done.stderr.splitlines() == [
        f"warning: the cache folder {tmp_path / 'file'} cannot be read (not a directory); compiling without it. "
        "EVO_TVM_CACHE names another folder, or is 'off'."
    ]


# ---- Many processes ----

WRITER = """
import sys, time, warnings
from pathlib import Path
from evo_tvm.executor.cache import Cache, digest
warnings.simplefilter("error")
cache, until = Cache(Path(sys.argv[1]), limit_bytes=200_000), time.time() + 1.0
while time.time() < until:
    for i in range(20):
        content = bytes([i]) * 20_000
        found = cache.get("kernel", digest(str(i)))
        assert found in (None, content)
        if found is None or i % 3 == 0:
            cache.put("kernel", digest(str(i)), content)
    cache.trim()
"""


def test_processes_write_read_and_trim_at_once(folder: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.wait(60) == 0, writer.communicate()[1]
    assert not list(folder.glob("*.part"))
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 200_000


def test_two_processes_compile_one_model_at_once(folder: Path, small_onnx: Path, tmp_path: Path) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error', UserWarning);"
        "from evo_tvm.pipeline import compile; compile(sys.argv[1]).save(sys.argv[2])"
    )
    outs = [tmp_path / f"{i}.evo" for i in range(2)]
    started = [subprocess.Popen([sys.executable, "-c", code, str(small_onnx), str(out)]) for out in outs]
    assert [process.wait(120) for process in started] == [0, 0]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"kernel", "object", "library"}
