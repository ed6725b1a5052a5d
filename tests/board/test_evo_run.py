"""`evo-run` on this machine: its results are the Module's, and what it cannot run it refuses in one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import evo_tvm
from evo_tvm.board.build_run import SOURCES, build_evo_run
from evo_tvm.compile_gated import compile_gated
from evo_tvm.executor import link
from evo_tvm.runtime import container, cpu
from evo_tvm.runtime.gates import CurvePoint
from evo_tvm.target import _COMPUTE_FEATURES, resolve
from tests.gates.networks import residual_network, skip_hooks

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `evo-run ARGUMENTS`."""
    program = tmp_path_factory.mktemp("program") / "evo-run"
    build_evo_run(resolve("host"), program)

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)

    return call


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.npy"
    np.save(path, np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def mixed_evo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs of names that JSON and files must escape, an integer one among them; two outputs."""
    single, whole = TensorProto.FLOAT, TensorProto.INT64
    kinds = {'a "ä"': single, "b/\t": whole, "sum/1": single, "square": whole}
    a, b, total, square = (helper.make_tensor_value_info(name, kind, [2, 3]) for name, kind in kinds.items())
    nodes = [
        helper.make_node("Cast", [b.name], ["c"], to=single),
        helper.make_node("Add", [a.name, "c"], [total.name]),
        helper.make_node("Mul", [b.name, b.name], [square.name]),
    ]
    graph = helper.make_graph(nodes, "mixed", [a, b], [total, square])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("mixed") / "mixed.evo"
    evo_tvm.compile(model).save(path)
    return path


@pytest.fixture(scope="module")
def gated_evo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks that gates skip, and a curve that does not begin with the cheapest point; one of a price is the better."""
    model, x = residual_network()
    artifact = compile_gated(model, skip_hooks(model))
    gates = len(artifact.manifest.gates)
    curve = [((-math.inf,) * gates, 1.0, 0.9), ((math.inf,) * gates, 0.25, 0.5), ((0.0,) * gates, 0.6, 0.8)]
    curve += [((math.inf, *(-math.inf,) * (gates - 1)), 0.6, 0.85)]
    points = tuple(CurvePoint(*point) for point in curve)
    folder = tmp_path_factory.mktemp("gated")
    np.save(folder / "x.npy", x)
    dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, curve=points)).save(folder / "g.evo")
    return folder / "g.evo"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refusal is."""
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("evo-run: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("evo-run: ").rstrip("\n")


# ---- What it computes ----


@pytest.mark.parametrize("threads", [1, 3])
def test_its_results_are_those_of_the_module(small_evo: Path, image: Path, run: Run, threads: int) -> None:
    folder = image.parent / "outputs"
    done = run(small_evo, "--input", image, "--output", folder, "--threads", threads)
    assert done.returncode == 0, done.stderr
    with evo_tvm.load(small_evo) as module:
        expected = module(np.load(image))
    np.testing.assert_array_equal(np.load(folder / "scores.npy"), expected)
    assert "input   image  float32 1x3x16x16" in done.stdout and "latency " in done.stdout


def test_bare_bytes_and_names(small_evo: Path, image: Path, run: Run) -> None:
    raw = image.with_suffix(".bin")
    raw.write_bytes(np.load(image).tobytes())
    outputs = [run(small_evo, "--repeat", 0, "--json", "--input", i) for i in (image, raw, f"image={raw}")]
    sums = [json.loads(done.stdout)["outputs"][0]["crc32"] for done in outputs]
    assert len(set(sums)) == 1


def test_several_inputs_and_outputs(mixed_evo: Path, tmp_path: Path, run: Run) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3) / 4, np.arange(6).reshape(2, 3) - 2
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    inputs = ("--input", f"b/\t={tmp_path / 'b.npy'}", "--input", tmp_path / "a.npy")
    done = run(mixed_evo, *inputs, "--output", tmp_path / "out", "--json", "--repeat", 2, "--warmup", 0)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [tensor["name"] for tensor in report["inputs"]] == ['a "ä"', "b/\t"]
    assert [Path(tensor["file"]).name for tensor in report["outputs"]] == ["sum_1.npy", "square.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "sum_1.npy"), a + b.astype(np.float32))
    square = np.load(tmp_path / "out" / "square.npy")
    assert square.dtype == np.int64
    np.testing.assert_array_equal(square, b * b)


@pytest.mark.parametrize(("share", "latency", "accuracy"), [(2, 1.0, 0.9), (0.7, 0.6, 0.85), (0.1, 0.25, 0.5)])
def test_a_budget_of_gates(
    gated_evo: Path, tmp_path: Path, run: Run, share: float, latency: float, accuracy: float
) -> None:
    x = gated_evo.with_name("x.npy")
    done = run(gated_evo, "--input", x, "--output", tmp_path, "--budget", share, "--repeat", 0, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["gates"] == {"latency": latency, "accuracy": accuracy}
    with evo_tvm.load(gated_evo) as module:
        expected = module(np.load(x), budget=share)
    np.testing.assert_array_equal(np.load(report["outputs"][0]["file"]), expected)
    said = f"gates   for {latency:.3f} of the time without gates, accuracy {accuracy:.4f}\n"
    assert said in run(gated_evo, "--budget", share, "--repeat", 0).stdout


def test_a_budget_without_gates(small_evo: Path, run: Run) -> None:
    said = refused(run(small_evo, "--budget", 0.5))
    assert said == f"{small_evo}: it has no curve of gates to keep a budget with; see evo-tvm gate"


def test_made_up_inputs_are_always_the_same(small_evo: Path, run: Run) -> None:
    first, second = (run(small_evo, "--repeat", 0).stdout for _ in range(2))
    assert first == second and "made up" in first and "latency" not in first


def test_times(small_evo: Path, run: Run) -> None:
    report = json.loads(run(small_evo, "--json", "--repeat", 21, "--warmup", 2, "--profile").stdout)
    samples = report["samples_ms"]
    assert len(samples) == 21 and report["warmup"] == 2 and min(samples) > 0
    for name, percent in (("min", 0), ("median", 50), ("p90", 90), ("p99", 99)):
        assert report[f"{name}_ms"] == pytest.approx(np.percentile(samples, percent), abs=2e-6)
    with evo_tvm.load(small_evo) as module:
        kernels = module.manifest.kernels
    assert [kernel["operator"] for kernel in report["kernels"]] == [kernel.operator for kernel in kernels]
    assert 0 < sum(kernel["min_ms"] for kernel in report["kernels"]) <= max(samples)
    assert kernels[0].layers[0] in run(small_evo, "--profile").stdout


def test_what_it_says_of_this_cpu(run: Run) -> None:
    target = resolve(run("--cpu").stdout.strip())
    here = resolve("host")
    known = set(_COMPUTE_FEATURES[here.isa])
    assert (target.triple, set(target.features)) == (here.triple, cpu.features() & known)


# ---- What it refuses ----


def test_files_that_are_no_models(tmp_path: Path, run: Run, image: Path) -> None:
    empty = tmp_path / "empty.evo"
    empty.touch()
    for path, text in (
        (tmp_path / "none.evo", "cannot be read: No such file or directory"),
        (tmp_path, "not a file"),
        (empty, "the file is empty; copy it again, or compile the model again"),
        (image, "not an .evo file"),
    ):
        assert refused(run(path)) == f"{path}: {text}"


def test_no_damage_goes_unnoticed(small_evo: Path, tmp_path: Path, run: Run) -> None:
    """Bytes of a member, and of what says where it is; padding alone may change."""
    whole = small_evo.read_bytes()
    good = run(small_evo, "--repeat", 0).stdout.split("\n", 1)[1]
    path = tmp_path / "damaged.evo"
    rng = np.random.default_rng(0)
    for size in (3, 4, 21, 100, len(whole) - 1, *rng.integers(4, len(whole), 10)):
        path.write_bytes(whole[:size])
        assert "truncated" in refused(run(path)) or size == 3
    noticed = 0
    for place in (*rng.integers(0, len(whole), 60), *range(len(whole) - 22, len(whole))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        done = run(path, "--repeat", 0)
        if done.returncode == 0:
            assert done.stdout.split("\n", 1)[1] == good
        else:
            assert refused(done)
            noticed += 1
    assert noticed > 40


def rewrite(source: Path, path: Path, **changes: object) -> Path:
    """A copy of an .evo file with another manifest."""
    found = container.read(source)
    manifest = dataclasses.replace(found.manifest, **changes)
    container.write(path, manifest, bytes(found.library), bytes(found.weights))
    return path


def test_models_for_others(small_evo: Path, tmp_path: Path, run: Run) -> None:
    target = container.read(small_evo).manifest.target
    path = tmp_path / "other.evo"
    rewrite(small_evo, path, target=dataclasses.replace(target, triple="sparc-linux-gnu", name="leon3"))
    assert f"{path}: compiled for sparc (leon3), and this evo-run is for {cpu.arch()}; " in refused(run(path))
    features = (*target.features, "warp9", "warp10")
    rewrite(small_evo, path, target=dataclasses.replace(target, features=features))
    assert f"compiled for {target.name}, and this CPU lacks warp9, warp10; " in refused(run(path))
    rewrite(small_evo, path, format=2)
    assert "written in format 2, and this evo-run reads format 1; " in refused(run(path))


def test_parts_that_do_not_belong_together(small_evo: Path, tmp_path: Path, run: Run) -> None:
    manifest = container.read(small_evo).manifest
    (spec,) = manifest.inputs
    path = tmp_path / "other.evo"
    for changes, text in (
        ({"arena_bytes": manifest.arena_bytes - 64}, "they differ in the size of the arena ("),
        ({"inputs": ()}, "they differ in the number of inputs (1 and 0)"),
        ({"inputs": (dataclasses.replace(spec, shape=(1, 3, 16, 15)),)}, "they differ in image (3072 and 2880)"),
        ({"inputs": (dataclasses.replace(spec, dtype="text"),)}, "of a type that evo-run does not know: text"),
        ({"inputs": (dataclasses.replace(spec, shape=(1,) * 17),)}, "the shape of tensor image is wrong"),
        ({"curve": (CurvePoint((0.5,), 1.0, 0.9),)}, "its manifest's curve is not one of its gates; copy it again"),
    ):
        assert text in refused(run(rewrite(small_evo, path, **changes)))
    found = container.read(small_evo)
    container.write(path, found.manifest, b"\x7fELF", bytes(found.weights))
    assert f"{path}: its library cannot be loaded: " in refused(run(path))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((1, 3, 16, 15), np.float32), "{'descr':'<f4','fortran_order':False,'shape':(1,3,16,15),}"),
        (np.zeros((1, 3, 16, 16), np.float64), "{'descr':'<f8','fortran_order':False,'shape':(1,3,16,16),}"),
        (np.zeros((1, 3, 16, 16), np.float32, "F"), "'fortran_order':True"),
    ],
)
def test_inputs_that_do_not_fit(array: np.ndarray, text: str, small_evo: Path, tmp_path: Path, run: Run) -> None:
    np.save(tmp_path / "x.npy", array)
    said = refused(run(small_evo, "--input", tmp_path / "x.npy"))
    assert "input image wants float32 of shape (1,3,16,16) in C order, and the file holds " in said and text in said


def test_input_files_that_do_not_fit(small_evo: Path, mixed_evo: Path, image: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "few.bin").write_bytes(bytes(3071))
    (tmp_path / "many.bin").write_bytes(bytes(3073))
    (tmp_path / "cut.npy").write_bytes(image.read_bytes()[:-1])
    (tmp_path / "header.npy").write_bytes(image.read_bytes()[:40])
    for name, text in (
        ("few.bin", "input image has 3072 bytes, and the file holds fewer"),
        ("many.bin", "input image has 3072 bytes, and the file holds more"),
        ("cut.npy", "input image has 3072 bytes, and the file holds fewer"),
        ("header.npy", "the .npy file is truncated, or its header is too long"),
        ("none.npy", "cannot be read: No such file or directory"),
    ):
        assert refused(run(small_evo, "--input", tmp_path / name)) == f"{tmp_path / name}: {text}"
    assert "it has 1 inputs, so not also" in refused(run(small_evo, "--input", image, "--input", image))
    assert "input image is given twice" in refused(run(small_evo, "--input", image, "--input", f"image={image}"))
    whole = np.zeros((2, 3), np.float32)
    np.save(tmp_path / "a.npy", whole)
    assert "input b/\t is missing" in refused(run(mixed_evo, "--input", tmp_path / "a.npy"))


def test_a_full_disk(small_evo: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "scores.npy").symlink_to("/dev/full")
    said = refused(run(small_evo, "--output", tmp_path))
    assert said == f"{tmp_path / 'scores.npy'}: cannot be written: No space left on device"
    assert not (tmp_path / "scores.npy").is_symlink(), "what was written in part is removed"
    assert "cannot be made: " in refused(run(small_evo, "--output", tmp_path / "none" / "none"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "which model?"),
        (("a.evo", "b.evo"), "one model at a time, not also b.evo"),
        (("a.evo", "--thread", "2"), "unknown option: --thread"),
        (("a.evo", "--threads"), "unknown option, or its value is missing: --threads"),
        (("a.evo", "--threads", "0"), "--threads takes a number from 1 to 512, not '0'"),
        (("a.evo", "--budget", "nan"), "--budget takes a number above 0, not 'nan'"),
        (("a.evo", "--repeat", "2x"), "--repeat takes a number from 0 to 1000000, not '2x'"),
    ],
)
def test_misuse(arguments: tuple[str, ...], text: str, run: Run) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"evo-run: {text}\n")


def test_help(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: evo-run ")


# ---- How it is built ----


@pytest.mark.parametrize(
    "compiler", ["cc", "aarch64-linux-gnu-gcc", "riscv64-linux-gnu-gcc", "arm-linux-gnueabihf-gcc"]
)
def test_no_warning(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{Path(link.__file__).parent}"]
    subprocess.run([compiler, *flags, *map(str, SOURCES), "-o", str(tmp_path / "x"), "-ldl"], check=True)


def test_it_needs_the_c_library_alone(tmp_path: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf on this machine")
    build_evo_run(resolve("host"), tmp_path / "evo-run")
    assert os.access(tmp_path / "evo-run", os.X_OK) and (tmp_path / "evo-run").stat().st_size < 150_000
    text = subprocess.run(["readelf", "-d", tmp_path / "evo-run"], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split(".")[0] for line in text.splitlines() if "NEEDED" in line}
    assert needed <= {"libc", "libm", "libpthread", "libdl"}
