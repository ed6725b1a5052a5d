"""Each command does its work on a small model, for people and as JSON."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import evo_tvm
from evo_tvm.cli import app
from evo_tvm.cli._show import show, show_json, size_text
from evo_tvm.pipeline import CLEAN_UP, FUSE, PLAN, TOWARDS_INTEGERS


def invoke(*arguments: object) -> Result:
    """Run a command that must succeed, in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def invoke_json(*arguments: object) -> dict:  # type: ignore[type-arg]
    """What a command that must succeed prints with --json."""
    return json.loads(invoke(*arguments, "--json").stdout)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.npz"
    np.savez(path, image=np.random.default_rng(1).random((1, 3, 16, 16), np.float32))
    return path


def test_compile_writes_an_artifact_and_says_what_is_next(small_onnx: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.evo"
    result = invoke("compile", small_onnx, "-o", made, "--threads", "2")
    assert "kernels for" in result.stdout and f"evo-tvm bench {made}" in result.stdout
    assert invoke_json("inspect", made)["num_threads"] == 2
    assert os.listdir(tmp_path) == ["m.evo"]


def test_compile_fixes_free_dimensions_and_reports_as_json(free_onnx: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.evo"
    report = invoke_json("compile", free_onnx, "-o", made, "--input", "image:4x3x16x16")
    assert report["size_bytes"] == made.stat().st_size and report["kernels"] > 0 and report["seconds"] > 0
    assert invoke_json("inspect", made)["inputs"] == [{"name": "image", "shape": [4, 3, 16, 16], "dtype": "float32"}]


def test_compile_dumps_the_module_after_each_phase(small_onnx: Path, tmp_path: Path) -> None:
    invoke("compile", small_onnx, "-o", tmp_path / "m.evo", "--dump", tmp_path / "phases")
    names = [path.stem.partition("_")[2] for path in sorted((tmp_path / "phases").iterdir())]
    towards, fuse, planned = ([name for name, _ in steps] for steps in (TOWARDS_INTEGERS, FUSE, PLAN))
    assert names == [
        *("import", *(step.info.name for step in CLEAN_UP)),
        *("read_relax", *towards, "lower_integer", *fuse, "choose_layouts"),
        *("choose_algorithms", *planned, "main"),
    ]
    assert all(path.stat().st_size for path in (tmp_path / "phases").iterdir())


def test_run_gives_what_onnx_runtime_gives(small_onnx: Path, small_evo: Path, image: Path, tmp_path: Path) -> None:
    import onnxruntime

    output = tmp_path / "y.npz"
    invoke("run", small_evo, "--input", image, "-o", output)
    (expected,) = onnxruntime.InferenceSession(str(small_onnx)).run(None, dict(np.load(image)))
    np.testing.assert_allclose(np.load(output)["scores"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_run_takes_npy_for_a_single_input(small_evo: Path, image: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.load(image)["image"])
    one = invoke_json("run", small_evo, "--input", tmp_path / "x.npy")
    assert one == invoke_json("run", small_evo, "--input", image)


def test_run_shows_the_largest_classes(small_evo: Path, image: Path) -> None:
    text = invoke("run", small_evo, "--input", image).stdout
    assert "scores" in text and "float32[1x10]" in text and "row 0: the largest" in text
    (output,) = invoke_json("run", small_evo, "--input", image)["outputs"]
    values = [best["value"] for best in output["top"][0]]
    assert len(values) == 5 and values == sorted(values, reverse=True) and values[0] == output["max"]


def test_run_on_random_inputs_is_repeatable(small_evo: Path) -> None:
    first = invoke("run", small_evo, "--random", "1").stdout
    assert first == invoke("run", small_evo, "--random", "1").stdout != invoke("run", small_evo, "--random", "2").stdout


def test_bench_gives_figures_with_their_provenance(small_evo: Path) -> None:
    assert "median ms" in invoke("bench", small_evo, "--rounds", "1").stdout
    figures = invoke_json("bench", small_evo, "--rounds", "2", "--threads", "2")
    assert 0 < figures["min_ms"] <= figures["median_ms"] and len(figures["rounds_ms"]) == 2
    assert figures["provenance"]["threads"] == 2 and figures["provenance"]["versions"]["evo_tvm"]


def test_profile_covers_every_kernel(small_evo: Path) -> None:
    text = invoke("profile", small_evo, "--repeat", "3").stdout
    assert "GFLOP/s" in text and "conv" in text
    kernels = invoke_json("profile", small_evo, "--repeat", "3")["kernels"]
    assert len(kernels) == len(invoke_json("inspect", small_evo)["kernels"])
    assert sum(kernel["share"] for kernel in kernels) == pytest.approx(1)


def test_profile_compares_with_what_the_cpu_does_at_most(small_evo: Path) -> None:
    found = invoke_json("profile", small_evo, "--repeat", "3")
    assert found["peak_gflops_per_s"] > 0.5 and found["memory_gbytes_per_s"] > 0.05
    (convolution,) = (kernel for kernel in found["kernels"] if "conv2d" in kernel["operator"])
    assert convolution["peak_share"] == pytest.approx(convolution["gflops_per_s"] / found["peak_gflops_per_s"])
    assert convolution["bound_share"] == max(convolution["peak_share"], convolution["memory_share"])
    assert convolution["bound"] in ("arithmetic", "memory") and found["provenance"]["threads"] == 1
    text = invoke("profile", small_evo, "--repeat", "3").stdout
    assert "measured as the most of this CPU on 1 thread: " in text and "GB/s from memory" in text


def test_profile_folds_what_is_not_shown(small_evo: Path) -> None:
    kernels = len(invoke_json("inspect", small_evo)["kernels"])

    def lines(*options: str) -> list[str]:
        return invoke("profile", small_evo, "--repeat", "3", *options).stdout.split("\n\n")[0].splitlines()

    assert len(lines("--all")) == kernels + 2 and not any("others" in line for line in lines("--all"))
    head, first, others, whole = lines("--top", "1")
    assert "GFLOP/s" in head and f"{kernels - 1} others" in others and " all " in whole and "100" not in first
    assert CliRunner().invoke(app, ["profile", str(small_evo), "--top", "1", "--all"]).exit_code == 2


def test_profile_is_120_columns_wide_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    from evo_tvm.cli.profile import _show
    from evo_tvm.runtime.limits import Limits
    from evo_tvm.runtime.manifest import KernelInfo
    from evo_tvm.runtime.timing import Provenance, profile_of

    name = "/model.22/" + "block.0/" * 20 + "Conv"
    info = KernelInfo("k", "conv2d+hard_sigmoid+multiply+add", "depthwise_pointwise", "", (name, name), 10**11, 10**9)
    times = np.full((2, 150), 1234.5678)
    profile = profile_of([info] * 150, times, Limits(10.0, 10.0), Provenance.now(1, "host", "0", "0"))
    _show(profile, range(150))
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert len(table) == 152 and max(len(line.rstrip()) for line in table) <= 120
    assert table[1].rstrip().endswith("/Conv") and "conv2d+hard_sigmoid…" in table[1]


def test_compare_puts_times_side_by_side(small_onnx: Path) -> None:
    text = invoke("compare", small_onnx, "--rounds", "1").stdout
    assert "ONNX Runtime" in text and "evo_tvm" in text and "speedup" in text
    found = invoke_json("compare", small_onnx, "--rounds", "2", "--threads", "2")
    (peer,) = found["peers"]
    assert peer["difference"] <= 1e-4 and len(peer["speedup_by_round"]) == 2 and found["threads"] == 2


def test_compare_fails_where_outputs_differ(small_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evo_tvm.bench import compare

    monkeypatch.setattr(compare, "worst_difference", lambda ours, theirs: 0.5)
    result = CliRunner().invoke(app, ["compare", str(small_onnx), "--rounds", "1"])
    assert result.exit_code == 1
    assert "the outputs differ from ONNX Runtime's by 5.00e-01" in result.stderr and "--tolerance" in result.stderr


def test_inspect_lists_what_an_artifact_holds(small_evo: Path) -> None:
    text = invoke("inspect", small_evo).stdout
    assert "image: float32[1x3x16x16]" in text and "scores: float32[1x10]" in text
    assert "conv" in text and "arena" in text and "schedule" in text
    assert isinstance(invoke_json("inspect", small_evo)["default_schedule"], list)


def test_inspect_describes_an_onnx_file(free_onnx: Path) -> None:
    text = invoke("inspect", free_onnx).stdout
    assert "image" in text and "scores" in text and "Conv" in text
    assert invoke_json("inspect", free_onnx)


def test_targets_lists_the_host_first_and_shows_one() -> None:
    known = json.loads(invoke("targets", "--json").stdout)
    assert known and invoke("targets").stdout.count("\n") == len(known) + 1
    host = invoke_json("targets", "host")
    assert known[0] | {"name": host["name"]} == {name: host[name] for name in host if name != "register_tile"}
    assert host["cpu"] in invoke("targets", "host").stdout


def test_targets_shows_what_follows_from_one() -> None:
    text = invoke("targets", "raspberrypi4").stdout
    assert "cortex-a72" in text and "smlal" in text and "1,024 KiB" in text
    found = invoke_json("targets", "bananapi-f3")
    assert (found["vector_bits"], found["dot_instruction"], found["lanes_f32"]) == (256, "vwmacc", 8)
    tile = found["register_tile"]
    assert tile["channels"] // 8 * tile["rows"] * tile["columns"] <= found["vector_registers"]
    done = CliRunner().invoke(app, ["targets", "raspberrypi4+sdot"])
    assert done.exit_code == 2 and "unknown feature 'sdot' of arm\nDid you mean " in done.stderr


def test_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show("x: float32[scalar] [bold]:smile:")
    assert capsys.readouterr().out == "x: float32[scalar] [bold]:smile:\n"


def test_json_has_no_infinities(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": float("inf"), "b": [float("nan"), 1.5], "c": (1,)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": [1]}


def test_sizes_are_readable() -> None:
    assert [size_text(size) for size in (0, 999, 1500, 2.5e6, 3e9)] == ["0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB"]


def test_a_terminal_sees_progress_while_a_model_compiles(small_onnx: Path, tmp_path: Path) -> None:
    outside, inside = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "evo_tvm.cli", "compile", str(small_onnx), "-o", str(tmp_path / "m.evo")],
        stdout=subprocess.PIPE,
        stderr=inside,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(inside)
    seen = b""
    try:
        while chunk := os.read(outside, 65536):
            seen += chunk
    except OSError:  # the child closed its end
        pass
    assert child.wait(timeout=60) == 0
    assert b"0:00:0" in seen  # the elapsed time beside the bar


@pytest.mark.parametrize("after_s", [0.5, 3.0])
def test_ctrl_c_ends_with_status_130_and_no_file(small_onnx: Path, tmp_path: Path, after_s: float) -> None:
    """Interrupted early or late: status 130 and nothing written, or, where writing was faster, a whole file."""
    made = tmp_path / "m.evo"
    child = subprocess.Popen(
        [sys.executable, "-m", "evo_tvm.cli", "compile", str(small_onnx), "-o", str(made)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after_s)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode in (0, 130, -signal.SIGINT), said
    assert os.listdir(tmp_path) in ([], ["m.evo"])
    if child.returncode == 0 or made.exists():
        evo_tvm.load(made)
