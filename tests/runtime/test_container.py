"""The .evo file: what is written, and every way in which one can be wrong."""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError
from evo_tvm.runtime import container
from evo_tvm.runtime.manifest import Manifest, StayedFloat
from evo_tvm.runtime.tensors import address


def rezip(path: Path, change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> Path:
    """Writes the members again with Python's zipfile, after `change` had its way with them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def edit_manifest(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()

    return change


def refused(path: Path) -> str:
    """What `load` says about the file, which must also be what `Artifact.open` says."""
    with pytest.raises(ArtifactError) as error:
        Artifact.open(path)
    with pytest.raises(ArtifactError) as again:
        evo_tvm.load(path)
    assert str(again.value) == str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


# ---- What is written ----


def test_what_is_read_is_what_was_written(evo_file: Path, artifact: Artifact) -> None:
    read = Artifact.open(evo_file)
    assert (read.library, bytes(read.weights)) == (artifact.library, bytes(artifact.weights))
    assert read.manifest == artifact.manifest.with_checksums(
        {"model.so": blake3(artifact.library).hexdigest(), "weights.bin": blake3(artifact.weights).hexdigest()}
    )


def test_any_zip_tool_reads_it(evo_file: Path) -> None:
    with zipfile.ZipFile(evo_file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", "model.so", "weights.bin"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert json.loads(archive.read("manifest.json"))["format"] == 1


def test_weights_are_mapped_at_a_page(evo_file: Path) -> None:
    import numpy as np

    assert address(np.frombuffer(container.read(evo_file).weights, np.uint8)) % 4096 == 0


def test_equal_models_give_equal_files(evo_file: Path, artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "again.evo")
    assert (tmp_path / "again.evo").read_bytes() == evo_file.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 70_000])
def test_every_size_of_weights(artifact: Artifact, tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.evo"
    dataclasses.replace(artifact, weights=bytes(size)).save(path)
    assert bytes(Artifact.open(path).weights) == bytes(size)


def test_types_and_layers_in_float_are_kept(artifact: Artifact, tmp_path: Path) -> None:
    first, *others = artifact.manifest.kernels
    layers = (StayedFloat("conv1", "conv2d", "its input is float"), StayedFloat("fc", "dense", "its weights are float"))
    manifest = dataclasses.replace(
        artifact.manifest, kernels=(dataclasses.replace(first, dtype="int8"), *others), stayed_float=layers
    )
    dataclasses.replace(artifact, manifest=manifest).save(tmp_path / "m.evo")
    read = Artifact.open(tmp_path / "m.evo").manifest
    assert [kernel.dtype for kernel in read.kernels] == ["int8", "float32", "float32"]
    assert read.stayed_float == layers


def test_a_manifest_from_before_integer_kernels(artifact: Artifact) -> None:
    fields = json.loads(artifact.manifest.to_json())
    del fields["stayed_float"]
    for kernel in fields["kernels"]:
        del kernel["dtype"]
    read = Manifest.from_json(json.dumps(fields))
    assert read.stayed_float == () and {kernel.dtype for kernel in read.kernels} == {"float32"}


# ---- What is refused, and what is said about it ----


def test_no_such_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.evo") == "no such file\nMake one with: evo-tvm compile MODEL.onnx"


def test_a_folder(tmp_path: Path) -> None:
    assert refused(tmp_path) == "cannot be read: is a directory"


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.evo").touch()
    assert refused(tmp_path / "m.evo").startswith("the file is empty\n")


@pytest.mark.parametrize("data", [b"x", b"PK", b"\x7fELF" * 100, b"\x08\x07onnx" * 50])
def test_another_kind_of_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.evo").write_bytes(data)
    assert refused(tmp_path / "m.evo").startswith("not an .evo file\nMake one with: evo-tvm compile")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated(evo_file: Path, keep: float) -> None:
    data = evo_file.read_bytes()
    evo_file.write_bytes(data[: int(len(data) * keep)])
    assert refused(evo_file).startswith("the file is truncated\nCompile the model again, or copy the file again")


@pytest.mark.parametrize("member", ["manifest.json", "model.so", "weights.bin"])
def test_an_altered_member(evo_file: Path, member: str) -> None:
    data = bytearray(evo_file.read_bytes())
    with zipfile.ZipFile(evo_file) as archive:
        content = archive.read(member)
    data[data.index(content) + len(content) // 2] ^= 1
    evo_file.write_bytes(data)
    assert refused(evo_file).startswith(
        f"the file was altered: {'its manifest' if 'json' in member else member} does not"
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_change_unnoticed(evo_file: Path, where: float, bit: int) -> None:
    good = evo_file.read_bytes()
    bad = bytearray(good)
    bad[int(where * len(good))] ^= 1 << bit
    path = evo_file.with_name("bad.evo")
    path.write_bytes(bad)
    with pytest.raises(ArtifactError):
        Artifact.open(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_garbage_gets_past(evo_file: Path, data: st.DataObject) -> None:
    """Damage to what describes the archive, where a careless reader would stumble."""
    good = evo_file.read_bytes()
    end = good.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", good, end + 16)[0]
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(start, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = evo_file.with_name("bad.evo")
    path.write_bytes(bad)
    if bytes(bad) != good:
        with pytest.raises(ArtifactError):
            Artifact.open(path)


@pytest.mark.parametrize("extra", [b"\0", b"more", b"PK\5\6" + bytes(18)])
def test_something_appended(evo_file: Path, extra: bytes) -> None:
    evo_file.write_bytes(evo_file.read_bytes() + extra)
    assert refused(evo_file)


@pytest.mark.parametrize(
    "name", ["../evil.so", "a/../../evil.so", "/etc/evil.so", "..", "C:\\evil", "\\evil", "..\\evil"]
)
def test_a_member_that_would_lie_outside(evo_file: Path, name: str) -> None:
    with zipfile.ZipFile(evo_file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    assert refused(evo_file) == f"refused: member {name!r} would lie outside the archive"


def test_an_unknown_member(evo_file: Path) -> None:
    with zipfile.ZipFile(evo_file, "a") as archive:
        archive.writestr("notes.txt", b"x")
    expected = "(expected manifest.json, model.so, weights.bin, got None)"
    assert refused(evo_file) == f"refused: unknown member 'notes.txt' {expected}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(evo_file: Path) -> None:
    with zipfile.ZipFile(evo_file, "a") as archive:
        archive.writestr("model.so", b"x")
    assert refused(evo_file) == "refused: member 'model.so' is there twice"


@pytest.mark.parametrize("member", ["manifest.json", "model.so", "weights.bin"])
def test_a_missing_member(evo_file: Path, member: str) -> None:
    rezip(evo_file, lambda members: members.__delitem__(member))
    assert refused(evo_file).startswith(f"not an .evo file: it has no {member}")


def test_a_compressed_bomb_is_not_unpacked(evo_file: Path) -> None:
    rezip(evo_file, lambda m: m.update({"weights.bin": bytes(50 << 20)}), zipfile.ZIP_DEFLATED)
    assert evo_file.stat().st_size < 1 << 20
    assert refused(evo_file) == "member 'manifest.json' is compressed; an .evo file stores its members as they are"


def test_a_newer_format(evo_file: Path) -> None:
    rezip(evo_file, edit_manifest(format=2))
    assert refused(evo_file) == (
        "written in a newer format than this evo_tvm reads (expected format 1 or older, got format 2)\n"
        "Run: pip install --upgrade evo_tvm"
    )


def test_another_layout(evo_file: Path) -> None:
    rezip(evo_file, lambda members: None)
    assert refused(evo_file).startswith("the file was altered: its layout is not the one that evo_tvm writes")


def test_features_are_checked_before_all_else_of_a_model(evo_file: Path) -> None:
    target = {"name": "future", "triple": "x86_64-linux-gnu", "cpu": "future", "features": ["warp9"]}
    rezip(evo_file, edit_manifest(target=target))
    with pytest.raises(ArtifactError, match=r"compiled for (future, and this CPU .* lacks warp9|x86_64)"):
        evo_tvm.load(evo_file)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": "1"}, "its manifest's format is wrong (expected an integer, got '1')"),
        ({"format": 0}, "its manifest's format is wrong (expected at least 1, got 0)"),
        ({"target": None}, "its manifest's target is wrong (expected an object, got None)"),
        ({"target": {}}, "its manifest's target.name is wrong (expected text, got nothing)"),
        ({"num_threads": 0}, "its manifest's num_threads is wrong (expected at least 1, got 0)"),
        ({"num_threads": True}, "its manifest's num_threads is wrong (expected an integer, got True)"),
        ({"inputs": ["x"]}, "its manifest's inputs[0] is wrong (expected an object, got 'x')"),
        (
            {"inputs": [{"name": "x", "shape": [1, -1], "dtype": "float32"}]},
            "its manifest's inputs[0].shape is wrong (expected a list of integers, none below 0, got [1, -1])",
        ),
        ({"kernels": [{"name": "k"}]}, "its manifest's kernels[0].operator is wrong (expected text, got nothing)"),
        ({"checksums": {"model.so": 3}}, "its manifest's checksums is wrong (expected texts, got {'model.so': 3})"),
        ({"arena_bytes": -64}, "its manifest's arena_bytes is wrong (expected at least 0, got -64)"),
    ],
)
def test_a_wrong_manifest(evo_file: Path, changes: dict[str, object], text: str) -> None:
    rezip(evo_file, edit_manifest(**changes))
    assert refused(evo_file) == text


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff\xfe\xfd", b"[]", b"3"])
def test_a_manifest_that_is_no_json_object(evo_file: Path, text: bytes) -> None:
    rezip(evo_file, lambda members: members.update({"manifest.json": text}))
    assert refused(evo_file).startswith(("its manifest is not JSON", "its manifest's content is wrong"))
