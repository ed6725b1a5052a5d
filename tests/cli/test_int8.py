"""`compile --precision int8`, and `--max-drop` of both commands that quantize, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import evo
from tests.conftest import small_model

IMAGES = np.random.default_rng(0).standard_normal((12, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8")
    np.savez(path / "calib.npz", image=IMAGES)
    np.savez(path / "holdout.npz", image=IMAGES, labels=np.arange(12) % 10)
    np.save(path / "labels.npy", np.arange(12) % 10)
    (path / "small.onnx").write_bytes(small_model("N").SerializeToString())
    return path


def test_compile_in_int8(folder: Path, tmp_path: Path) -> None:
    options = ["--precision", "int8", "--calib", folder / "calib.npz", "--samples", 4, "--observer", "minmax"]
    done = evo("compile", folder / "small.onnx", "-o", tmp_path / "m.evo", *options)
    assert done.status == 0, done.err
    assert "Next: evo-tvm bench" in done.out
    shown = json.loads(evo("inspect", tmp_path / "m.evo", "--json").out)
    assert shown["integer_kernels"] >= 2 and shown["quantization"]["options"]["observer"] == "minmax"
    assert shown["inputs"][0]["shape"] == [1, 3, 16, 16]  # as the samples have it


def test_compile_with_a_goal(folder: Path, tmp_path: Path) -> None:
    options = ["--precision", "int8", "--calib", folder / "calib.npz", "--max-drop", "0", "--metric", "cosine"]
    done = evo("compile", folder / "small.onnx", "-o", tmp_path / "m.evo", *options)
    assert done.status == 0, done.err
    assert "cosine over 12 samples: 1.00000 in float, 1.00000 now" in done.out
    assert " of 3 layers given back to float: " in done.out and "samples worse" in done.out
    assert "drop: " in done.out and "with 95 % confidence" in done.out and "; allowed 0\n" in done.out
    facts = evo("inspect", tmp_path / "m.evo").out
    assert "cosine over 12 samples: 1.00000 in float, 1.00000 now" in facts and "with 95 % confidence" in facts
    again = evo("compile", folder / "small.onnx", "-o", tmp_path / "m.evo", *options, "--json")
    accuracy = json.loads(again.out)["quantization"]["accuracy"]
    assert {"conv", "dense"} <= set(accuracy["given_back"]) and accuracy["samples"] == 12


@pytest.mark.parametrize("where", ["beside", "apart"])
def test_quantize_with_a_goal(folder: Path, tmp_path: Path, where: str) -> None:
    held = ["--holdout", folder / "holdout.npz"] if where == "beside" else ["--labels", folder / "labels.npy"]
    options = ["--calib", folder / "calib.npz", "--max-drop", "0.5", *held, "--report", tmp_path / "r.json"]
    done = evo("quantize", folder / "small.onnx", "-o", tmp_path / "q.onnx", *options)
    assert done.status == 0, done.err
    assert "accuracy over 12 samples: " in done.out and " points; of as many others between " in done.out
    assert "0 of 3 layers given back to float\n" in done.out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["accuracy"]["metric"] == "accuracy" and len(found["layers"]) == 3
    assert {layer["name"] for layer in found["accuracy"]["layers"]} == {"conv", "pool", "dense"}
    as_json = evo("quantize", folder / "small.onnx", "-o", tmp_path / "q.onnx", *options[:-2], "--json")
    assert json.loads(as_json.out)["accuracy"] == found["accuracy"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["compile", "--precision", "int8"], "error: there are no calibration data"),
        (["compile", "--calib", "{calib}"], "error: --calib: is for --precision int8 and auto"),
        (["compile", "--bias-correction"], "error: --bias-correction: is for --precision int8 and auto"),
        (["compile", "--max-drop", "0.1"], "error: --max-drop: is for --precision int8 and auto"),
        (
            ["compile", "--precision", "int8", "--calib", "{calib}", "--metric", "cosine"],
            "error: --metric: is for --max-drop alone\nSay how far the score may fall.",
        ),
        (["quantize", "--calib", "{calib}", "--max-drop", "2"], "error: max_drop: not a drop that can be allowed"),
        (["quantize", "--calib", "{calib}", "--holdout", "{calib}"], "error: --holdout: is for --max-drop alone"),
        (["quantize", "--dynamic", "--max-drop", "0.1"], "error: dynamic quantization needs no goal for accuracy"),
    ],
)
def test_wrong_use(folder: Path, tmp_path: Path, options: list[str], text: str) -> None:
    command, *rest = (option.format(calib=folder / "calib.npz") for option in options)
    done = evo(command, folder / "small.onnx", "-o", tmp_path / "out", *rest)
    assert done.status == 2 and text in done.err, done.err
    assert not (tmp_path / "out").exists() and "Traceback" not in done.err
