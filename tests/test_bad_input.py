"""Bad input, each kind by name, as a user meets it: the message says what, where and what to do; nothing half-written.

Every test reads the text and the exit status of the command line: 1, the work failed; 2, wrong use.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from evo_tvm import Artifact
from evo_tvm.runtime import container
from tests.command_line import Result, evo, evo_apart
from tests.conftest import small_model


def check(result: Result, status: int, *parts: object) -> None:
    """The command failed with `status` and a message of one or two lines, without a traceback, that has all `parts`."""
    assert result.status == status, result.err
    message = result.err.partition("error: ")[2]
    assert message, result.err
    for part in parts:
        assert str(part) in message
    assert "Traceback" not in result.err
    assert len(message.splitlines()) <= 2, message


def compile_bad(model: Path, folder: Path, *options: object) -> Result:
    """Compile into `folder`, which must be empty before, and is empty after."""
    output = folder / "out"
    output.mkdir()
    result = evo("compile", model, "-o", output / "m.evo", *options)
    assert os.listdir(output) == []
    return result


# ---- Models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compile", "compare", "inspect"])
def test_no_such_file(command: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    if command == "compile":
        check(compile_bad(missing, tmp_path), 1, missing, "no such file")
    else:
        check(evo(command, missing), 1, missing, "no such file")


@pytest.mark.parametrize("command", ["run", "bench", "profile", "inspect"])
def test_no_such_artifact(command: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.evo"
    options = ["--random", "0"] if command == "run" else []
    check(evo(command, missing, *options), 1, missing, "no such file", "evo-tvm compile")


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "empty"), (b"hello, this is text\n" * 20, "ONNX"), (b"\x89PNG\r\n\x1a\n" + bytes(100), "ONNX")],
)
def test_not_onnx(content: bytes, part: str, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(content)
    check(compile_bad(model, tmp_path), 1, model, part)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.99])
def test_truncated_onnx(share: float, tmp_path: Path) -> None:
    whole = small_model().SerializeToString()
    model = tmp_path / "m.onnx"
    model.write_bytes(whole[: int(share * len(whole))])
    check(compile_bad(model, tmp_path), 1, model)


def external_model(folder: Path, location: str = "weights.data") -> Path:
    """The small model with its weights in another file, named by `location`."""
    model = small_model()
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    if location != "weights.data":
        model = onnx.load(path, load_external_data=False)
        for weights in model.graph.initializer:
            for entry in weights.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
    return path


def test_external_data_missing(tmp_path: Path) -> None:
    model = external_model(tmp_path)
    (tmp_path / "weights.data").unlink()
    check(compile_bad(model, tmp_path), 1, model, "weights.data")


@pytest.mark.parametrize("absolute", [False, True])
def test_external_data_outside_the_models_folder(absolute: bool, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "secret.data"
    model = external_model(folder, str(outside) if absolute else "../secret.data")
    shutil.move(folder / "weights.data", outside)
    check(compile_bad(model, tmp_path), 1, model, "secret.data", "outside")


def test_unsupported_operators(tmp_path: Path) -> None:
    """All of them at once, sorted, with the names of their nodes."""
    text = """<ir_version: 9, opset_import: ["": 17, "zoo": 1]> g (float[1,4] x) => (float[1,4] y) {
        [stripes] a = zoo.Zebra(x)
        [fine] b = Relu(a)
        [horns] c = zoo.Antelope(b)
        [more_stripes] y = zoo.Zebra(c)
    }"""
    model = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), model)
    result = compile_bad(model, tmp_path)
    assert result.status == 1 and "Traceback" not in result.err
    for part in ("Antelope", "Zebra", "horns", "stripes", "more_stripes"):
        assert part in result.err
    assert result.err.index("Antelope") < result.err.index("Zebra")


def test_free_dimension_without_input(free_onnx: Path, tmp_path: Path) -> None:
    check(compile_bad(free_onnx, tmp_path), 1, "free dimension", "image", "batchx3x16x16", "--input image:1x3x16x16")


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("image", ["NAME:"]),
        ("image:1xx16", ["NAME:"]),
        ("imag:1x3x16x16", ["imag", "image"]),
        ("image:1x3x16", ["image"]),
        ("image:0x3x16x16", ["image"]),
        ("image:1x4x16x16", ["image"]),
    ],
)
def test_input_option_that_does_not_fit(option: str, parts: list[str], free_onnx: Path, tmp_path: Path) -> None:
    check(compile_bad(free_onnx, tmp_path, "--input", option), 2, *parts)


def test_unknown_target(small_onnx: Path, tmp_path: Path) -> None:
    """With close matches."""
    from evo_tvm.target import list_targets

    known = next(name for name in list_targets() if name != "host")
    check(compile_bad(small_onnx, tmp_path, "--target", known + "x"), 2, known + "x", known)
    check(evo("targets", known + "x"), 2, known + "x", known)


def test_unknown_peer(small_onnx: Path) -> None:
    check(evo("compare", small_onnx, "--peers", "otr"), 2, "otr", "ort")


def write_to(path: Path, small_onnx: Path, small_evo: Path) -> Result:
    """Run the command that writes such a file: `compile` for .evo, `run` for .npz."""
    command = ["compile", small_onnx] if path.suffix == ".evo" else ["run", small_evo, "--random", "0"]
    return evo(*command, "-o", path)


@pytest.mark.parametrize("name", ["m.evo", "y.npz"])
def test_output_folder_missing(name: str, small_onnx: Path, small_evo: Path, tmp_path: Path) -> None:
    path = tmp_path / "none" / name
    check(write_to(path, small_onnx, small_evo), 2, path, "folder")
    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["m.evo", "y.npz"])
def test_output_folder_not_writable(name: str, small_onnx: Path, small_evo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # root may write anywhere, but not into what the kernel shows as files
        folder = Path("/proc/self/fdinfo")
    check(write_to(folder / name, small_onnx, small_evo), 2, folder / name, "cannot write")
    assert not (folder / name).exists()


def test_output_is_a_folder(small_onnx: Path, tmp_path: Path) -> None:
    check(evo("compile", small_onnx, "-o", tmp_path), 2, tmp_path, "folder")


def test_interrupted_with_ctrl_c(small_onnx: Path, tmp_path: Path) -> None:
    """As soon as the output's folder was checked: nothing is left there."""
    code = (
        "import os, signal, sys, evo_tvm\n"
        "evo_tvm.compile = lambda *a, progress, **o: (progress('phase', 0, 1), os.kill(os.getpid(), signal.SIGINT))\n"
        "from evo_tvm.cli import main\n"
        f"sys.argv = ['evo-tvm', 'compile', {str(small_onnx)!r}, '-o', {str(tmp_path / 'm.evo')!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode in (130, -signal.SIGINT) and "Traceback" not in done.stderr
    assert "interrupted" in done.stderr and os.listdir(tmp_path) == []


# ---- Inputs at run time ----------------------------------------------------------------------------------------------

GOOD = np.zeros((1, 3, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"picture": GOOD}, ["picture", "image"]),
        ({"image": GOOD[:, :, :8]}, ["image", "1x3x16x16", "1x3x8x16"]),
        ({"image": GOOD.astype(np.float64)}, ["image", "float32", "float64"]),
        ({"image": GOOD, "mask": GOOD}, ["mask", "image"]),
        ({}, ["image"]),
    ],
    ids=["name", "shape", "dtype", "count", "none"],
)
def test_wrong_inputs(arrays: dict[str, np.ndarray], parts: list[str], small_evo: Path, tmp_path: Path) -> None:
    """No output file appears."""
    np.savez(tmp_path / "x.npz", **arrays)
    check(evo("run", small_evo, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz"), 1, *parts)
    assert os.listdir(tmp_path) == ["x.npz"]


def test_input_file_missing(small_evo: Path, tmp_path: Path) -> None:
    check(evo("run", small_evo, "--input", tmp_path / "x.npz"), 1, tmp_path / "x.npz", "no such file")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short"])
def test_input_file_of_another_kind(content: bytes, small_evo: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    check(evo("run", small_evo, "--input", tmp_path / "x.npz"), 1, tmp_path / "x.npz", "numpy.savez")


def test_pickled_input_is_refused(small_evo: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.array([{}], dtype=object))
    check(evo("run", small_evo, "--input", tmp_path / "x.npz"), 1, tmp_path / "x.npz", "numeric")


def test_neither_file_nor_random_inputs(small_evo: Path) -> None:
    check(evo("run", small_evo), 2, "--input", "--random")


# ---- Artifacts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its bad artifact: no other file is in the folder."""
    return tmp_path / "m.evo"


def check_artifact(path: Path, *parts: object) -> None:
    """Both `run` and `inspect` refuse it."""
    check(evo("run", path, "--random", "0"), 1, path, *parts)
    check(evo("inspect", path), 1, path, *parts)


def test_artifact_of_another_kind(path: Path) -> None:
    path.write_bytes(b"hello")
    check_artifact(path, "not an .evo file")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.9999])
def test_artifact_truncated(share: float, small_evo: Path, path: Path) -> None:
    whole = small_evo.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    check_artifact(path, "truncated")


@pytest.mark.parametrize("member", ["manifest.json", "model.so", "weights.bin"])
def test_artifact_altered(member: str, small_evo: Path, path: Path) -> None:
    """One bit in the middle of a member."""
    data = bytearray(small_evo.read_bytes())
    with zipfile.ZipFile(small_evo) as archive:
        content = archive.read(member)
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)
    check_artifact(path, "altered")


def rewrite(small_evo: Path, path: Path, **changes: object) -> None:
    """`small_evo` with other fields in its manifest, and otherwise whole."""
    artifact = Artifact.open(small_evo)
    manifest = json.loads(artifact.manifest.to_json())
    for key, value in changes.items():
        manifest[key] = manifest[key] | value if isinstance(value, dict) else value

    class Changed:
        def with_checksums(self, checksums: dict[str, str]) -> Changed:
            manifest["checksums"] = checksums
            return self

        def to_json(self) -> str:
            return json.dumps(manifest)

    container.write(path, Changed(), artifact.library, artifact.weights)  # type: ignore[arg-type]


def test_artifact_of_a_newer_format(small_evo: Path, path: Path) -> None:
    rewrite(small_evo, path, format=99)
    check_artifact(path, "newer format", "format 99", "upgrade")


def test_artifact_for_cpu_features_that_this_machine_lacks(small_evo: Path, path: Path) -> None:
    rewrite(small_evo, path, target={"features": ["avx512f", "avx1024", "teleport"]})
    check(evo("run", path, "--random", "0"), 1, path, "lacks", "avx1024, teleport", "--target host")
    assert evo("inspect", path).status == 0  # looking at it runs nothing


def test_artifact_for_another_architecture(small_evo: Path, path: Path) -> None:
    rewrite(small_evo, path, target={"triple": "mips-unknown-linux-gnu"})
    check(evo("run", path, "--random", "0"), 1, path, "mips", "--target host")


@pytest.mark.parametrize("name", ["../model.so", "a/../../model.so", "/model.so"])
def test_artifact_with_a_member_outside(name: str, small_evo: Path, path: Path) -> None:
    with zipfile.ZipFile(small_evo) as archive, zipfile.ZipFile(path, "w") as bad:
        for member in archive.namelist():
            bad.writestr(zipfile.ZipInfo(name if member == "model.so" else member), archive.read(member))
    check_artifact(path, "refused", name)
    assert os.listdir(path.parent) == ["m.evo"]


def test_inspect_of_a_file_with_another_ending(tmp_path: Path) -> None:
    check(evo("inspect", tmp_path / "m.tflite"), 2, "m.tflite", ".evo", ".onnx")


# ---- Extras ----------------------------------------------------------------------------------------------------------


def without(modules: str, folder: Path) -> dict[str, str]:
    """An environment in which these modules, comma-separated, are not installed."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {modules.split(',')!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    return {"PYTHONPATH": str(folder), "EVO_TVM_CACHE": "off"}  # an artifact of the cache needs no compiler


@pytest.mark.parametrize("modules", ["tvm", "onnx", "tvm,onnx,onnx_ir,onnxscript,onnxslim,xgboost"])
def test_compile_without_the_compiler_extra(modules: str, small_onnx: Path, tmp_path: Path) -> None:
    result = evo_apart("compile", small_onnx, "-o", tmp_path / "m.evo", env=without(modules, tmp_path))
    check(result, 1, 'pip install "evo_tvm[compiler]"', modules.split(",")[0])
    assert not (tmp_path / "m.evo").exists()


@pytest.mark.parametrize(
    ("command", "modules", "extra"),
    [
        ("inspect", "onnx,onnx_ir", "compiler"),
        ("compare", "tvm", "compiler"),
        ("compare", "onnxruntime", "compare"),
    ],
)
def test_other_commands_without_an_extra(
    command: str, modules: str, extra: str, small_onnx: Path, tmp_path: Path
) -> None:
    result = evo_apart(command, small_onnx, env=without(modules, tmp_path))
    check(result, 1, f'pip install "evo_tvm[{extra}]"')


def test_the_base_runs_models_without_any_extra(small_evo: Path, tmp_path: Path) -> None:
    hidden = without("tvm,onnx,onnx_ir,onnxscript,onnxslim,onnxruntime,xgboost,ml_dtypes,torch,ziglang", tmp_path)
    for command in (["run", small_evo, "--random", "0"], ["profile", small_evo], ["inspect", small_evo], ["targets"]):
        result = evo_apart(*command, env=hidden)
        assert result.status == 0, result.err


def test_a_fault_inside_an_extra_is_not_mistaken_for_a_missing_one(small_onnx: Path, tmp_path: Path) -> None:
    """Another module that is missing is a fault of its own: the message names it; --verbose shows where."""
    options = ["compile", small_onnx, "-o", tmp_path / "m.evo"]
    env = without("psutil,scipy,google.protobuf,google", tmp_path)
    plain = evo_apart(*options, env=env)
    assert plain.status == 1 and "evo_tvm[compiler]" not in plain.err and "Traceback" not in plain.err
    shown = evo_apart(*options, "--verbose", env=env)
    assert shown.status == 1 and "Traceback" in shown.err


def test_verbose_shows_the_traceback_of_an_error_too(tmp_path: Path) -> None:
    result = evo("inspect", tmp_path / "missing.evo", "--verbose")
    assert result.status == 1 and "Traceback" in result.err and "error: " in result.err
