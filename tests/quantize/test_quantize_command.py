"""`evo-tvm quantize` as a user runs it: files, JSON, the report, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.command_line import Result, evo
from tests.conftest import small_model
from tests.quantize._models import constant, end_to_end_db, operators

IMAGES = np.random.default_rng(0).standard_normal((12, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize")
    np.savez(path / "calib.npz", image=IMAGES)
    (path / "small.onnx").write_bytes(small_model("N").SerializeToString())
    return path


def quantize(folder: Path, output: Path, *options: object) -> Result:
    return evo("quantize", folder / "small.onnx", "-o", output, *options)


def test_quantize_then_compile_and_run(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "q.onnx"
    done = quantize(folder, output, "--calib", folder / "calib.npz", "--samples", 4, "--report", tmp_path / "r.json")
    assert done.status == 0, done.err
    assert f"{output}: " in done.out and "4 layers in int8" in done.out and "Next: evo-tvm compile" in done.out
    assert "SQNR over 4 samples" in done.out and "Outputs against the float model: scores" in done.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert [layer["name"] for layer in report["layers"]] == ["conv", "pool", "dense"]
    assert report["calibration_samples"] == 4
    found = onnx.load(output)
    onnx.checker.check_model(found, full_check=True)
    feeds = [{"image": image[None]} for image in IMAGES]
    assert end_to_end_db(small_model("N"), found, feeds) > 25
    compiled = evo("compile", output, "-o", tmp_path / "q.evo", "--input", "image:1x3x16x16")
    assert compiled.status == 0, compiled.err


def test_json_and_options(folder: Path, tmp_path: Path) -> None:
    options = ["--calib", folder / "calib.npz", "--samples", 2, "--observer", "kl", "--keep-last", "--skip-operator",
               "GlobalAveragePool", "--per-tensor", "--symmetric", "--activations", "int8", "--json"]  # fmt: skip
    done = quantize(folder, tmp_path / "q.onnx", *options)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["quantized"] == ["conv"] and found["report"] is None
    assert found["left"] == {"pool": "it is to be skipped", "dense": "the last layer is kept"}
    assert found["size_bytes"] == (tmp_path / "q.onnx").stat().st_size


def test_dynamic(folder: Path, tmp_path: Path) -> None:
    done = quantize(folder, tmp_path / "q.onnx", "--dynamic")
    assert done.status == 0 and "1 layers in int8" in done.out
    assert operators(onnx.load(tmp_path / "q.onnx"))["MatMulInteger"] == 1


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ([], 2, "error: give either --calib DATA or --dynamic"),
        (["--dynamic", "--calib", "{data}"], 2, "error: give either --calib DATA or --dynamic"),
        (["--calib", "none.npz"], 1, "error: none.npz: no such file"),
        (["--calib", "{data}", "--skip", "cov"], 2, "error: skip: the model has no node 'cov'\nDid you mean 'conv'?"),
        (["--calib", "{data}", "--percentile", "20"], 2, "the percentile is out of range"),
        (["--calib", "{data}", "--mean", "a,b"], 2, "error: --mean: not numbers"),
        (["--calib", "{nan}"], 1, "sample 1, input 'image': NaN among the values"),
        (["--calib", "{bytes}"], 1, "wrong dtype (expected float32, got uint8)"),
        (["--calib", "{data}", "--report", "/no/folder/r.json"], 2, "cannot write this file"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    folder: Path, tmp_path: Path, options: list[str], status: int, text: str
) -> None:
    broken = IMAGES[:3].copy()
    broken[1, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", image=broken)
    np.savez(tmp_path / "bytes.npz", image=np.zeros((2, 3, 16, 16), np.uint8))
    places = {"data": folder / "calib.npz", "nan": tmp_path / "nan.npz", "bytes": tmp_path / "bytes.npz"}
    done = quantize(folder, tmp_path / "q.onnx", *(option.format(**places) for option in options))
    assert done.status == status and text in done.err, done.err
    assert "Traceback" not in done.err and not list(tmp_path.glob("q.onnx*"))


def test_a_quantized_model_is_refused(folder: Path, tmp_path: Path) -> None:
    first = tmp_path / "q.onnx"
    assert quantize(folder, first, "--dynamic").status == 0
    again = evo("quantize", first, "--calib", folder / "calib.npz", "-o", tmp_path / "r.onnx")
    assert again.status == 1 and "the model is quantized already" in again.err
    assert not (tmp_path / "r.onnx").exists()


def test_a_folder_of_images(folder: Path, tmp_path: Path) -> None:
    """The options reach the images: a mean that is far off moves the range of the input."""
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    pixels[8:10, 10:12] = [[0], [255]]
    image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    options = [
        "--calib",
        tmp_path / "images",
        "--observer",
        "minmax",
        "--crop",
        16,
        "--mean",
        "0.5,0.5,3",
        "--std",
        "2",
    ]
    done = quantize(folder, tmp_path / "q.onnx", *options, "--channel-order", "bgr")
    assert done.status == 0, done.err
    scale, zero_point = (constant(onnx.load(tmp_path / "q.onnx"), f"image_{name}") for name in ("scale", "zero_point"))
    low = -zero_point.astype(float) * scale
    assert low == pytest.approx(-1.5, rel=0.02) and (255 - zero_point.astype(float)) * scale == pytest.approx(
        0.25, rel=0.05
    )
