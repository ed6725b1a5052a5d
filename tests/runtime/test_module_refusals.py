"""Artifacts that a Module refuses: for another machine, or with parts that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import evo_tvm
from evo_tvm.artifact import Artifact
from evo_tvm.errors import ArtifactError, InputError
from evo_tvm.runtime import library as library_module
from evo_tvm.spec import TensorSpec

# ---- Other machines ----


def _for(artifact: Artifact, **target: object) -> Artifact:
    manifest = artifact.manifest
    return replace(artifact, manifest=replace(manifest, target=replace(manifest.target, **target)))  # type: ignore[arg-type]


def test_features_that_this_cpu_lacks(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "m.evo"
    _for(artifact, name="future", features=("warp9", "timetravel")).save(path)
    with pytest.raises(ArtifactError) as error:
        evo_tvm.load(path)
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}: compiled for future, and this CPU (")
    assert first.endswith(") lacks warp9, timetravel")
    assert second == "Compile the model for this machine with --target host."
    assert Artifact.open(path).manifest.target.name == "future"  # to look at it needs no such CPU


def test_another_architecture(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"compiled for s390x \(host\), and this CPU is "):
        _for(artifact, triple="s390x-linux-gnu").module()


# ---- A library that does not belong to its manifest ----


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"arena_bytes": 64}, "they differ in the size of the arena (expected 320, got 64)"),
        ({"prepared_bytes": 0}, "they differ in the size of the prepared weights (expected 64, got 0)"),
        ({"kernels": ()}, "they differ in the number of kernels (expected 3, got 0)"),
        ({"inputs": ()}, "they differ in the number of inputs (expected 2, got 0)"),
        (
            {"inputs": (TensorSpec("x", (9, 9), "float32"), TensorSpec("k", (), "int64"))},
            "they differ in the bytes of 'x' (expected 256, got 324)",
        ),
    ],
)
def test_parts_that_do_not_belong_together(artifact: Artifact, change: dict[str, object], text: str) -> None:
    with pytest.raises(ArtifactError) as error:
        replace(artifact, manifest=replace(artifact.manifest, **change)).module()  # type: ignore[arg-type]
    assert text in str(error.value)


def test_weights_of_the_wrong_size(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"they differ in the size of the weights \(expected 64, got 60\)"):
        replace(artifact, weights=b"w" * 60).module()


def test_a_library_of_an_earlier_interface(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "ABI_VERSION", 4)
    with pytest.raises(ArtifactError) as error:
        artifact.module()
    assert str(error.value) == (
        "model: its library has another interface than this evo_tvm calls (expected version 4, got version 3)\n"
        "Compile the model again with this evo_tvm."
    )


def test_a_library_that_is_none(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="its library cannot be loaded: "):
        replace(artifact, library=b"\x7fELF, but no more").module()


def test_an_unknown_dtype(artifact: Artifact) -> None:
    strange = (TensorSpec("x", (4, 16), "float33"), TensorSpec("k", (), "int64"))
    with pytest.raises(InputError, match="x: numpy has no dtype float33"):
        replace(artifact, manifest=replace(artifact.manifest, inputs=strange)).module()
