"""`scripts/bench_peers`: rows that survive crashes and stops, and the tables that are made of them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest

from evo_tvm.bench import apart, provenance, report, sweep
from evo_tvm.bench.peers.prepare_model import input_specs
from evo_tvm.bench.sweep import Cell, Row, Task
from evo_tvm.bench.timing import Timing
from evo_tvm.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("evo_tvm", "ort", "openvino", "mnn", "openvino-bf16")


def task(model: str = "resnet18", **fields: Any) -> Task:
    return Task(**{"model": model, "batch": 1, "threads": 1, "rounds": 2, "engines": ENGINES, **fields})


def row(model: str, times: dict[str, tuple[float, float]], differences: dict[str, float] | None = None) -> Row:
    """A row with one sample in each of two rounds."""
    cells = {
        name: Cell(Timing(name, ((a,), (b,))), (differences or {}).get(name, 1e-6), "f32")
        for name, (a, b) in times.items()
    }
    return Row(task(model), cells, {}, provenance.here(1).as_json())


ROWS = [
    row("resnet18", {"evo_tvm": (2.0, 2.2), "ort": (4.0, 3.9), "openvino": (3.0, 3.3), "openvino-bf16": (1.0, 1.1)}),
    row("light_squeezenet", {"evo_tvm": (4.0, 4.0), "ort": (2.0, 2.5), "mnn": (8.0, 9.0)}, {"mnn": 5e-4}),
    dataclasses.replace(row("vit", {"evo_tvm": (9.0, 9.0), "ort": (1.0, 1.0)}), refused={"mnn": "a layer too many"}),
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_best_peer_computes_in_float32() -> None:
    assert report.best_peer(ROWS[0]) == "openvino"
    ratio = report.advantage(ROWS[0])
    assert ratio is not None and ratio.value == pytest.approx(1.5) and ratio.by_round == pytest.approx((1.5, 1.5))
    assert report.advantage(row("resnet18", {"evo_tvm": (1.0, 1.0), "openvino-bf16": (1.0, 1.0)})) is None
    assert report.advantage(row("resnet18", {"ort": (1.0, 1.0)})) is None


def test_a_table_says_what_is_fastest_doubtful_or_missing() -> None:
    lines = report.table(ROWS).splitlines()
    head, _, resnet, squeezenet, vit, means = map(cells, lines[:6])
    assert head[1:5] == ["evo_tvm", "ONNX Runtime", "OpenVINO", "MNN"]
    assert head[-1] == "OpenVINO, its own precision (f32)"
    assert resnet[:5] == ["resnet18", "**2.00** (2.10)", "3.90 (3.95)", "3.00 (3.15)", "-"]
    assert resnet[5:] == ["**1.50x**", "1.50 to 1.50", "1.00 (1.05)"]
    assert squeezenet[0] == "squeezenet" and squeezenet[4] == r"8.00 (8.50) \*"
    assert squeezenet[5:7] == ["**0.50x**", "0.50 to 0.62"]
    assert "- vit, MNN: a layer too many" in lines
    # Of resnet18 and squeezenet alone: sqrt(1.5 * 0.5), and sqrt(1.95 * 0.5) against ONNX Runtime.
    assert means[0] == "geometric mean of 2" and means[5] == "**0.87x**" and means[2] == "0.99x"
    assert vit[5] == "**0.11x**"


def test_groups_have_a_table_each() -> None:
    rows = [*ROWS, dataclasses.replace(ROWS[0], task=task(threads=2, batch=8))]
    text = report.tables(rows)
    assert text.index("## 1 thread, batch 1") < text.index("## 2 threads, batch 8")


def test_a_document_says_where_figures_come_from_and_how_to_repeat_them() -> None:
    text = report.document(ROWS, Path("chart.svg"))
    for part in (ROWS[0].provenance["cpu"], "numpy", "chart.svg", "scripts/bench_peers --models ", "pnnx=="):
        assert part in text
    assert "vit are shown" in text and "`INFERENCE_PRECISION_HINT` f32" in text
    assert "{" not in text


def test_a_chart_is_small_and_repeatable() -> None:
    pytest.importorskip("matplotlib")
    from evo_tvm.bench import chart

    drawn = chart.svg(ROWS)
    assert drawn == chart.svg(ROWS) and len(drawn) < 50_000
    ElementTree.fromstring(drawn)
    assert "squeezenet" in drawn and "ONNX Runtime" in drawn


def test_a_row_survives_its_file() -> None:
    assert Row.from_json(json.loads(json.dumps(ROWS[2].as_json()))) == ROWS[2]


def test_a_crash_costs_the_engine_that_was_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def messages(module: str, request: dict[str, Any], timeout_s: float) -> Iterator[dict[str, Any]]:
        asked.append(list(request["task"]["engines"]))
        yield {"engine": "ort", "doing": "loads the model"}
        if "mnn" in asked[-1]:
            yield {"engine": "mnn", "doing": "loads the model"}
            yield {"status": -11}
        else:
            yield {"row": dataclasses.replace(ROWS[0], task=task(engines=tuple(asked[-1]))).as_json()}

    monkeypatch.setattr(sweep, "messages", messages)
    found = sweep.run(task(), tmp_path)
    assert asked == [list(ENGINES), [name for name in ENGINES if name != "mnn"]]
    assert found.task == task() and found.refused == {"mnn": "its process ended with status -11"}
    assert found.cells == ROWS[0].cells


def test_a_row_without_any_engine_is_still_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = [{"engine": "ort", "doing": "turn 1 of 2"}, {"status": -9}]
    monkeypatch.setattr(sweep, "messages", lambda *arguments: iter(died))
    found = sweep.run(task(engines=("ort",)), tmp_path)
    assert not found.cells and found.refused == {"ort": "its process ended with status -9"}
    assert "| resnet18 | - | - |" in report.table([found])


@pytest.mark.parametrize(("does", "status"), [("time.sleep(60)", -9), ("os.kill(os.getpid(), 11)", -11)])
def test_what_dies_apart_is_told(does: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apart_victim.py").write_text(
        "import os, sys, time\nfrom evo_tvm.bench.apart import answering\n"
        f"with answering(sys.argv[1:]) as (wanted, send):\n    send(got=wanted['x'])\n    {does}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    assert list(apart.messages("apart_victim", {"x": 3}, timeout_s=3.0)) == [{"got": 3}, {"status": status}]


def test_a_file_gets_the_batch_or_is_refused(small_onnx: Path, free_onnx: Path, tmp_path: Path) -> None:
    sweep.check_models(["resnet18", "light_squeezenet", str(small_onnx)])
    with pytest.raises(UsageError, match="no model 'resnet19'"):
        sweep.check_models(["resnet19"])
    with pytest.raises(UsageError, match="does not fit a batch of 3"):
        sweep.build_model(str(small_onnx), 3, tmp_path / "out.onnx")
    sweep.build_model("light_squeezenet", 2, tmp_path / "light.onnx")
    assert input_specs(onnx.load(tmp_path / "light.onnx"))[0].shape == (2, 3, 224, 224)


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "bench_peers", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_script_from_end_to_end(small_onnx: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    rows = tmp_path / "rows.jsonl"
    fixed = ("--models", small_onnx, "--engines", "evo_tvm,ort", "--rounds", 2, "--turn-ms", 1, "--json", rows)
    first = script(*fixed)
    assert first.returncode == 0, first.stderr
    (line,) = rows.read_text().splitlines()
    assert set(json.loads(line)["cells"]) == {"evo_tvm", "ort"} and "## 1 thread, batch 1" in first.stdout

    again = script(*fixed)
    assert again.returncode == 2 and "--resume" in again.stderr

    written = tmp_path / "B.md"
    picture = ("--write", written) if _has_matplotlib() else ()
    more = script(*fixed, "--threads", 1, "--threads", 2, "--resume", *picture)
    assert more.returncode == 0, more.stderr
    assert rows.read_text().splitlines()[0] == line and len(rows.read_text().splitlines()) == 2
    assert "## 1 thread, batch 1" in more.stdout and "## 2 threads, batch 1" in more.stdout
    if picture:
        assert more.stdout.strip() in written.read_text() and written.with_suffix(".svg").exists()


def test_the_script_refuses_what_cannot_be() -> None:
    assert "Give it with --json" in script("--resume").stderr
    assert "unknown peer 'otr'" in script("--engines", "evo_tvm,otr").stderr


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True
