"""Files that cannot be read: the message says what is wrong and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from evo_tvm.errors import ModelError
from evo_tvm.frontend.read_model import read_model
from tests.frontend._models import parse

WEIGHT = np.arange(2048, dtype=np.float32)


def external_model(folder: Path, location: str = "data.bin") -> Path:
    """A model in `folder` whose weight lies in data.bin beside it; the file says that it is at `location`."""
    model = parse("(float[2048] x) => (float[2048] y) { y = Add(x, w) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    model = read_model(external_model(tmp_path))
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), WEIGHT)


def test_small_external_tensors_are_read(tmp_path: Path) -> None:
    model = parse("(float[2] x) => (float[2] y) { y = Add(x, w) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT[:2], "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    tensor = read_model(path).graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), WEIGHT[:2])


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx: no such file\nCheck the path"):
        read_model(tmp_path / "missing.onnx")


def test_a_folder(tmp_path: Path, small_onnx: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder, not an ONNX file\nIt holds no \.onnx file"):
        read_model(tmp_path)
    with pytest.raises(ModelError, match=rf"is a folder.*\nName a file in it: .*{small_onnx.name}"):
        read_model(small_onnx.parent)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(ModelError, match="the file is empty\nExport or copy the model again"):
        read_model(path)


@pytest.mark.parametrize("data", [b"PK\x03\x04 some zip archive" * 20, b"hello world, I am text\n" * 9, bytes(100)])
def test_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"other\.onnx: not an ONNX"):
        read_model(path)


def test_another_protobuf_message(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(onnx.numpy_helper.from_array(WEIGHT, "w").SerializeToString())
    with pytest.raises(ModelError, match="not an ONNX"):
        read_model(path)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.99])
def test_a_file_cut_short(tmp_path: Path, small_onnx: Path, part: float) -> None:
    data = small_onnx.read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelError, match=r"cut short"):
        read_model(path)


def test_how_much_is_missing(tmp_path: Path) -> None:
    model = parse("(float[2048] x) => (float[2048] y) { y = Add(x, w) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    data = model.SerializeToString()
    path = tmp_path / "short.onnx"
    path.write_bytes(data[:-4096])
    with pytest.raises(ModelError, match=r"at least 4,0[0-9]{2} bytes are missing\nCopy or export the model again"):
        read_model(path)


def test_an_invalid_graph() -> None:
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*\nonnx\.checker\.check_model says more"):
        read_model(parse("(float[2] x) => (float[2] y) { y = Relu(x, x, x) }"))


def test_external_data_missing(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    (tmp_path / "data.bin").unlink()
    with pytest.raises(ModelError, match=r"external data 'data\.bin' of tensor 'w' is missing\nCopy 'data\.bin' into"):
        read_model(path)


def test_external_data_cut_short(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    (tmp_path / "data.bin").write_bytes(bytes(8000))
    with pytest.raises(ModelError, match=r"is cut short \(expected 8,192 bytes, got 8,000\)"):
        read_model(path)


@pytest.mark.parametrize("kind", ["parent", "absolute", "symlink"])
def test_external_data_outside_the_folder(tmp_path: Path, kind: str) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret.bin"
    folder.mkdir()
    secret.write_bytes(WEIGHT.tobytes())
    location = {"parent": "../secret.bin", "absolute": str(secret), "symlink": "link.bin"}[kind]
    if kind == "symlink":
        (folder / "link.bin").symlink_to(secret)
    path = external_model(folder, location)
    with pytest.raises(ModelError, match=rf"external data '{re.escape(location)}'.* is outside the model's folder"):
        read_model(path)


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    model = onnx.load(external_model(tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match="a model in memory has no folder\nPass the path"):
        read_model(model)


def test_nodes_without_a_name_are_known_by_what_they_make() -> None:
    model = read_model(parse("(float[2] x) => (float[2] y) { hidden = Relu(x) y = Neg(hidden) }"))
    assert [node.name for node in model.graph] == ["hidden", "y"]
